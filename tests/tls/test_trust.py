"""`tls.trust`: revocation lists, their dates, and refusals inside the handshake, with real OpenSSL on both sides."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import attrs
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL

from sidecar.settings import ClientCertMode, ClientRefusal, CrlPolicy, CrlScope, TlsPolicy
from sidecar.tls.context import build_context
from sidecar.tls.session import read_session
from sidecar.tls.trust import CRL_GRACE, ClientTrust, trust_of
from sidecar.tls.verify import VerifyReason
from tests.support.certs import CLIENT, DAY, NOW, Authority, Issued, authority, intermediate, other_authority
from tests.support.handshake import TLS12, TLS13, client_context, connect, outgoing

both_versions = pytest.mark.parametrize("version", [TLS12, TLS13], ids=["1.2", "1.3"])

ROOT = authority()
SERVER = ROOT.issue("localhost")
GOOD = ROOT.issue("good", purposes=CLIENT)
BAD = ROOT.issue("bad", purposes=CLIENT)
VIA = intermediate().issue("via", purposes=CLIENT)
REQUIRED, OPTIONAL = ClientCertMode.REQUIRED, ClientCertMode.OPTIONAL
TRUST = ClientTrust(REQUIRED, (ROOT.certificate,))


def crl(
    issuer: Authority = ROOT,
    *revoked: x509.Certificate,
    last_update: datetime = NOW - 10 * DAY,
    next_update: datetime = NOW + DAY,
) -> x509.CertificateRevocationList:
    builder = x509.CertificateRevocationListBuilder(issuer.certificate.subject, last_update, next_update)
    for certificate in revoked:
        entry = x509.RevokedCertificateBuilder(certificate.serial_number, last_update).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(issuer.key, hashes.SHA256())  # type: ignore[arg-type]  # the key of a CA signs


def context(trust: ClientTrust) -> SSL.Context:
    return build_context([SERVER.bundle], trust, TlsPolicy.INTERMEDIATE)


def reason(trust: ClientTrust, identity: Issued, version: int = TLS13) -> VerifyReason | None:
    """What is wrong with the certificate of a client whose handshake went through."""
    server = connect(context(trust), client_context(version=version, identity=identity)).server
    found = read_session(server).verification
    assert found.certificate == identity.certificate
    return found.reason


def with_lists(*crls: x509.CertificateRevocationList, **rules: object) -> ClientTrust:
    return attrs.evolve(TRUST, crls=crls, **rules)


class TestRevocation:
    @both_versions
    def test_revoked_certificate_is_refused(self, version: int) -> None:
        """A certificate on the list is revoked, others are not."""
        trust = with_lists(crl(ROOT, BAD.certificate))
        assert reason(trust, BAD, version) is VerifyReason.REVOKED
        assert reason(trust, GOOD, version) is None

    def test_certificate_without_a_list_is_refused(self) -> None:
        """Where lists are kept, nothing passes that no list speaks of."""
        assert reason(with_lists(crl()), VIA) is VerifyReason.NO_CRL
        assert reason(with_lists(crl(intermediate())), GOOD) is VerifyReason.NO_CRL

    def test_scope_leaf_needs_the_list_of_its_issuer_only(self) -> None:
        """The root need not publish a list for an intermediate's to be of use."""
        assert reason(with_lists(crl(intermediate())), VIA) is None
        assert reason(with_lists(crl(intermediate(), VIA.certificate)), VIA) is VerifyReason.REVOKED

    def test_scope_chain_needs_the_list_of_every_issuer(self) -> None:
        """A revoked intermediate takes all that it issued with it."""
        chain = CrlScope.CHAIN
        assert reason(with_lists(crl(intermediate()), crl_scope=chain), VIA) is VerifyReason.NO_CRL
        assert reason(with_lists(crl(intermediate()), crl(), crl_scope=chain), VIA) is None
        revoked = crl(ROOT, intermediate().certificate)
        assert reason(with_lists(crl(intermediate()), revoked, crl_scope=chain), VIA) is VerifyReason.REVOKED

    def test_list_that_is_not_valid_yet_is_an_error(self) -> None:
        """A list from the future says that a clock is wrong."""
        future = crl(last_update=NOW + DAY, next_update=NOW + 2 * DAY)
        assert reason(with_lists(future), GOOD) is VerifyReason.CRL_INVALID


class TestOverdueList:
    LATE = crl(ROOT, BAD.certificate, next_update=NOW - 2 * DAY)

    def at(self, moment: datetime, policy: CrlPolicy = CrlPolicy.FAIL) -> ClientTrust:
        return with_lists(self.LATE, crl_policy=policy, clock=lambda: moment)

    @both_versions
    def test_list_is_used_for_a_day_longer(self, version: int) -> None:
        """CAs are late now and then: that is no reason to turn everybody away, nor to let the revoked in."""
        trust = self.at(NOW - 2 * DAY + CRL_GRACE)
        assert reason(trust, GOOD, version) is None
        assert reason(trust, BAD, version) is VerifyReason.REVOKED

    def test_list_is_not_used_after_that(self) -> None:
        """What has been revoked since is not known."""
        trust = self.at(NOW - 2 * DAY + CRL_GRACE + timedelta(seconds=1))
        assert reason(trust, GOOD) is VerifyReason.CRL_OVERDUE

    def test_list_is_used_for_ever_where_told_to(self) -> None:
        """An operator may prefer an old list to none."""
        trust = self.at(NOW + 300 * DAY, CrlPolicy.WARN)
        assert reason(trust, GOOD) is None
        assert reason(trust, BAD) is VerifyReason.REVOKED

    def test_tolerance_does_not_hide_other_errors(self) -> None:
        """An expired certificate stays expired."""
        expired = ROOT.issue("old", purposes=CLIENT, not_before=NOW - 5 * DAY, not_after=NOW - DAY)
        assert reason(self.at(NOW - 2 * DAY), expired) is VerifyReason.EXPIRED
        foreign = other_authority().issue("mallory", purposes=CLIENT)
        assert reason(self.at(NOW - 2 * DAY), foreign) is VerifyReason.UNKNOWN_CA

    @both_versions
    def test_resumed_session_meets_the_same_end(self, version: int) -> None:
        """A session that was made while the list was good does not outlive it."""
        now = [NOW]
        trust = with_lists(crl(), clock=lambda: now[0])
        server, client = context(trust), client_context(version=version, identity=GOOD)
        session = connect(server, client).session()
        assert read_session(connect(server, client, session=session).server).verification.reason is None
        session = connect(server, client).session()
        now[0] = NOW + DAY + CRL_GRACE + timedelta(seconds=1)
        resumed = connect(server, client, session=session).server
        assert read_session(resumed).resumed
        assert read_session(resumed).verification.reason is VerifyReason.CRL_OVERDUE


class TestRevocationKnownUntil:
    def test_first_list_to_end_counts(self) -> None:
        """The earliest promise, and a day."""
        lists = crl(next_update=NOW + 3 * DAY), crl(intermediate(), next_update=NOW + 2 * DAY)
        assert with_lists(*lists).revocation_known_until() == NOW + 3 * DAY

    def test_list_of_another_ca_does_not_count(self) -> None:
        """Nobody is refused for the list of a CA that has nothing to do with him, unless all must be good."""
        lists = crl(next_update=NOW + 3 * DAY), crl(intermediate(), next_update=NOW + 2 * DAY)
        issuer = ROOT.certificate.subject
        assert with_lists(*lists).revocation_known_until(issuer) == NOW + 4 * DAY
        assert with_lists(*lists, crl_scope=CrlScope.CHAIN).revocation_known_until(issuer) == NOW + 3 * DAY

    def test_no_end(self) -> None:
        """Without lists, and where old ones are used on, nothing ends."""
        assert TRUST.revocation_known_until() is None
        assert with_lists(crl(), crl_policy=CrlPolicy.WARN).revocation_known_until() is None


def alert(trust: ClientTrust, identity: Issued | None, version: int) -> str:
    """How a handshake that the server ends looks to the client."""
    server = SSL.Connection(context(trust), None)
    client = SSL.Connection(client_context(version=version, identity=identity), None)
    server.set_accept_state()
    client.set_connect_state()
    client.set_tlsext_host_name(b"localhost")
    failed = False
    for _ in range(6):
        for end, other in ((client, server), (server, client)):
            try:
                end.do_handshake() if end is server or version == TLS12 else _read(end)
            except SSL.WantReadError:
                pass
            except SSL.Error as error:
                if end is client:
                    return str(error.args[0][0][2])
                failed = True
            data = outgoing(end)
            if data:
                other.bio_write(data)
    assert failed
    raise AssertionError("the client was not told")


def _read(client: SSL.Connection) -> None:
    client.do_handshake()
    client.recv(1)


class TestHandshakeRefusal:
    TRUST = attrs.evolve(TRUST, refusal=ClientRefusal.HANDSHAKE)

    @pytest.mark.parametrize(
        ("identity", "text"),
        [
            (None, {TLS12: "handshake failure", TLS13: "certificate required"}),
            (other_authority().issue("mallory", purposes=CLIENT), "unknown ca"),
            (ROOT.issue("old", purposes=CLIENT, not_before=NOW - 5 * DAY, not_after=NOW - DAY), "certificate expired"),
            (ROOT.issue("server"), "unsupported certificate"),
            (BAD, "certificate revoked"),
        ],
        ids=["none", "unknown CA", "expired", "wrong purpose", "revoked"],
    )
    @both_versions
    def test_client_is_sent_an_alert(self, identity: Issued | None, text: str | dict[int, str], version: int) -> None:
        """Clients that cannot be trusted do not get as far as HTTP."""
        trust = attrs.evolve(self.TRUST, crls=(crl(ROOT, BAD.certificate),))
        told = alert(trust, identity, version)
        assert told.endswith(text if isinstance(text, str) else text[version])

    @both_versions
    def test_good_client_gets_through(self, version: int) -> None:
        """The rule is for the others."""
        assert reason(self.TRUST, GOOD, version) is None

    @both_versions
    def test_client_without_one_gets_through_where_it_is_optional(self, version: int) -> None:
        """Optional means that none is as good as a good one."""
        optional = attrs.evolve(self.TRUST, mode=OPTIONAL)
        server = connect(context(optional), client_context(version=version)).server
        assert read_session(server).verification.certificate is None

    @both_versions
    def test_client_that_is_not_authorised_is_sent_an_alert(self, version: int) -> None:
        """A certificate may be in order and still not be welcome."""
        seen: list[x509.Certificate] = []

        def admits(certificate: x509.Certificate) -> bool:
            seen.append(certificate)
            return certificate == GOOD.certificate

        trust = attrs.evolve(self.TRUST, admits=admits)
        assert reason(trust, GOOD, version) is None
        told = alert(trust, BAD, version)
        assert told.endswith("bad certificate")
        assert seen == [GOOD.certificate, BAD.certificate]

    @both_versions
    def test_question_that_fails_is_a_no(self, version: int) -> None:
        """A certificate that cannot be judged is refused."""

        def admits(certificate: x509.Certificate) -> bool:
            raise ValueError

        told = alert(attrs.evolve(self.TRUST, admits=admits), GOOD, version)
        assert "alert" in told


class TestCostlyChains:
    """What a client shows that is not to be believed must not make us work for it."""

    @staticmethod
    def stranger(length: int, padding: int = 0) -> Issued:
        issuer = other_authority()
        for number in range(length):
            issuer = issuer.delegate(f"{'x' * padding}{number}")
        return issuer.issue("mallory", purposes=CLIENT)

    @both_versions
    def test_short_chain_of_a_stranger_is_answered_in_http(self, version: int) -> None:
        """Somebody with the wrong certificate is to read why."""
        assert reason(TRUST, self.stranger(2), version) is VerifyReason.UNKNOWN_CA

    @both_versions
    def test_long_chain_of_a_stranger_is_ended_by_an_alert(self, version: int) -> None:
        """Nobody gets signatures checked with keys of his own choice, nor names compared."""
        assert alert(TRUST, self.stranger(6), version).endswith("unknown ca")

    def test_good_long_chain_is_no_stranger(self) -> None:
        """Length alone is no reason."""
        issuer = ROOT
        for number in range(6):
            issuer = issuer.delegate(f"CA {number}")
        assert reason(TRUST, issuer.issue("deep", purposes=CLIENT)) is None


class TestDigest:
    @pytest.mark.parametrize(
        "change",
        [
            {"mode": OPTIONAL},
            {"anchors": (ROOT.certificate, intermediate().certificate)},
            {"crls": (crl(),)},
            {"crl_scope": CrlScope.CHAIN},
            {"crl_policy": CrlPolicy.WARN},
            {"depth": 1},
            {"refusal": ClientRefusal.HANDSHAKE},
        ],
        ids=lambda change: next(iter(change)),
    )
    def test_every_rule_counts(self, change: dict[str, object]) -> None:
        """Sessions made under other rules are not resumed."""
        assert attrs.evolve(TRUST, **change).digest() != TRUST.digest()  # type: ignore[arg-type]
        assert attrs.evolve(TRUST).digest() == TRUST.digest()


class TestTrustOf:
    def test_trust_of_a_connection_is_its_contexts(self) -> None:
        """Whoever has the connection can ask under what it was made."""
        assert trust_of(connect(context(TRUST), client_context(identity=GOOD)).server) is TRUST
        assert trust_of(connect(context(ClientTrust()), client_context()).server).mode is ClientCertMode.NONE


def test_chain_that_is_too_long_is_refused() -> None:
    """The depth counts the CAs between leaf and root."""
    deep: Sequence[Authority] = [ROOT]
    for number in range(3):
        deep = [*deep, deep[-1].delegate(f"CA {number}")]
    leaf = deep[-1].issue("deep", purposes=CLIENT)
    assert reason(attrs.evolve(TRUST, depth=3), leaf) is None
    assert reason(attrs.evolve(TRUST, depth=2), leaf) in (VerifyReason.CHAIN_TOO_LONG, VerifyReason.UNKNOWN_CA)
