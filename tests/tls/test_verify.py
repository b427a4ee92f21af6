"""`tls.verify`: OpenSSL's findings as our own values."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import attrs
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL
from OpenSSL.crypto import FILETYPE_ASN1

from sidecar.policy.identity import identity_of
from sidecar.settings import ClientCertMode, TlsPolicy
from sidecar.tls.context import build_context
from sidecar.tls.trust import ClientTrust
from sidecar.tls.verify import NO_CERTIFICATE, Verification, VerifyReason, reason_of, verification, verify_again
from tests.support.certs import (
    CLIENT,
    DAY,
    NOW,
    Authority,
    Issued,
    authority,
    intermediate,
    other_authority,
    revocation_list,
    rsa_key,
)
from tests.support.handshake import TLS12, TLS13, client_context, connect

both_versions = pytest.mark.parametrize("version", [TLS12, TLS13], ids=["1.2", "1.3"])


TRUST = ClientTrust(ClientCertMode.REQUIRED, (authority().certificate,))


def server_context() -> SSL.Context:
    bundle = authority().issue("localhost").bundle
    return build_context(
        [bundle], ClientTrust(ClientCertMode.REQUIRED, (authority().certificate,)), TlsPolicy.INTERMEDIATE
    )


def never() -> datetime:
    raise AssertionError("the clock must not be asked")


class TestVerifyReason:
    @pytest.mark.parametrize("reason", VerifyReason)
    def test_each_has_a_sentence(self, reason: VerifyReason) -> None:
        """Each reason has a sentence of its own, and a token for metrics."""
        assert "client certificate" in reason.sentence
        assert reason.value == reason.name.lower()
        assert [other for other in VerifyReason if other.sentence == reason.sentence] == [reason]


class TestReasonOf:
    @pytest.mark.parametrize(
        ("code", "reason"),
        [
            (10, VerifyReason.EXPIRED),
            (9, VerifyReason.NOT_YET_VALID),
            (18, VerifyReason.SELF_SIGNED),
            (19, VerifyReason.UNKNOWN_CA),
            (20, VerifyReason.UNKNOWN_CA),
            (21, VerifyReason.UNKNOWN_CA),
            (23, VerifyReason.REVOKED),
            (22, VerifyReason.CHAIN_TOO_LONG),
            (7, VerifyReason.BAD_SIGNATURE),
            (66, VerifyReason.TOO_WEAK),
            (1, VerifyReason.INVALID),
            (79, VerifyReason.INVALID),
            (99_999, VerifyReason.INVALID),
        ],
    )
    def test_number_has_reason(self, code: int, reason: VerifyReason) -> None:
        """Each number of OpenSSL, also one that we do not know, is a reason."""
        assert reason_of(code) is reason


class TestVerification:
    def test_no_certificate_is_no_reason(self) -> None:
        """A client without a certificate has nothing wrong with it; it is not accepted either."""
        found = verification(connect(server_context(), client_context()).server, TRUST)
        assert found == NO_CERTIFICATE
        assert not found.is_accepted

    def test_good_certificate_is_read(self) -> None:
        """An accepted certificate is given as it was shown; a full handshake needs no second look at the clock."""
        identity = authority().issue("ci", purposes=CLIENT)
        found = verification(
            connect(server_context(), client_context(identity=identity)).server, attrs.evolve(TRUST, clock=never)
        )
        assert found == Verification(identity.certificate, None, identity_of(identity.certificate))
        assert found.is_accepted

    def test_weak_key_is_refused(self) -> None:
        """A short RSA key is too weak, though the certificate is in order otherwise."""
        identity = authority().issue("ci", purposes=CLIENT, key=rsa_key(1024))
        client = SSL.Context(SSL.TLS_CLIENT_METHOD)
        client.set_cipher_list(b"DEFAULT:@SECLEVEL=0")
        client.use_certificate(identity.certificate)
        client.use_privatekey(identity.key)
        found = verification(connect(server_context(), client).server, TRUST)
        assert found.reason is VerifyReason.TOO_WEAK

    def test_changed_certificate_is_refused(self, tmp_path: Path) -> None:
        """A certificate with another name in it than the CA signed has a wrong signature."""
        identity = authority().issue("ci", purposes=CLIENT)
        changed = _edited(identity, b"\x0c\x02ci", b"\x0c\x02cj")
        found = verification(connect(server_context(), _client_from_file(identity, changed, tmp_path)).server, TRUST)
        assert found.reason is VerifyReason.BAD_SIGNATURE

    def test_unreadable_certificate_is_invalid(self, tmp_path: Path) -> None:
        """What OpenSSL reads and our parser does not is refused without an exception."""
        identity = authority().issue("ci", purposes=CLIENT)
        changed = _edited(identity, b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x05")  # version 6
        with pytest.raises((ValueError, x509.InvalidVersion)):
            x509.load_der_x509_certificate(changed)
        found = verification(connect(server_context(), _client_from_file(identity, changed, tmp_path)).server, TRUST)
        assert found == Verification(None, VerifyReason.INVALID)

    @pytest.mark.parametrize(
        "name",
        [
            pytest.param(b"\x14\x02\xe9\xe9", id="T61String"),
            pytest.param(b"\x16\x02\xe9\xe9", id="IA5String"),
            pytest.param(b"\x03\x02\x00\x00", id="BIT STRING"),
            pytest.param(b"\x07\x02ci", id="ObjectDescriptor"),
            pytest.param(b"\x30\x02\x05\x00", id="SEQUENCE"),
        ],
    )
    def test_unreadable_subject_is_invalid(self, name: bytes, tmp_path: Path) -> None:
        """A name that OpenSSL takes and our parser does not is refused without an exception, then or later."""
        identity = authority().issue("ci", purposes=CLIENT)
        changed = _edited(identity, b"\x0c\x02ci", name)
        found = verification(connect(server_context(), _client_from_file(identity, changed, tmp_path)).server, TRUST)
        assert found == Verification(None, VerifyReason.INVALID)

    def test_subject_of_a_refused_certificate_is_known(self) -> None:
        """Who was refused is told too."""
        identity = other_authority().issue("mallory", purposes=CLIENT)
        found = verification(connect(server_context(), client_context(identity=identity)).server, TRUST)
        assert found.reason is VerifyReason.UNKNOWN_CA
        assert found.identity is not None
        assert found.identity.subject == "CN=mallory"

    @both_versions
    def test_certificate_expired_since_is_refused_on_resumption(self, version: int) -> None:
        """Resuming does not carry a certificate past its last day."""
        identity = authority().issue("ci", purposes=CLIENT, not_after=NOW + DAY)
        context, client = server_context(), client_context(version=version, identity=identity)
        server = connect(context, client, session=connect(context, client).session()).server
        assert verification(server, attrs.evolve(TRUST, clock=lambda: NOW)).reason is None
        expired = verification(server, attrs.evolve(TRUST, clock=lambda: NOW + 2 * DAY))
        assert expired == Verification(identity.certificate, VerifyReason.EXPIRED, identity_of(identity.certificate))

    @both_versions
    def test_intermediate_expired_since_is_refused_on_resumption(self, version: int) -> None:
        """A session has no chain any more; when its first certificate ends is remembered."""
        issuer = _brief_authority()
        identity = issuer.issue("via", purposes=CLIENT, not_after=NOW + 9 * DAY)
        context, client = server_context(), client_context(version=version, identity=identity)
        assert verification(connect(context, client).server, TRUST).is_accepted
        server = connect(context, client, session=connect(context, client).session()).server
        assert verification(server, attrs.evolve(TRUST, clock=lambda: NOW)).reason is None
        later = attrs.evolve(TRUST, clock=lambda: NOW + 3 * DAY)
        assert verification(server, later).reason is VerifyReason.EXPIRED


class TestVerifyAgain:
    """An established connection, judged by what holds now."""

    GOOD = authority().issue("ci", purposes=CLIENT, not_after=NOW + DAY)
    VIA = intermediate().issue("via", purposes=CLIENT)

    def again(self, trust: ClientTrust, identity: Issued = GOOD) -> VerifyReason | None:
        server = connect(server_context(), client_context(identity=identity)).server
        earlier = verification(server, TRUST)
        assert earlier.is_accepted
        later = verify_again(server, earlier, trust)
        assert (later.certificate, later.identity) == (earlier.certificate, earlier.identity)
        return later.reason

    def crl(self, *revoked: Issued, next_update: datetime = NOW + DAY) -> ClientTrust:
        certificates = [issued.certificate for issued in revoked]
        crl = revocation_list(authority(), *certificates, last_update=NOW - 9 * DAY, next_update=next_update)
        return attrs.evolve(TRUST, crls=(crl,))

    @pytest.mark.parametrize("identity", [GOOD, VIA], ids=["direct", "via an intermediate"])
    def test_same_trust_is_the_same_verdict(self, identity: Issued) -> None:
        """Nothing has changed; the intermediates that the client showed count."""
        assert self.again(TRUST, identity) is None

    def test_what_was_refused_stays_refused(self) -> None:
        """Here neither the purpose nor how the chain was shown is looked at again: a new handshake is."""
        for identity, why in (
            (authority().issue("server"), VerifyReason.WRONG_PURPOSE),
            (other_authority().issue("x", purposes=CLIENT), VerifyReason.UNKNOWN_CA),
        ):
            server = connect(server_context(), client_context(identity=identity)).server
            earlier = verification(server, TRUST)
            assert earlier.reason is why
            trust = attrs.evolve(TRUST, anchors=(authority().certificate, other_authority().certificate))
            assert verify_again(server, earlier, trust) is earlier

    def test_expired_certificate_is_found_out(self) -> None:
        """The clock went on."""
        assert self.again(attrs.evolve(TRUST, clock=lambda: NOW + 2 * DAY)) is VerifyReason.EXPIRED

    def test_ca_that_is_gone_is_found_out(self) -> None:
        """Trust that no longer holds."""
        assert self.again(attrs.evolve(TRUST, anchors=(other_authority().certificate,))) is VerifyReason.UNKNOWN_CA

    def test_revocation_is_found_out(self) -> None:
        """A new list speaks of it, or there is none any more that does."""
        assert self.again(self.crl()) is None
        assert self.again(self.crl(self.GOOD)) is VerifyReason.REVOKED
        assert self.again(self.crl(), self.VIA) is VerifyReason.NO_CRL

    def test_overdue_list_is_tolerated_as_in_handshakes(self) -> None:
        """It still says who is revoked; after a day more it says nothing."""
        late = NOW - timedelta(hours=1)
        assert self.again(self.crl(next_update=late)) is None
        assert self.again(self.crl(self.GOOD, next_update=late)) is VerifyReason.REVOKED
        assert self.again(self.crl(next_update=NOW - 2 * DAY)) is VerifyReason.CRL_OVERDUE

    def test_client_without_a_certificate_stays_one(self) -> None:
        """There is nothing to look at, and nothing is where nobody is asked any more."""
        server = connect(server_context(), client_context()).server
        assert verify_again(server, NO_CERTIFICATE, TRUST) is NO_CERTIFICATE
        server = connect(server_context(), client_context(identity=self.GOOD)).server
        earlier = verification(server, TRUST)
        assert verify_again(server, earlier, ClientTrust()) is earlier


def _brief_authority() -> Authority:
    """An intermediate that ends in two days."""
    return authority().delegate("Brief CA", not_after=NOW + 2 * DAY)


def _edited(identity: Issued, old: bytes, new: bytes) -> bytes:
    der = identity.certificate.public_bytes(Encoding.DER)
    assert der.count(old) == 1
    assert len(old) == len(new)
    return der.replace(old, new)


def _client_from_file(identity: Issued, der: bytes, directory: Path) -> SSL.Context:
    """Make a client of a certificate that `cryptography` would not load or sign."""
    (directory / "c.der").write_bytes(der)
    client = client_context()
    client.use_certificate_file(directory / "c.der", FILETYPE_ASN1)
    client.use_privatekey(identity.key)
    return client
