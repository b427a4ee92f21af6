"""`certs.chains`: what is wrong with a certificate and with those beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sidecar.certs.chains import examine_chain
from sidecar.certs.report import Level, Report
from tests.support.certs import (
    CLIENT,
    DAY,
    NOW,
    SERVER,
    Authority,
    Issued,
    authority,
    ecdsa_key,
    intermediate,
    key_usage,
    make_root,
    other_authority,
    rsa_key,
    self_signed,
)


def chain(*certificates: x509.Certificate, anchors: Sequence[x509.Certificate] | None = None) -> Report:
    return examine_chain(certificates, "f", NOW, anchors)


def problems(report: Report) -> list[str]:
    return [finding.text for finding in report.findings if finding.level is Level.PROBLEM]


def notes(report: Report) -> list[str]:
    return [finding.text for finding in report.findings if finding.level is Level.NOTE]


class TestExamineChain:
    def test_facts_are_those_people_ask_for(self) -> None:
        """Names, issuer, end, key and fingerprint of the leaf are there."""
        leaf = authority().issue("a.example", "10.0.0.1").certificate
        facts = dict(chain(leaf).facts)
        assert facts["names"] == "DNS:a.example, IP:10.0.0.1"
        assert facts["issuer"] == "CN=Test Root CA"
        assert facts["valid"].endswith("(90 days left)")
        assert facts["key"] == "ECDSA P-256"
        assert facts["SHA-256"] == leaf.fingerprint(hashes.SHA256()).hex()
        assert facts["purposes"] == "server"

    def test_good_chain_has_no_findings(self) -> None:
        """A leaf, its intermediate, and a root that is known."""
        leaf = intermediate().issue("a")
        report = chain(leaf.certificate, *leaf.chain, anchors=[authority().certificate])
        assert report.findings == ()
        assert ("chain 1", "CN=a is signed by CN=Test Intermediate CA") in report.facts

    @pytest.mark.parametrize(
        ("make", "problem"),
        [
            pytest.param(
                lambda: authority().issue("a", not_before=NOW - 9 * DAY, not_after=NOW - DAY),
                "it expired on",
                id="expired",
            ),
            pytest.param(lambda: authority().issue("a", not_before=NOW + DAY), "it is not valid before", id="not-yet"),
            pytest.param(lambda: authority().issue("a", key=rsa_key(1024)), "1024 bits", id="weak-rsa"),
            pytest.param(lambda: authority().issue("a", key=ecdsa_key(ec.SECP224R1())), "secp224r1", id="weak-curve"),
            pytest.param(lambda: authority().issue("a", usage=key_usage("crl_sign")), "digitalSignature", id="usage"),
            pytest.param(
                lambda: authority().issue("a", purposes=[ExtendedKeyUsageOID.CODE_SIGNING]), "TLS peers", id="purpose"
            ),
            pytest.param(lambda: _without_names(), "no alternative names", id="no-san"),
        ],
    )
    def test_bad_leaf_is_a_problem(self, make: Callable[[], Issued], problem: str) -> None:
        """Each thing that peers refuse is named, once and alone."""
        [found] = problems(chain(make().certificate, anchors=[authority().certificate]))
        assert problem in found

    def test_sha1_signature_is_a_problem(self) -> None:
        """Old CAs still sign like that, and peers refuse it in each handshake."""
        leaf = Authority(make_root("Old").certificate, rsa_key()).issue("a").certificate
        sha256, sha1 = bytes.fromhex("2a864886f70d01010b"), bytes.fromhex("2a864886f70d010105")
        weak = x509.load_der_x509_certificate(leaf.public_bytes(Encoding.DER).replace(sha256, sha1))
        assert problems(chain(weak)) == ["it is signed with SHA-1, which peers refuse"]

    def test_client_needs_no_alternative_name(self) -> None:
        """Clients are known by their common name as well."""
        made = _without_names(CLIENT).certificate
        assert chain(made, anchors=[authority().certificate]).findings == ()

    @pytest.mark.parametrize(("days", "count"), [(14, 0), (13, 1)])
    def test_near_end_is_a_note(self, days: int, count: int) -> None:
        """Two weeks are the time to renew it in."""
        leaf = authority().issue("a", not_after=NOW + days * DAY).certificate
        report = chain(leaf, anchors=[authority().certificate])
        assert len(notes(report)) == count
        assert problems(report) == []

    @pytest.mark.parametrize(("days", "count"), [(398, 0), (399, 1)])
    def test_long_validity_is_a_note(self, days: int, count: int) -> None:
        """A private CA may, a public one may not."""
        leaf = authority().issue("a", not_before=NOW, not_after=NOW + days * DAY).certificate
        assert len(notes(chain(leaf, anchors=[authority().certificate]))) == count

    def test_wrong_order_says_the_right_one(self) -> None:
        """The most common mistake: the intermediates are there, upside down."""
        low = intermediate().delegate("Low CA")
        leaf = low.issue("a").certificate
        [problem] = problems(
            chain(leaf, intermediate().certificate, low.certificate, anchors=[authority().certificate])
        )
        assert problem == "wrong order: certificate 1 is signed by certificate 3, which must come next"

    def test_missing_intermediate_is_named(self) -> None:
        """Whether it is missing inside or at the end, the issuer's name is what to look for."""
        low = intermediate().delegate("Low CA")
        leaf = low.issue("a").certificate
        inside = chain(leaf, intermediate().certificate)
        assert problems(inside) == ["the chain is incomplete: CN=Low CA, which signed certificate 1, is missing"]
        [problem] = problems(chain(leaf, anchors=[authority().certificate]))
        assert "the issuer CN=Low CA is not among them, or an intermediate is missing" in problem
        [note] = notes(chain(leaf))
        assert "peers must know the issuer, CN=Low CA" in note

    def test_issuer_with_the_name_but_another_key_is_told_apart(self) -> None:
        """A CA that was made anew under its old name is the trap of renewals."""
        leaf = make_root("Twin").issue("a").certificate
        [problem] = problems(chain(leaf, make_root("Twin").certificate))
        assert problem == "certificate 2 has the name of the issuer of 1 but did not sign it"

    def test_unknown_root_is_a_problem(self) -> None:
        """The chain is whole but leads elsewhere."""
        leaf = other_authority().issue("a").certificate
        report = chain(leaf, other_authority().certificate, anchors=[authority().certificate])
        assert problems(report) == [
            "the chain does not lead to a CA that is trusted: CN=Other Root CA is not among them"
        ]

    def test_expired_or_weak_ca_in_the_chain_is_a_problem(self) -> None:
        """A good leaf under a bad CA does not verify."""
        old = make_root("Old", NOW - 9 * DAY, NOW - DAY)
        [problem] = problems(chain(old.issue("a").certificate, old.certificate))
        assert problem.startswith("certificate 2 of the chain, CN=Old, is valid ")

    def test_leaf_as_issuer_is_a_problem(self) -> None:
        """Whoever signs with a server certificate gets no trust for it."""
        middle = self_signed("mid")
        forged = Authority(middle.certificate, middle.key).issue("a").certificate
        assert problems(chain(forged, middle.certificate)) == [
            "certificate 2 of the chain, CN=mid, is no CA certificate"
        ]

    def test_root_and_strangers_in_the_chain_are_notes(self) -> None:
        """They cost bytes and nothing else."""
        leaf = authority().issue("a").certificate
        assert "the root is in the chain" in notes(chain(leaf, authority().certificate))[0]
        [note] = notes(chain(leaf, other_authority().certificate, anchors=[authority().certificate]))
        assert note == "certificate 2, CN=Other Root CA, does not belong to the chain"

    def test_self_signed_server_is_a_note(self) -> None:
        """It works for whoever has been given it."""
        assert "it is self-signed" in notes(chain(self_signed("a", purposes=SERVER).certificate))[0]

    def test_bundle_of_cas_is_no_chain(self) -> None:
        """Anchors need not sign each other."""
        report = chain(authority().certificate, other_authority().certificate)
        assert report.findings == ()
        assert report.facts[-1] == ("also", "CN=Other Root CA (365 days left)")

    def test_thousands_of_names_are_cut(self) -> None:
        """A hostile server cannot flood the terminal."""
        leaf = authority().issue(*(f"n{number}.example" for number in range(1_000))).certificate
        assert dict(chain(leaf).facts)["names"].endswith("DNS:n19.example, and 980 more")


def _without_names(purposes: Sequence[x509.ObjectIdentifier] = SERVER) -> Issued:
    key = ecdsa_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(authority().certificate.subject)
    builder = builder.public_key(key.public_key()).serial_number(1)
    builder = builder.not_valid_before(NOW - DAY).not_valid_after(NOW + 90 * DAY)
    builder = builder.add_extension(x509.ExtendedKeyUsage(list(purposes)), critical=False)
    return Issued(builder.sign(authority().key, hashes.SHA256()), key)
