"""
Beside Envoy: a bootstrap file, imported, does what it does there, and every difference has its reason here.

Both run the same files, with other ports of their own, before the same apps; see `envoy_pair`.
"""

from __future__ import annotations

import fnmatch
import os
import ssl
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

import attrs
import pytest

from tests.conformance import proxies
from tests.conformance.envoy_pair import FOLDER, Ask, Facts, Proxy, facts_of, pair, surroundings

VERSION: Final = "1.40.0"
"""Of the Envoy that the tables are about."""


def routing(target: str, *fields: str, host: str = "shop.example.org", method: str = "GET") -> Ask:
    return Ask(target=target, fields=fields, host=host, method=method)


def secure(identity: str = "", *, version: ssl.TLSVersion | None = None, waits: bool = False) -> Ask:
    return Ask(listener="secure", identity=identity, version=version, waits=waits)


def refused(identity: str = "", *, version: ssl.TLSVersion | None = None) -> Ask:
    return secure(identity, version=version, waits=True)


def redirected(target: str, host: str = "shop.example.org") -> Ask:
    return Ask(listener="secure", target=target, host=host)


TLS_1_2: Final = ssl.TLSVersion.TLSv1_2
FORGED: Final = ("X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: https", "X-Forwarded-Client-Cert: Hash=1")

CASES: Final[Mapping[str, tuple[str, Ask]]] = {
    "routing/exact": ("a", routing("/exact")),
    "routing/exact-with-query": ("a", routing("/exact?x=/static")),
    "routing/exact-and-more": ("c", routing("/exactly")),
    "routing/exact-and-slash": ("c", routing("/exact/")),
    "routing/exact-in-capitals": ("c", routing("/Exact")),
    "routing/encoded": ("c", routing("/ex%61ct")),
    "routing/dot-segment": ("b", routing("/static/../exact")),
    "routing/slashes": ("c", routing("//exact")),
    "routing/encoded-slash": ("c", routing("/below%2f..%2fexact")),
    "routing/separated": ("b", routing("/below")),
    "routing/separated-below": ("b", routing("/below/x")),
    "routing/separated-query": ("b", routing("/below?x")),
    "routing/separated-not": ("c", routing("/belowground")),
    "routing/regex": ("a", routing("/item/42?x=y")),
    "routing/regex-more": ("c", routing("/item/42/x")),
    "routing/regex-before": ("c", routing("/x/item/42")),
    "routing/regex-alternative": ("a", routing("/two")),
    "routing/regex-alternative-and-more": ("c", routing("/ones")),
    "routing/prefix-encoded": ("a", routing("/with%20blank/x")),
    "routing/prefix-encoded-not": ("c", routing("/with%20/x")),
    "routing/prefix": ("b", routing("/static/x.css")),
    "routing/prefix-in-segment": ("b", routing("/statics")),
    "routing/method-post": ("a", routing("/methods", "Content-Length: 0", method="POST")),
    "routing/method-get": ("b", routing("/methods")),
    "routing/method-head": ("b", routing("/methods", method="HEAD")),
    "routing/method-other": ("c", routing("/methods", method="DELETE")),
    "routing/field-exact": ("a", routing("/fields/exact", "X-Version: 2")),
    "routing/field-exact-name-in-lower-case": ("a", routing("/fields/exact", "x-version: 2")),
    "routing/field-exact-not": ("c", routing("/fields/exact", "X-Version: 20")),
    "routing/field-exact-none": ("c", routing("/fields/exact")),
    "routing/field-exact-twice": ("a", routing("/fields/exact", "X-Version: 2", "X-Version: 3")),
    "routing/field-prefix": ("a", routing("/fields/prefix", "X-Version: 2.1")),
    "routing/field-prefix-not": ("c", routing("/fields/prefix", "X-Version: 12.1")),
    "routing/field-suffix": ("a", routing("/fields/suffix", "X-Version: 2-beta")),
    "routing/field-suffix-not": ("c", routing("/fields/suffix", "X-Version: 2-beta2")),
    "routing/field-contains": ("a", routing("/fields/contains", "X-Version: 2-beta2")),
    "routing/field-contains-other-case": ("c", routing("/fields/contains", "X-Version: 2-Beta2")),
    "routing/field-regex": ("a", routing("/fields/regex", "X-Version: 17")),
    "routing/field-regex-not-whole": ("c", routing("/fields/regex", "X-Version: 17b")),
    "routing/field-present": ("a", routing("/fields/present", "X-Version: x")),
    "routing/field-present-empty": ("a", routing("/fields/present", "X-Version:")),
    "routing/field-present-not": ("c", routing("/fields/present")),
    "routing/field-absent": ("a", routing("/fields/absent")),
    "routing/field-absent-not": ("c", routing("/fields/absent", "X-Version: x")),
    "routing/field-other": ("a", routing("/fields/other", "X-Version: 3")),
    "routing/field-other-not": ("c", routing("/fields/other", "X-Version: 2")),
    "routing/field-other-none": ("c", routing("/fields/other")),
    "routing/field-either": ("a", routing("/fields/either", "X-Version: 3")),
    "routing/field-either-not": ("c", routing("/fields/either", "X-Version: 2")),
    "routing/field-either-none": ("a", routing("/fields/either")),
    "routing/fields-both": ("a", routing("/fields/both", "X-Version: 2", "X-Tenant: blue-1")),
    "routing/fields-one-of-both": ("c", routing("/fields/both", "X-Version: 2")),
    "routing/host-in-capitals": ("a", routing("/exact", host="SHOP.Example.org")),
    "routing/host-with-port": ("404", routing("/exact", host="shop.example.org:8080")),
    "routing/host-with-dot": ("404", routing("/exact", host="shop.example.org.")),
    "routing/host-below": ("a", routing("/exact", host="www.shop.example.org")),
    "routing/host-far-below": ("a", routing("/exact", host="a.b.shop.example.org")),
    "routing/host-longest-suffix": ("b", routing("/exact", host="a.deep.shop.example.org")),
    "routing/host-suffix-itself": ("a", routing("/exact", host="deep.shop.example.org")),
    "routing/host-prefix": ("200", routing("/", host="market.example.net")),
    "routing/host-prefix-alone": ("404", routing("/", host="market")),
    "routing/host-unknown": ("404", routing("/", host="example.org")),
    "routing/host-ported": ("a", routing("/", host="ported.example.org:8080")),
    "routing/host-ported-otherwise": ("404", routing("/", host="ported.example.org:8081")),
    "redirects/direct": ("200", routing("/healthz", host="answers.example.org")),
    "redirects/direct-head": ("200", routing("/healthz", host="answers.example.org", method="HEAD")),
    "redirects/direct-empty": ("410", routing("/gone", host="answers.example.org")),
    "redirects/direct-json": ("418", routing("/teapot/x", host="answers.example.org")),
    "redirects/direct-not": ("404", routing("/", host="answers.example.org")),
    "redirects/direct-without-content": ("204", routing("/nothing", host="answers.example.org")),
    "redirects/https": ("301", routing("/a/b?c=d")),
    "redirects/https-post": ("301", routing("/", "Content-Length: 0", method="POST")),
    "redirects/https-port": ("301", routing("/", host="shop.example.org:8080")),
    "redirects/https-port-80": ("301", routing("/", host="shop.example.org:80")),
    "redirects/https-encoded": ("301", routing("/a%2fb/%C3%BC?c=%20")),
    "redirects/host": ("301", redirected("/host/x?y=z")),
    "redirects/host-port": ("301", redirected("/host/x", host="shop.example.org:8443")),
    "redirects/host-and-port": ("301", redirected("/host-and-port/x")),
    "redirects/port": ("301", redirected("/port/x")),
    "redirects/port-for-another": ("301", redirected("/port/x", host="shop.example.org:1")),
    "redirects/own-port": ("301", redirected("/own-port/x", host="shop.example.org:1")),
    "redirects/plain": ("301", redirected("/plain/x")),
    "redirects/path": ("301", redirected("/path/x?y=z")),
    "redirects/path-and-query": ("301", redirected("/path-and-query/x?y=z")),
    "redirects/prefix": ("301", redirected("/prefix/x?y=z")),
    "redirects/stripped": ("302", redirected("/stripped/x?y=z")),
    "redirects/separated": ("301", redirected("/moved?y=z")),
    "redirects/separated-below": ("301", redirected("/moved/x?y=z")),
    "redirects/host-with-port": ("301", redirected("/host-with-port/x")),
    "redirects/host-with-two-ports": ("301", redirected("/host-with-two-ports/x")),
    "redirects/https-443": ("301", redirected("/https-443/x")),
    "redirects/query-stripped": ("301", redirected("/query-stripped/x?y=z")),
    "redirects/302": ("302", redirected("/302/")),
    "redirects/303": ("303", redirected("/303/")),
    "redirects/307": ("307", redirected("/307/")),
    "redirects/308": ("308", redirected("/308/")),
    "rewriting/prefix": ("a", routing("/api/x?y=z")),
    "rewriting/prefix-alone": ("a", routing("/api/")),
    "rewriting/prefix-with-slash": ("a", routing("/slash/x")),
    "rewriting/prefix-in-segment": ("a", routing("/older/x")),
    "rewriting/path": ("a", routing("/one?y=z")),
    "rewriting/separated": ("a", routing("/part?y=z")),
    "rewriting/separated-below": ("a", routing("/part/x")),
    "rewriting/encoded": ("a", routing("/api/%C3%BC%20x")),
    "rewriting/host": ("b", routing("/internal/x")),
    "rewriting/both": ("b", routing("/both/x", host="shop.example.org:8080")),
    "rewriting/nothing": ("c", routing("/x//y/%7Ez")),
    "rewriting/forged": ("c", routing("/", *FORGED)),
    "rewriting/traced": ("c", routing("/", f"traceparent: 00-{'1' * 32}-{'2' * 16}-01", "X-Request-Id: mine")),
    "rewriting/hop-by-hop": ("c", routing("/", "Connection: X-Mine", "X-Mine: 1", "Keep-Alive: timeout=5")),
    "rewriting/forged-in-tls": ("c", Ask(listener="secure", fields=FORGED)),
    "rewriting/tls": ("c", Ask(listener="secure", fields=("X_Under: 1", "Cookie: a=b"))),
    "mutual_tls/none": ("alert certificate_required", refused()),
    "mutual_tls/none-tls-1.2": ("alert handshake_failure", refused(version=TLS_1_2)),
    "mutual_tls/stolen": ("alert unknown_ca", refused("stolen")),
    "mutual_tls/stolen-tls-1.2": ("alert unknown_ca", refused("stolen", version=TLS_1_2)),
    "mutual_tls/stranger": ("alert certificate_unknown", refused("stranger")),
    "mutual_tls/revoked": ("alert certificate_revoked", refused("revoked")),
    "mutual_tls/for-servers": ("alert unsupported_certificate", refused("for-servers")),
    "mutual_tls/prefix": ("a", secure("shop")),
    "mutual_tls/prefix-tls-1.2": ("a", secure("shop", version=TLS_1_2)),
    "mutual_tls/prefix-alone": ("a", secure("shop-deeper")),
    "mutual_tls/prefix-in-segment": ("alert certificate_unknown", refused("shopping")),
    "mutual_tls/exact-uri": ("a", secure("pay")),
    "mutual_tls/exact-uri-and-more": ("alert certificate_unknown", refused("pay-other")),
    "mutual_tls/exact-dns": ("a", secure("ci")),
    "mutual_tls/suffix": ("a", secure("ops")),
    "mutual_tls/suffix-deep": ("a", secure("ops-deep")),
    "mutual_tls/suffix-itself": ("alert certificate_unknown", refused("ops-itself")),
    "optional_tls/none": ("a", Ask(listener="secure", fields=FORGED)),
    "optional_tls/good": ("a", secure("stranger")),
    "optional_tls/stolen": ("alert unknown_ca", refused("stolen")),
    "optional_tls/tls-1.2": ("alert protocol_version", refused(version=TLS_1_2)),
    "certain_names/none": ("alert certificate_required", refused()),
    "certain_names/none-tls-1.2": ("alert handshake_failure", refused(version=TLS_1_2)),
    "certain_names/right": ("a", secure("ci")),
    "certain_names/stranger": ("alert certificate_unknown", refused("stranger")),
    "pinned/certificate": ("a", secure("ci")),
    "pinned/key-with-other-name": ("alert certificate_unknown", refused("shop")),
    "pinned/name-with-other-key": ("alert tlsv1_bad_certificate_hash_value", refused("revoked")),
    "pinned/none": ("alert certificate_required", refused()),
    "upstream_tls/good": ("secure", Ask(target="/good")),
    "upstream_tls/known": ("secure", Ask(target="/known")),
    "upstream_tls/unasked": ("secure", Ask(target="/unasked")),
    "upstream_tls/other-name": ("503", Ask(target="/other-name")),
    "upstream_tls/other-ca": ("503", Ask(target="/other-ca")),
    "upstream_tls/unverified": ("secure", Ask(target="/unverified")),
    "tcp_proxy/plain": ("a", Ask(target="/x//y", fields=FORGED)),
    "tcp_proxy/secure": ("b", Ask(target="/x", listener="secure")),
    "tcp_proxy/told": ("c", Ask(target="/x", listener="told")),
    "tcp_proxy/nobody": ("closed", Ask(listener="nobody")),
    "tcp_mutual/right": ("a", secure("ci")),
    "tcp_mutual/none": ("alert certificate_required", refused()),
    "tcp_mutual/stolen": ("alert unknown_ca", refused("stolen")),
    "tcp_mutual/revoked": ("alert certificate_revoked", refused("revoked")),
    "tcp_mutual/stranger": ("alert certificate_unknown", refused("stranger")),
    "proxy_protocol/v1": ("a", Ask(preface="v1")),
    "proxy_protocol/v2": ("a", Ask(preface="v2")),
    "proxy_protocol/v2-before-tls": ("a", Ask(preface="v2", listener="secure")),
    "proxy_protocol/unknown": ("a", Ask(preface="v1-unknown")),
    "proxy_protocol/broken": ("closed", Ask(preface="v1-broken")),
    "proxy_protocol/none": ("closed", Ask()),
    "proxy_protocol/maybe": ("a", Ask(preface="v1", listener="maybe")),
    "proxy_protocol/maybe-none": ("a", Ask(listener="maybe")),
    "server_names/red": ("a", Ask(listener="secure", server_name="red.example.org", host="red.example.org")),
    "server_names/blue": ("b", Ask(listener="secure", server_name="blue.example.org", host="blue.example.org")),
    "server_names/unknown": ("closed", Ask(listener="secure", server_name="green.example.org", host="red.example.org")),
    "server_names/none": ("closed", Ask(listener="secure", server_name=None, host="red.example.org")),
    "server_names/crossed": ("b", Ask(listener="secure", server_name="red.example.org", host="blue.example.org")),
    "failures/nobody": ("503", routing("/nobody")),
    "failures/silent": ("504", routing("/silent")),
    "failures/large-head": ("431", routing("/", f"X-Large: {'x' * 9000}")),
    "failures/many-fields": ("431", routing("/", *(f"X-{index}: 1" for index in range(30)))),
    "failures/underscore": ("400", routing("/", "X_Under: 1")),
    "failures/dot-segment": ("503", routing("/x/../nobody")),
    "failures/slashes": ("503", routing("//nobody")),
    "failures/encoded-slash": ("400", routing("/x%2fnobody")),
    "failures/encoded": ("503", routing("/nob%6Fdy")),
}


# -- differences -------------------------------------------------------------------------------------------------

SOMETHING: Final = "?*"
NOTHING: Final = ""


@attrs.frozen
class Difference:
    """
    What we do otherwise, for a reason.

    Attributes:
        ids: Patterns of cases; each is needed.
        fact: Pattern of names of facts.
        envoy, ours: Patterns of its values; `NOTHING`: it is not there.
        reason: Why.
    """

    ids: tuple[str, ...]
    fact: str
    envoy: str
    ours: str
    reason: str

    def explains(self, pattern: str, id_: str, fact: str, envoy: str, ours: str) -> bool:
        """Whether one pattern of ids is about this difference."""
        pairs = ((id_, pattern), (fact, self.fact), (envoy, self.envoy), (ours, self.ours))
        return all(fnmatch.fnmatchcase(text, wanted) for text, wanted in pairs)


EVERYWHERE: Final = ("*",)

DIFFERENCES: Final = (
    # What Envoy adds to what it passes on, and we.
    Difference(EVERYWHERE, "field date", "a date", NOTHING, "what the app says is passed on, with or without Date"),
    Difference(EVERYWHERE, "field server", "envoy", NOTHING, "the Server field is the app's"),
    Difference(EVERYWHERE, "field x-envoy-upstream-service-time", "a time", NOTHING, "times are in log and metrics"),
    Difference(EVERYWHERE, "told x-envoy-expected-rq-timeout-ms", SOMETHING, NOTHING, "no app is told of timeouts"),
    Difference(
        EVERYWHERE, "told x-envoy-external-address", SOMETHING, NOTHING, "whom to believe is up to X-Forwarded-For"
    ),
    Difference(("rewriting/*",), "told x-envoy-original-path", SOMETHING, NOTHING, "no app has needed it so far"),
    Difference(("rewriting/*",), "told x-envoy-original-host", SOMETHING, NOTHING, "X-Forwarded-Host says it"),
    Difference(EVERYWHERE, "told x-forwarded-host", NOTHING, SOMETHING, "apps make URLs of it where Host is rewritten"),
    Difference(EVERYWHERE, "told x-forwarded-port", NOTHING, SOMETHING, "apps make URLs of it"),
    Difference(EVERYWHERE, "told traceparent", NOTHING, "an id", "traces begin here if nobody has begun them"),
    Difference(("routing/method-head",), "field transfer-encoding", "chunked", NOTHING, "HEAD has no body to frame"),
    Difference(
        ("*",), "told x-forwarded-for", NOTHING, "HERE", "apps learn the client also without use_remote_address"
    ),
    # Whom we believe.
    Difference(
        ("optional_tls/none", "rewriting/forged-in-tls"),
        "told x-forwarded-for",
        "192.0.2.1*",
        "HERE",
        "clients cannot say who they are, unless they are in trusted_proxies",
    ),
    Difference(
        ("rewriting/forged",), "told x-forwarded-for", "192.0.2.1,HERE", "192.0.2.1, HERE", "the same, with a blank"
    ),
    Difference(
        ("rewriting/forged",),
        "told x-forwarded-proto",
        "http",
        "https",
        "who connects without TLS on loopback is the app beside us, or a proxy there, and is believed",
    ),
    # Answers of the proxy itself.
    Difference(EVERYWHERE, "body", "*", SOMETHING, "answers from here say what is wrong, or where to go"),
    Difference(EVERYWHERE, "field content-type", "*", "text/plain; charset=utf-8", "because of that text"),
    Difference(EVERYWHERE, "field cache-control", NOTHING, "no-store", "an error from here is not kept by caches"),
    Difference(EVERYWHERE, "field connection", NOTHING, "close", "a client that was refused begins anew"),
    Difference(("failures/*",), "field retry-after", NOTHING, "1", "an app that has not started yet soon will"),
    Difference(
        ("upstream_tls/other-name", "upstream_tls/other-ca"),
        "end",
        "503",
        "502",
        "an app that is there and not the right one is no matter of trying again",
    ),
    Difference(
        ("upstream_tls/unasked",),
        "server name",
        "none",
        "app.internal",
        "without sni, the name that the certificate must have is asked for",
    ),
    # Hosts.
    Difference(
        ("routing/host-with-port", "routing/host-ported-otherwise"),
        "end",
        "404",
        "a",
        "a host is the same with any port, which a balancer may have changed; the import says so",
    ),
    Difference(("routing/host-with-dot",), "end", "404", "a", "a name with a dot at its end is the same name"),
    # Paths.
    Difference(
        ("routing/encoded",), "end", "c", "a", "paths are compared decoded: another spelling is no way round a route"
    ),
    Difference(
        ("routing/dot-segment", "routing/slashes"),
        "end",
        "[bc]",
        "400",
        "the app may resolve them, and then another route was meant",
    ),
    Difference(
        ("routing/encoded-slash",), "end", "c", "400", "programs differ in what an encoded slash is, so none decides"
    ),
    Difference(("redirects/https-encoded",), "end", "301", "400", "the same, with routes that are answered here"),
    Difference(
        ("rewriting/prefix-with-slash",), "target", "//x", "/x", "two slashes at the seam are nobody's intention"
    ),
    Difference(
        ("routing/field-exact-twice",),
        "end",
        "a",
        "c",
        "lines of one name are one list (RFC 9110 section 5.3): a second line is no way round a route",
    ),
    # Redirects.
    Difference(
        ("redirects/https-port",),
        "field location",
        "https://shop.example.org:8080/",
        "https://shop.example.org/",
        "what listens for http on a port does not speak https there; the import says so",
    ),
    Difference(
        ("redirects/own-port", "redirects/https-443"),
        "field location",
        "https://shop.example.org:443/*",
        "https://shop.example.org/*",
        "443 goes without saying",
    ),
    Difference(
        ("redirects/host-with-two-ports",),
        "field location",
        "https://www.example.org:8443:9443/*",
        "https://www.example.org:9443/*",
        "a URL has one port",
    ),
    # Certificates.
    Difference(
        (
            *("*/stranger", "mutual_tls/prefix-in-segment", "mutual_tls/exact-uri-and-more"),
            *("mutual_tls/suffix-itself", "pinned/key-with-other-name", "pinned/name-with-other-key"),
        ),
        "end",
        "alert *certificate_*",
        "alert bad_certificate",
        "another alert for the same refusal",
    ),
    Difference(
        ("mutual_tls/prefix-alone",), "end", "a", "alert bad_certificate", "a SPIFFE ID does not end with a slash"
    ),
    Difference(
        ("mutual_tls/*", "optional_tls/good"),
        "told Cert of the certificate",
        NOTHING,
        SOMETHING,
        "apps get all that the certificate says, whatever set_current_client_cert_details asks for",
    ),
    Difference(("optional_tls/good",), "told Subject of the certificate", NOTHING, SOMETHING, "as above"),
    Difference(("optional_tls/good",), "told DNS of the certificate", NOTHING, SOMETHING, "as above"),
    Difference(
        ("server_names/unknown", "server_names/none"),
        "end",
        "closed",
        "a",
        "load balancers send no name; whoever asks for another gets the first certificate, and the import says so",
    ),
)


def differences(envoy: Facts, ours: Facts) -> Iterator[tuple[str, str, str]]:
    """Facts that differ, with both values. Where the end does, the rest follows from it."""
    names = ["end"] if envoy["end"] != ours["end"] else sorted({*envoy, *ours})
    for name in names:
        values = envoy.get(name, NOTHING), ours.get(name, NOTHING)
        if values[0] != values[1]:
            yield name, *values


# -- the comparison ----------------------------------------------------------------------------------------------

SHARED: Final = 40
"""Requests among which shares are counted."""


@attrs.frozen
class Results:
    """
    What came of everything that was asked.

    Attributes:
        facts: By case: Envoy's, and ours.
        shares: By path: how often each app has answered, Envoy's first.
    """

    facts: Mapping[str, tuple[Facts, Facts]]
    shares: Mapping[str, tuple[Counter[str], Counter[str]]]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Ask both everything; skipped without an Envoy of the right version."""
    envoy = proxies.find("envoy")
    if envoy is None:
        notice = "envoy is not installed: what is imported is not compared with it"
        assert not os.environ.get("TESTS_REQUIRE_PEERS"), notice
        pytest.skip(notice)
    if envoy.version != VERSION:
        pytest.skip(f"envoy is {envoy.version}, the tables are of {VERSION}")
    facts: dict[str, tuple[Facts, Facts]] = {}
    shares: dict[str, tuple[Counter[str], Counter[str]]] = {}
    directory = tmp_path_factory.mktemp("envoy")
    with surroundings(directory) as around:
        for name in sorted(file.stem for file in FOLDER.glob("*.yaml")):
            with pair(name, envoy.program, around, directory / name) as both:
                for id_, (_, ask) in CASES.items():
                    if id_.startswith(f"{name}/"):
                        facts[id_] = (facts_of(both[0], ask), facts_of(both[1], ask))
                if name == "weights":
                    shares = {path: (counted(both[0], path), counted(both[1], path)) for path in ("/shared", "/even")}
    return Results(facts, shares)


def counted(proxy: Proxy, path: str) -> Counter[str]:
    return Counter(facts_of(proxy, Ask(target=path))["end"] for _ in range(SHARED))


class TestAlike:
    @pytest.mark.parametrize("id_", CASES)
    def test_both_do_the_same_but_for_what_the_table_says(self, results: Results, id_: str) -> None:
        """Envoy does what the case says, and we the same, or else as a row of the table explains."""
        envoy, ours = results.facts[id_]

        assert envoy["end"] == CASES[id_][0]
        assert [
            f"{fact}: {values[0]!r} in Envoy, {values[1]!r} here"
            for fact, *values in differences(envoy, ours)
            if not any(row.explains(pattern, id_, fact, *values) for row in DIFFERENCES for pattern in row.ids)
        ] == []

    @pytest.mark.parametrize(
        ("path", "expected"), [("/shared", {"a": 30, "b": 10}), ("/even", {"a": 10, "b": 10, "c": 20})]
    )
    def test_endpoints_get_the_same_shares(self, results: Results, path: str, expected: dict[str, int]) -> None:
        """Of a round, each endpoint gets what its weight says, or how often it is listed."""
        envoy, ours = results.shares[path]

        assert envoy == expected
        assert ours == expected


class TestDifferences:
    @pytest.mark.parametrize("row", DIFFERENCES, ids=lambda row: f"{row.ids[0]} {row.fact}")
    def test_row_is_true(self, results: Results, row: Difference) -> None:
        """Every pattern of a row explains something that differs; a row that is not true any more fails."""
        found = [
            (id_, *difference) for id_, both in results.facts.items() for difference in differences(both[0], both[1])
        ]

        assert [pattern for pattern in row.ids if not any(row.explains(pattern, *each) for each in found)] == []

    def test_every_file_is_asked_for(self) -> None:
        """A case names a file that there is, and no file goes without."""
        assert {id_.partition("/")[0] for id_ in CASES} | {"weights"} == {file.stem for file in FOLDER.glob("*.yaml")}
