"""`tls.clientcontext`: the context towards upstreams, names of certificates, and failures in words."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

from sidecar.certs.bundle import Bundle
from sidecar.errors import MaterialError, TlsError
from sidecar.settings import ClientCertMode, TlsPolicy
from sidecar.tls.clientcontext import (
    TlsFailure,
    build_client_context,
    has_one_of,
    name_mismatch,
    peer_certificate,
    peer_failure,
    server_name,
)
from sidecar.tls.context import build_context
from sidecar.tls.trust import ClientTrust
from tests.support.certs import CLIENT, DAY, NOW, authority, ecdsa_key, intermediate, reveals, rsa_key
from tests.support.handshake import connect

SPIFFE = "spiffe://prod.example/ns/web"


def certificate_with(*names: x509.GeneralName) -> x509.Certificate:
    """Make a certificate with exactly these alternative names; without any, it has no such extension."""
    key = ecdsa_key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "app.internal")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + DAY)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key, hashes.SHA256())


def dns(name: str) -> x509.DNSName:
    return x509.DNSName(name)


def uri(text: str) -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier(text)


class TestHasOneOf:
    @pytest.mark.parametrize(
        ("shown", "wanted", "fits"),
        [
            ("app.internal", "app.internal", True),
            ("APP.Internal", "app.iNTERNAL", True),
            ("app.internal", "app.internal.", True),
            ("app.internal", "internal", False),
            ("app.internal", "xapp.internal", False),
            ("app.internal", "app.internal.evil", False),
            ("*.internal.example", "app.internal.example", True),
            ("*.internal.example", "a.app.internal.example", False),
            ("*.internal.example", "internal.example", False),
            ("a*.internal.example", "app.internal.example", False),
            ("*.example", "app.example", False),
            ("*", "app", False),
            ("app.*.example", "app.internal.example", False),
            ("*.internal.example", "*.internal.example", False),
            ("*.internal.example", "xn--app-hoa.internal.example", False),
            ("10.0.0.5", "10.0.0.5", False),
            ("app.internal", "", False),
            ("app.internal", "app internal", False),
            ("app.internal", "äpp.internal", False),
            ("app.internal", "app.internal\n", False),
        ],
    )
    def test_host_names(self, shown: str, wanted: str, fits: bool) -> None:
        """A wildcard stands for one whole label on the left, below two others; nothing else is a pattern."""
        assert has_one_of(certificate_with(dns(shown)), [wanted]) is fits

    @pytest.mark.parametrize(
        ("shown", "wanted", "fits"),
        [
            ("10.0.0.5", "10.0.0.5", True),
            ("10.0.0.5", "10.0.0.50", False),
            ("fd00::5", "fd00:0:0::5", True),
            ("::ffff:10.0.0.5", "10.0.0.5", False),
            ("fd00::5", "fd00::5%eth0", False),
            ("10.0.0.5", "app.internal", False),
        ],
    )
    def test_addresses(self, shown: str, wanted: str, fits: bool) -> None:
        """An address is compared as such, and with addresses alone."""
        assert has_one_of(certificate_with(x509.IPAddress(ipaddress.ip_address(shown))), [wanted]) is fits

    @pytest.mark.parametrize(
        ("shown", "wanted", "fits"),
        [
            (SPIFFE, SPIFFE, True),
            ("SPIFFE://Prod.Example/ns/web", SPIFFE, True),
            (SPIFFE, "Spiffe://PROD.example/ns/web", True),
            (SPIFFE, "spiffe://prod.example/ns/Web", False),
            (SPIFFE, "spiffe://prod.example/ns/web/", False),
            (SPIFFE, "spiffe://prod.example/ns", False),
            (SPIFFE, "spiffe://prod.example/ns/%77eb", False),
            (SPIFFE, "spiffe://prod.example/ns/x/../web", False),
            (SPIFFE, "spiffe://prod.example", False),
            (SPIFFE, "spiffe:prod.example/ns/web", False),
            ("spiffe:prod.example/ns/web", SPIFFE, False),
            (SPIFFE, "https://prod.example/ns/web", False),
            (SPIFFE, "prod.example", False),
            ("https://prod.example:8443/a?b#c", "https://PROD.example:8443/a?b#c", True),
            ("https://prod.example:8443/", "https://prod.example/", False),
            ("https://Me@prod.example/", "https://me@prod.example/", False),
            ("urn:uuid:0a", "URN:uuid:0a", True),
            ("urn:uuid:0a", "urn:uuid:0A", False),
        ],
    )
    def test_uris(self, shown: str, wanted: str, fits: bool) -> None:
        """A URI is compared letter by letter but for the case of its scheme and host."""
        assert has_one_of(certificate_with(uri(shown)), [wanted]) is fits

    @pytest.mark.parametrize(
        "odd",
        [dns("*"), dns("10.0.0.5"), dns("a b"), uri("urn:uuid:0a:1"), uri("https://h:1/"), uri("*"), uri("")],
        ids=lambda name: repr(name.value),
    )
    def test_odd_name_spoils_no_other(self, odd: x509.GeneralName) -> None:
        """A certificate is for its good names, whatever else stands in it."""
        certificate = certificate_with(odd, dns("app.internal"))
        assert has_one_of(certificate, ["app.internal"])
        assert not has_one_of(certificate, ["other.internal"])

    def test_any_of_several_will_do(self) -> None:
        """Of the names wanted one is enough, of whatever kind."""
        certificate = certificate_with(dns("b.internal"), uri(SPIFFE))
        assert has_one_of(certificate, ["a.internal", SPIFFE])
        assert has_one_of(certificate, ["not a name", "b.internal"])
        assert not has_one_of(certificate, ["a.internal", "c.internal"])

    def test_nothing_wanted_is_nothing_found(self) -> None:
        """Without a name nobody is right."""
        assert not has_one_of(certificate_with(dns("app.internal")), [])

    def test_common_name_does_not_count(self) -> None:
        """RFC 9525 section 6.3: it never does."""
        assert not has_one_of(certificate_with(), ["app.internal"])
        assert not has_one_of(certificate_with(uri(SPIFFE)), ["app.internal"])


class TestServerName:
    @pytest.mark.parametrize(
        ("host", "asked"),
        [
            ("app.internal", "app.internal"),
            ("app_1", "app_1"),
            ("app.internal.", "app.internal"),
            ("10.0.0.5", None),
            ("::1", None),
            (SPIFFE, None),
            ("*.internal", None),
            ("", None),
            ("a" * 254, None),
        ],
    )
    def test_only_host_names_are_asked_for(self, host: str, asked: str | None) -> None:
        """RFC 6066 section 3: no address, no dot at the end."""
        assert server_name(host) == asked


class TestBuildClientContext:
    def test_foreign_key_is_refused(self) -> None:
        """A key of another certificate is told of at load, without a word of it."""
        own, other = authority().issue("us", purposes=CLIENT), rsa_key()
        bundle = Bundle(leaf=own.certificate, chain=(), private_key=other)
        with pytest.raises(MaterialError) as caught:
            build_client_context([authority().certificate], bundle, TlsPolicy.INTERMEDIATE)
        assert caught.value.role == "cert"
        assert "'CN=us'" in caught.value.fact

    def test_weak_certificate_is_refused(self) -> None:
        """What OpenSSL takes for too weak is told of at load, not at every handshake."""
        weak = authority().issue("us", purposes=CLIENT, key=rsa_key(1024))
        with pytest.raises(MaterialError, match="OpenSSL refuses the client certificate 'CN=us': ee key too small"):
            build_client_context([authority().certificate], weak.bundle, TlsPolicy.INTERMEDIATE)

    def test_cas_of_the_system_are_trusted_unless_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without CAs of the cluster, those are trusted that everything on this system trusts."""
        server = build_context([authority().issue("localhost").bundle], ClientTrust(), TlsPolicy.INTERMEDIATE)
        (tmp_path / "ca.pem").write_bytes(authority().cert_pem)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        assert connect(server, build_client_context(None, None, TlsPolicy.INTERMEDIATE))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
        with pytest.raises(SSL.Error):
            connect(server, build_client_context(None, None, TlsPolicy.INTERMEDIATE))

    def test_cas_of_the_cluster_are_the_only_ones(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """With CAs of its own, a cluster trusts nobody else's."""
        server = build_context([authority().issue("localhost").bundle], ClientTrust(), TlsPolicy.INTERMEDIATE)
        (tmp_path / "ca.pem").write_bytes(authority().cert_pem)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        with pytest.raises(SSL.Error):
            connect(server, build_client_context([], None, TlsPolicy.INTERMEDIATE))

    def test_damaged_cas_of_the_system_are_told_of(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What OpenSSL says of them is passed on."""

        def fail(context: SSL.Context) -> None:
            raise SSL.Error([("PEM routines", "", "bad base64 decode")])

        monkeypatch.setattr(SSL.Context, "set_default_verify_paths", fail)
        with pytest.raises(MaterialError) as caught:
            build_client_context(None, None, TlsPolicy.INTERMEDIATE)
        assert caught.value.role == "ca"
        assert "bad base64 decode" in caught.value.fact

    def test_our_chain_is_what_was_configured(self) -> None:
        """OpenSSL adds none of the anchors to it."""
        own = intermediate().issue("us", purposes=CLIENT)
        bundle = Bundle(leaf=own.certificate, chain=(), private_key=own.key)
        anchors = [authority().certificate, intermediate().certificate]
        trust = ClientTrust(ClientCertMode.OPTIONAL, (authority().certificate,))
        server = build_context([authority().issue("localhost").bundle], trust, TlsPolicy.INTERMEDIATE)
        peers = connect(server, build_client_context(anchors, bundle, TlsPolicy.INTERMEDIATE))
        assert not peers.server.get_peer_cert_chain()  # beside the leaf


class TestPeerCertificate:
    def test_certificate_that_cannot_be_read_is_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What only OpenSSL can parse is not guessed at."""
        server = build_context([authority().issue("localhost").bundle], ClientTrust(), TlsPolicy.INTERMEDIATE)
        client = connect(server, build_client_context([authority().certificate], None, TlsPolicy.INTERMEDIATE)).client
        assert peer_certificate(client) is not None
        monkeypatch.setattr("sidecar.tls.clientcontext.dump_certificate", lambda form, shown: b"\x30\x03\x02\x01\x00")
        assert peer_certificate(client) is None

    def test_large_certificate_is_read_and_not_remembered(self) -> None:
        """What a peer can make large takes no room here."""
        large = authority().issue("localhost", *(f"host-{number}.example" for number in range(500)))
        server = build_context([large.bundle], ClientTrust(), TlsPolicy.INTERMEDIATE)
        client = connect(server, build_client_context([authority().certificate], None, TlsPolicy.INTERMEDIATE)).client
        first = peer_certificate(client)
        assert first == large.certificate
        assert first is not peer_certificate(client)


class TestNameMismatch:
    def test_few_names_are_listed(self) -> None:
        """A certificate with a thousand names fills no log."""
        certificate = certificate_with(*(dns(f"{number}.example") for number in range(1_000)))
        message = name_mismatch(certificate, ["app.internal"]).message
        assert "DNS:0.example, DNS:1.example, DNS:2.example, DNS:3.example, DNS:4.example and 995 more" in message

    def test_certificate_without_names_is_told_of(self) -> None:
        """That the common name does not count surprises many."""
        message = name_mismatch(certificate_with(), ["app.internal"]).message
        assert "not for app.internal but for no name at all (a common name does not count)" in message

    def test_no_name_ends_the_line(self) -> None:
        """Names are the peer's choice: they stay short, and on one line."""
        message = name_mismatch(certificate_with(dns("a\nERROR b" + "c" * 5_000)), ["app.internal"]).message
        assert message.isprintable()
        assert len(message) < 500


class TestPeerFailure:
    @pytest.mark.parametrize(
        ("text", "has_own", "reason"),
        [
            ("tlsv13 alert certificate required", False, "client_certificate_required"),
            ("tls alert bad certificate", False, "client_certificate_required"),
            ("sslv3 alert bad certificate", True, "client_certificate_refused"),
            ("ssl/tls alert certificate unknown", True, "client_certificate_refused"),
            ("tlsv1 alert unknown ca", True, "client_certificate_refused"),
            ("tlsv1 alert access denied", True, "client_certificate_refused"),
            ("tls alert handshake failure", True, "handshake_failed"),
            ("tls alert handshake failure", False, "handshake_failed"),
            ("tlsv1 unrecognized name", True, "unrecognized_name"),
            ("tlsv1 alert protocol version", True, "unsupported_version"),
            ("tlsv1 alert no application protocol", True, "no_shared_alpn"),
            ("tlsv1 alert internal error", True, "handshake_failed"),
            ("wrong version number", True, "protocol_error"),
        ],
    )
    def test_each_has_its_reason(self, text: str, has_own: bool, reason: str) -> None:
        """The wording of OpenSSL, which changes between its versions, becomes a token and a sentence."""
        connection = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
        own = authority().issue("us", purposes=CLIENT)
        failure = peer_failure(TlsError("protocol_error", text), connection, own.certificate if has_own else None)
        assert failure.reason == reason
        assert not reveals(failure.message, own.key_pem.decode())

    def test_it_is_a_value(self) -> None:
        """Two failures that say the same are the same."""
        assert TlsFailure("closed", "x") == TlsFailure("closed", "x")
