"""`sidecar.doctor.chain`: from a certificate to a CA that clients trust."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID

from sidecar.doctor.chain import chain
from sidecar.doctor.findings import Check, Severity
from sidecar.doctor.material import Own
from tests.doctor.settled import only
from tests.support.certs import (
    DAY,
    NOW,
    Authority,
    Issued,
    authority,
    ecdsa_key,
    intermediate,
    other_authority,
    self_signed,
)

ROOT = authority().certificate


Certificates = tuple[x509.Certificate, ...]


def own(issued: Issued, chain: Certificates | None = None, **others: Certificates) -> Own:
    return Own("/certs", issued.certificate, issued.chain if chain is None else chain, **others)


def public_leaf(issuer: Authority) -> Issued:
    """A leaf that says where its issuer is to be had, as those of public CAs do."""
    key = ecdsa_key()
    access = x509.AccessDescription(
        AuthorityInformationAccessOID.CA_ISSUERS, x509.UniformResourceIdentifier("http://ca.example/ca.cer")
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "public.example")]))
        .issuer_name(issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + DAY)
        .add_extension(x509.AuthorityInformationAccess([access]), critical=False)
        .sign(issuer.key, hashes.SHA256())  # type: ignore[arg-type]  # never Ed25519 here
    )
    return Issued(certificate, key)


class TestChain:
    @pytest.mark.parametrize(
        "issued",
        [
            pytest.param(authority().issue("app.example"), id="below-a-root"),
            pytest.param(intermediate().issue("app.example"), id="with-intermediate"),
        ],
    )
    def test_whole_chain_is_ok(self, issued: Issued) -> None:
        """A private CA is mostly one root, whose leaves need nothing with them."""
        only(chain(own(issued), (), NOW), Severity.OK, Check.CHAIN)

    def test_missing_intermediate_is_a_warning(self) -> None:
        """Of a leaf that says where its issuer is to be had."""
        found = only(chain(own(public_leaf(intermediate())), (), NOW), Severity.WARNING, Check.CHAIN)
        assert "Test Intermediate CA" in found.fact

    def test_issuer_that_peers_have_is_not_missing(self) -> None:
        """The same leaf beside its root, or below a CA of clients, is as it should be."""
        leaf = public_leaf(authority())
        only(chain(own(leaf), (ROOT,), NOW), Severity.OK, Check.CHAIN)
        only(chain(own(leaf, roots=(ROOT,)), (), NOW), Severity.OK, Check.CHAIN)

    def test_issuer_that_is_no_ca_is_an_error(self) -> None:
        """Every client refuses what it has signed."""
        no_ca = authority().issue("not a ca")
        leaf = Authority(no_ca.certificate, no_ca.key).issue("app.example")
        only(chain(own(leaf, chain=(no_ca.certificate,)), (), NOW), Severity.ERROR, Check.CHAIN)

    def test_expired_intermediate_is_a_warning(self) -> None:
        """The leaf is in date, and clients refuse it still."""
        old = authority().delegate("Old CA", not_after=NOW - DAY / 2)
        only(chain(own(old.issue("app.example")), (), NOW), Severity.WARNING, Check.CHAIN)

    def test_root_that_is_sent_is_a_note(self) -> None:
        """It costs bytes and does no harm."""
        found = only(chain(own(authority().issue("a"), chain=(ROOT,)), (), NOW), Severity.NOTE, Check.CHAIN)
        assert "leave it out" in found.fix

    def test_self_signed_certificate_is_a_note(self) -> None:
        """Behind a balancer that verifies nothing it is fine."""
        only(chain(own(self_signed("app.example")), (), NOW), Severity.NOTE, Check.CHAIN)

    def test_certificates_beside_the_chain_are_a_note(self) -> None:
        """They are not sent, whatever they were put there for; many are cut short."""
        extras = (other_authority().certificate,) * 6
        found = only(chain(own(authority().issue("a"), extras=extras), (), NOW), Severity.NOTE, Check.CHAIN)
        assert found.fact.count("Other Root CA") == 5
        assert found.fact.endswith("…")
