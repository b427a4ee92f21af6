"""`sidecar.config.envoy_names`: whose certificates are accepted."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest

from sidecar.config.envoy_draft import Draft
from sidecar.config.envoy_names import client_allow, upstream_names
from sidecar.config.envoy_nodes import Findings, Node, parse
from sidecar.policy import matchers
from sidecar.policy.identity import PeerIdentity

NOBODY = PeerIdentity(subject="", issuer="", serial="", sha256="", spki_sha256="", not_before=0.0, not_after=1.0)
SPKI = "zc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc0="  # 32 times CD


def validation(values: dict[str, Any]) -> Node:
    return parse(json.dumps(values), Findings("x"))


def typed(kind: str, **matcher: Any) -> dict[str, Any]:
    return {"match_typed_subject_alt_names": [{"san_type": kind, "matcher": matcher}]}


def untyped(**matcher: Any) -> dict[str, Any]:
    return {"match_subject_alt_names": [matcher]}


def allow(values: dict[str, Any]) -> str:
    node = validation(values)
    text = client_allow(node, Draft(node.findings))
    node.report()
    assert node.findings.problems == []
    assert node.findings.left_out == []
    return text


def is_refused(values: dict[str, Any]) -> bool:
    node = validation(values)
    client_allow(node, Draft(node.findings))
    node.report()
    return bool(node.findings.problems)


class TestClientAllow:
    @pytest.mark.parametrize(
        ("values", "text"),
        [
            (typed("DNS", exact="Web.Example.org"), "dns=web.example.org"),
            (typed("DNS", exact="web.example.org", ignore_case=True), "dns=web.example.org"),
            (typed("URI", exact="spiffe://prod/ns/a,b"), 'uri="spiffe://prod/ns/a,b"'),
            (typed("URI", exact="spiffe://prod/*"), r'uri="spiffe://prod/\*"'),
            (typed("EMAIL", exact="ops@example.org"), "email=ops@example.org"),
            (typed("IP_ADDRESS", exact="10.0.0.1"), "ip=10.0.0.1"),
            (typed("URI", prefix="spiffe://prod/ns/"), "uri=spiffe://prod/ns/**"),
            (typed("URI", prefix="spiffe://prod/ns/a"), "uri=spiffe://prod/ns/a*, uri=spiffe://prod/ns/a*/**"),
            (typed("URI", prefix="urn:a:"), "uri=urn:a:*, uri=urn:a:*/**"),
            (typed("EMAIL", suffix="@example.org"), "email=*@example.org"),
            (typed("DNS", suffix=".a.b"), "dns=*.a.b, dns=*.*.a.b, dns=*.*.*.a.b"),
            (untyped(exact="web.example.org"), "dns=web.example.org"),
            (untyped(exact="spiffe://prod/a"), "uri=spiffe://prod/a"),
            (untyped(exact="::1"), "ip=::1"),
            (untyped(exact="a@b.c"), "email=a@b.c"),
            (untyped(prefix="spiffe://prod/"), "uri=spiffe://prod/**"),
            ({"verify_subject_alt_name": ["a.b", "spiffe://c/d"]}, "dns=a.b, uri=spiffe://c/d"),
            ({"verify_certificate_hash": ["AB:" * 31 + "AB"]}, f"sha256={'ab' * 32}"),
            ({"verify_certificate_spki": [SPKI]}, f"spki={'cd' * 32}"),
            ({}, ""),
            ({"match_subject_alt_names": []}, ""),
        ],
    )
    def test_matcher_is_said_in_our_words(self, values: dict[str, Any], text: str) -> None:
        """What both languages can say is carried over, in canonical form."""
        assert allow(values) == text
        assert str(matchers.compile(text)) == text

    @pytest.mark.parametrize(
        "values",
        [
            typed("DNS", prefix="web."),
            typed("DNS", contains="web"),
            typed("DNS", safe_regex={"regex": ".*"}),
            typed("DNS", exact="not a name"),
            typed("DNS", custom={}),
            typed("DNS"),
            typed("URI", prefix="spiffe://prod"),
            typed("URI", suffix="/web"),
            typed("URI", exact="spiffe://prod/a", ignore_case=True),
            typed("EMAIL", suffix="example.org"),
            typed("EMAIL", prefix="ops"),
            typed("IP_ADDRESS", prefix="10."),
            typed("OTHER_NAME", exact="x"),
            {"match_typed_subject_alt_names": [{"matcher": {"exact": "a"}}]},
            {"match_typed_subject_alt_names": [{"san_type": "DNS"}]},
            {"match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": "a"}, "oid": "1.2"}]},
            untyped(prefix="web"),
            {"verify_certificate_hash": ["ab"]},
            {"verify_certificate_spki": ["%"]},
        ],
    )
    def test_matcher_that_cannot_be_said_is_refused(self, values: dict[str, Any]) -> None:
        """Whoever it keeps out must not come in because it was left out."""
        assert is_refused(values)

    @pytest.mark.parametrize(
        ("suffix", "name", "is_let_in"),
        [
            (".a.b", "x.a.b", True),
            (".a.b", "x.y.z.a.b", True),
            (".a.b", "1.x.y.z.a.b", False),
            (".a.b", "a.b", False),
            ("a.b", "a.b", True),
            ("a.b", "xa.b", True),
            ("a.b", "x.ya.b", True),
            (".a.b", "x.a.b.c", False),
        ],
    )
    def test_suffix_lets_in_what_envoy_would(self, suffix: str, name: str, is_let_in: bool) -> None:
        """A suffix of host names is one of text, up to some depth."""
        matcher = matchers.compile(allow(typed("DNS", suffix=suffix)))

        assert matcher.matches(attrs.evolve(NOBODY, dns=(name,))) is is_let_in

    def test_names_and_fingerprints_must_both_fit(self) -> None:
        """Of each kind of condition one must hold, as in Envoy."""
        values = typed("DNS", exact="a.b") | {"verify_certificate_spki": [SPKI], "verify_certificate_hash": ["ab" * 32]}
        matcher = matchers.compile(allow(values))

        assert matcher.matches(attrs.evolve(NOBODY, dns=("a.b",), spki_sha256="cd" * 32))
        assert matcher.matches(attrs.evolve(NOBODY, dns=("a.b",), sha256="ab" * 32))
        assert not matcher.matches(attrs.evolve(NOBODY, dns=("a.b",)))
        assert not matcher.matches(attrs.evolve(NOBODY, sha256="ab" * 32))

    def test_depth_of_a_suffix_is_noted(self) -> None:
        """Less is let in than by Envoy, and the operator is told."""
        node = validation(typed("DNS", suffix=".a.b"))
        client_allow(node, Draft(node.findings))

        assert "up to 3 labels" in node.findings.notes[0]


class TestUpstreamNames:
    def test_whole_names_are_carried_over(self) -> None:
        """Names of hosts and URIs, typed or not."""
        values = typed("DNS", exact="a.b") | {"verify_subject_alt_name": ["spiffe://c/d"]}

        assert upstream_names(validation(values)) == ["a.b", "spiffe://c/d"]

    @pytest.mark.parametrize("values", [typed("DNS", suffix=".a.b"), typed("EMAIL", exact="a@b"), untyped(prefix="a")])
    def test_other_matchers_are_refused(self, values: dict[str, Any]) -> None:
        """Upstreams have whole names here."""
        node = validation(values)

        assert upstream_names(node) == []
        assert len(node.findings.problems) == 1
