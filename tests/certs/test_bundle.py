"""`certs.bundle`: each way key material can be wrong has a sentence of its own."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    pkcs12,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.certs.bundle import MAX_FILE_BYTES, Bundle, find_problems, load_anchors, load_bundle
from sidecar.errors import MaterialError
from tests.support.certs import (
    CLIENT,
    DAY,
    NOW,
    Issued,
    authority,
    ecdsa_key,
    ed25519_key,
    intermediate,
    key_usage,
    make_root,
    other_authority,
    pem,
    rsa_key,
    self_signed,
)


def server() -> Issued:
    return intermediate().issue("app.example")


def refusal_of(cert: Path, key: Path | None = None) -> MaterialError:
    with pytest.raises(MaterialError) as caught:
        load_bundle(cert, key, NOW)
    return caught.value


def anchor_refusal_of(path: Path) -> MaterialError:
    with pytest.raises(MaterialError) as caught:
        load_anchors(path, NOW)
    assert caught.value.role == "ca"
    return caught.value


class TestLoadBundle:
    def test_directory_layout_loads(self, tmp_path: Path) -> None:
        """A directory with tls.crt and tls.key is enough; the chain keeps its order."""
        issued = server()
        bundle = load_bundle(issued.write(tmp_path), None, NOW)
        assert bundle == issued.bundle
        assert bundle.chain == (intermediate().certificate,)

    def test_two_files_load(self, tmp_path: Path) -> None:
        """Certificate and key can be two files of any name."""
        issued = server()
        issued.write(tmp_path, "a.pem", "b.pem")
        assert load_bundle(tmp_path / "a.pem", tmp_path / "b.pem", NOW).leaf == issued.certificate

    def test_key_directory_is_looked_into(self, tmp_path: Path) -> None:
        """A key setting that names a directory means tls.key in it."""
        issued = server()
        issued.write(tmp_path)
        assert load_bundle(tmp_path / "tls.crt", tmp_path, NOW).leaf == issued.certificate

    @pytest.mark.parametrize("key_first", [True, False])
    def test_one_file_with_both_loads(self, tmp_path: Path, key_first: bool) -> None:
        """A PEM file may hold the key as well, before or after the chain."""
        issued = server()
        parts = [issued.key_pem, b"# a comment\n", issued.cert_pem]
        file = tmp_path / "both.pem"
        file.write_bytes(b"".join(parts if key_first else reversed(parts)))
        assert load_bundle(file, None, NOW) == issued.bundle

    def test_key_beside_the_file_is_found(self, tmp_path: Path) -> None:
        """Without a key setting, app.crt has its key in app.key."""
        issued = server()
        issued.write(tmp_path, "app.crt", "app.key")
        assert load_bundle(tmp_path / "app.crt", None, NOW).leaf == issued.certificate

    def test_windows_line_ends_load(self, tmp_path: Path) -> None:
        """CR LF line ends change nothing."""
        issued = server()
        file = tmp_path / "both.pem"
        file.write_bytes((issued.cert_pem + issued.key_pem).replace(b"\n", b"\r\n"))
        assert load_bundle(file, None, NOW) == issued.bundle

    @pytest.mark.parametrize(
        "key",
        [
            pytest.param(lambda: rsa_key(2048), id="RSA 2048"),
            pytest.param(ecdsa_key, id="P-256"),
            pytest.param(lambda: ecdsa_key(ec.SECP384R1()), id="P-384"),
            pytest.param(lambda: ecdsa_key(ec.SECP521R1()), id="P-521"),
            pytest.param(ed25519_key, id="Ed25519"),
        ],
    )
    def test_supported_key_loads(self, tmp_path: Path, key: Callable[[], ec.EllipticCurvePrivateKey]) -> None:
        """RSA from 2048 bits, the three NIST curves and Ed25519 are accepted."""
        issued = authority().issue("app.example", key=key())
        assert load_bundle(issued.write(tmp_path), None, NOW).leaf == issued.certificate

    @pytest.mark.parametrize("key", [rsa_key, ecdsa_key])
    def test_traditional_key_loads(self, tmp_path: Path, key: Callable[[], ec.EllipticCurvePrivateKey]) -> None:
        """BEGIN RSA PRIVATE KEY and BEGIN EC PRIVATE KEY are keys, also after EC PARAMETERS."""
        issued = authority().issue("app.example", key=key())
        issued.write(tmp_path)
        parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
        (tmp_path / "tls.key").write_bytes(parameters + issued.traditional_key_pem)
        assert load_bundle(tmp_path, None, NOW).leaf == issued.certificate

    @pytest.mark.parametrize("ca", [True, False])
    def test_self_signed_loads(self, tmp_path: Path, ca: bool) -> None:
        """Self-signed certificates serve, also those with CA:TRUE, as people develop with them."""
        issued = self_signed("localhost", ca=ca)
        assert load_bundle(issued.write(tmp_path), None, NOW).leaf == issued.certificate

    def test_expired_issuer_in_chain_is_accepted(self, tmp_path: Path) -> None:
        """Only the leaf's dates are judged, as chains with an expired cross-signature work."""
        old = make_root("Old Root", NOW - 9 * DAY, NOW - DAY)
        issued = server()
        issued.write(tmp_path)
        with (tmp_path / "tls.crt").open("ab") as file:
            file.write(pem(old.certificate))
        assert load_bundle(tmp_path, None, NOW).chain[-1] == old.certificate

    def test_repr_hides_key(self, tmp_path: Path) -> None:
        """A bundle shows its certificates and never its key."""
        assert "rivate" not in repr(load_bundle(server().write(tmp_path), None, NOW))


class TestUnreadableFiles:
    def test_missing_file_is_named(self, tmp_path: Path) -> None:
        """A missing certificate file is said to be missing."""
        error = refusal_of(tmp_path / "no.crt")
        assert error.role == "cert"
        assert error.fact == f"{tmp_path}/no.crt does not exist"

    def test_missing_key_file_is_named(self, tmp_path: Path) -> None:
        """A missing key file is the key's fault."""
        error = refusal_of(server().write(tmp_path), tmp_path / "no.key")
        assert (error.role, error.fact) == ("key", f"{tmp_path}/no.key does not exist")

    def test_directory_without_certificate_is_named(self, tmp_path: Path) -> None:
        """A directory without tls.crt is said to be one."""
        assert refusal_of(tmp_path).fact == f"{tmp_path} is a directory without tls.crt"

    def test_directory_without_key_is_named(self, tmp_path: Path) -> None:
        """A directory with tls.crt but without tls.key is the key's fault."""
        server().write(tmp_path, key="other.key")
        error = refusal_of(tmp_path)
        assert (error.role, error.fact) == ("key", f"{tmp_path} is a directory without tls.key")

    def test_directory_in_place_of_file_is_named(self, tmp_path: Path) -> None:
        """A directory named tls.crt, as container engines make for a missing mount, is said to be one."""
        (tmp_path / "tls.crt").mkdir()
        assert refusal_of(tmp_path).fact == f"{tmp_path}/tls.crt is a directory"

    def test_forbidden_file_names_user(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A file that may not be read is said to be unreadable, for whom, and what to change."""

        def refuse(*_: object) -> None:
            raise PermissionError(13, "Permission denied")

        server().write(tmp_path)
        monkeypatch.setattr(Path, "open", refuse)  # tests may run as root, who may read anything
        error = refusal_of(tmp_path / "tls.crt")
        assert error.fact == f"user {os.geteuid()}, who runs this program, may not read {tmp_path}/tls.crt"
        assert "chmod" in error.fix

    @pytest.mark.parametrize("name", ["tls.crt/below", "x" * 300, "nul\0byte"])
    def test_impossible_path_is_refused(self, tmp_path: Path, name: str) -> None:
        """A path that the system cannot even look up is refused, not raised as OSError or ValueError."""
        server().write(tmp_path)
        assert "cannot be read" in refusal_of(tmp_path / name).fact

    @pytest.mark.parametrize("data", [b"", b" \n\t\n"])
    def test_empty_file_is_named(self, tmp_path: Path, data: bytes) -> None:
        """An empty file is said to be empty."""
        (tmp_path / "c").write_bytes(data)
        assert refusal_of(tmp_path / "c").fact == f"{tmp_path}/c is empty"

    def test_endless_file_is_bounded(self) -> None:
        """Of a file without end no more than the limit is read."""
        assert "over the limit of 1,048,576 bytes" in refusal_of(Path("/dev/zero")).fact

    @pytest.mark.parametrize(("extra", "fits"), [(0, True), (1, False)])
    def test_limit_is_exact(self, tmp_path: Path, extra: int, fits: bool) -> None:
        """A file of exactly the limit is read; one byte more is refused."""
        issued = server()
        data = issued.cert_pem + issued.key_pem
        file = tmp_path / "both.pem"
        file.write_bytes(data + b"\n" * (MAX_FILE_BYTES + extra - len(data)))
        if fits:
            assert load_bundle(file, None, NOW) == issued.bundle
        else:
            assert "over the limit" in refusal_of(file).fact


class TestWrongFormat:
    def test_text_is_not_pem(self, tmp_path: Path) -> None:
        """Any text without a BEGIN line is said not to be PEM."""
        (tmp_path / "c").write_text("hello\n")
        assert refusal_of(tmp_path / "c").fact == f"{tmp_path}/c is not PEM"

    def test_der_certificate_gets_command(self, tmp_path: Path) -> None:
        """A DER certificate is recognised, and the command that converts it is given."""
        (tmp_path / "c").write_bytes(server().certificate.public_bytes(Encoding.DER))
        error = refusal_of(tmp_path / "c")
        assert "looks like DER" in error.fact
        assert f"openssl x509 -inform DER -in {tmp_path}/c" in error.fix

    def test_der_key_gets_command(self, tmp_path: Path) -> None:
        """A DER key is recognised as one by the role it is read for."""
        issued = server()
        issued.write(tmp_path)
        der = issued.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        (tmp_path / "tls.key").write_bytes(der)
        error = refusal_of(tmp_path)
        assert error.role == "key"
        assert "openssl pkey -inform DER" in error.fix

    def test_pkcs12_gets_command(self, tmp_path: Path) -> None:
        """PKCS#12 is told apart from other DER."""
        issued = server()
        store = pkcs12.serialize_key_and_certificates(b"x", issued.key, issued.certificate, None, NoEncryption())
        (tmp_path / "c").write_bytes(store)
        error = refusal_of(tmp_path / "c")
        assert "PKCS#12" in error.fact
        assert "openssl pkcs12" in error.fix

    def test_cut_file_is_named(self, tmp_path: Path) -> None:
        """A BEGIN line without its END line means that the file was cut."""
        (tmp_path / "c").write_bytes(server().cert_pem[:-40])
        assert "is cut short or damaged" in refusal_of(tmp_path / "c").fact

    def test_damaged_certificate_is_numbered(self, tmp_path: Path) -> None:
        """A block that is not a certificate inside is named by its position."""
        bad = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
        (tmp_path / "c").write_bytes(pem(server().certificate) + bad)
        assert "certificate 2 in" in refusal_of(tmp_path / "c").fact

    def test_key_in_place_of_certificate_suggests_swap(self, tmp_path: Path) -> None:
        """A key file where the certificate belongs is recognised."""
        server().write(tmp_path)
        error = refusal_of(tmp_path / "tls.key", tmp_path / "tls.crt")
        assert error.role == "cert"
        assert error.fact == f"{tmp_path}/tls.key holds no certificate, only: PRIVATE KEY"
        assert "swapped" in error.fix

    def test_certificate_in_place_of_key_suggests_swap(self, tmp_path: Path) -> None:
        """A certificate file where the key belongs is recognised."""
        server().write(tmp_path)
        error = refusal_of(tmp_path / "tls.crt", tmp_path / "tls.crt")
        assert error.role == "key"
        assert error.fact == f"{tmp_path}/tls.crt holds no private key, only: CERTIFICATE"
        assert "swapped" in error.fix

    def test_request_is_named(self, tmp_path: Path) -> None:
        """A signing request is not a certificate yet."""
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "app")])
        request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(ecdsa_key(), hashes.SHA256())
        (tmp_path / "c").write_bytes(request.public_bytes(Encoding.PEM))
        assert "must be signed" in refusal_of(tmp_path / "c").fix

    def test_trusted_certificate_gets_command(self, tmp_path: Path) -> None:
        """OpenSSL's TRUSTED CERTIFICATE form is recognised."""
        (tmp_path / "c").write_bytes(pem(server().certificate).replace(b" CERT", b" TRUSTED CERT"))
        assert "openssl x509 -in" in refusal_of(tmp_path / "c").fix

    def test_public_key_alone_is_refused(self, tmp_path: Path) -> None:
        """A file with neither certificate nor private key says what it holds."""
        public = ecdsa_key().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (tmp_path / "c").write_bytes(public)
        assert refusal_of(tmp_path / "c").fact.endswith("only: PUBLIC KEY")


class TestWrongKey:
    def test_no_key_anywhere_names_both_places(self, tmp_path: Path) -> None:
        """Without a key setting, a PEM file alone without a key says where was looked."""
        (tmp_path / "c.pem").write_bytes(server().cert_pem)
        error = refusal_of(tmp_path / "c.pem")
        assert error.role == "key"
        assert error.fact == f"no private key: {tmp_path}/c.pem holds none, and there is no {tmp_path}/c.key"

    @pytest.mark.parametrize("format", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
    def test_encrypted_key_gets_command(self, tmp_path: Path, format: PrivateFormat) -> None:
        """An encrypted key, in either form, comes with the command that decrypts it."""
        issued = server()
        issued.write(tmp_path)
        (tmp_path / "tls.key").write_bytes(issued.encrypted_key_pem(format))
        error = refusal_of(tmp_path)
        assert (error.role, error.fact) == ("key", f"the private key in {tmp_path}/tls.key is encrypted")
        assert f"openssl pkey -in {tmp_path}/tls.key -out" in error.fix

    def test_damaged_key_shows_nothing_of_it(self, tmp_path: Path) -> None:
        """A damaged key is refused without a byte of it in the message."""
        server().write(tmp_path)
        (tmp_path / "tls.key").write_bytes(b"-----BEGIN PRIVATE KEY-----\nTopSecretA==\n-----END PRIVATE KEY-----\n")
        error = refusal_of(tmp_path)
        assert "damaged" in error.fact
        assert "TopSecret" not in str(error)

    @pytest.mark.parametrize(
        ("key", "name"),
        [
            pytest.param(lambda: rsa_key(1024), "RSA 1024", id="RSA 1024"),
            pytest.param(lambda: ecdsa_key(ec.SECP256K1()), "ECDSA secp256k1", id="secp256k1"),
            pytest.param(ed448.Ed448PrivateKey.generate, "Ed448", id="Ed448"),
            pytest.param(lambda: dsa.generate_private_key(2048), "DSA", id="DSA"),
        ],
    )
    def test_unsupported_key_is_named(self, tmp_path: Path, key: Callable[[], dsa.DSAPrivateKey], name: str) -> None:
        """A key of another kind or size is refused by name, with the kinds that serve."""
        server().write(tmp_path)
        text = key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (tmp_path / "tls.key").write_bytes(text)
        error = refusal_of(tmp_path)
        assert f"is {name}, which is not supported" in error.fact
        assert "P-256" in error.fix

    def test_foreign_key_is_refused(self, tmp_path: Path) -> None:
        """A key that belongs to no certificate of the file does not match."""
        server().write(tmp_path)
        (tmp_path / "tls.key").write_bytes(server().key_pem)
        error = refusal_of(tmp_path)
        assert error.role == "key"
        assert "does not match the certificate in" in error.fact

    def test_wrong_order_is_named(self, tmp_path: Path) -> None:
        """A key that belongs to a later certificate means that the chain is in the wrong order."""
        issued = server()
        issued.write(tmp_path)
        (tmp_path / "tls.crt").write_bytes(pem(*issued.chain, issued.certificate))
        error = refusal_of(tmp_path)
        assert error.role == "cert"
        assert "wrong order: the private key belongs to certificate 2" in error.fact


class TestUnfitCertificate:
    def test_expired_names_date(self, tmp_path: Path) -> None:
        """An expired certificate is refused with the day it expired."""
        issued = authority().issue("app", not_before=NOW - 9 * DAY, not_after=NOW - DAY)
        error = refusal_of(issued.write(tmp_path))
        assert error.fact.endswith(f"expired on {NOW - DAY:%Y-%m-%d %H:%M:%S} UTC")

    def test_not_yet_valid_mentions_clock(self, tmp_path: Path) -> None:
        """A certificate of the future is refused with its first day, and the clock is suspected."""
        issued = authority().issue("app", not_before=NOW + DAY)
        error = refusal_of(issued.write(tmp_path))
        assert f"is not valid until {NOW + DAY:%Y-%m-%d %H:%M:%S} UTC" in error.fact
        assert "clock" in error.fix

    @pytest.mark.parametrize(
        ("offset", "fits"), [(timedelta(0), True), (timedelta(seconds=1), False), (timedelta(seconds=-1), True)]
    )
    def test_last_second_is_valid(self, tmp_path: Path, offset: timedelta, fits: bool) -> None:
        """Validity includes its last second (RFC 5280 section 4.1.2.5)."""
        issued = authority().issue("app", not_after=NOW + DAY)
        issued.write(tmp_path)
        if fits:
            load_bundle(tmp_path, None, NOW + DAY + offset)
        else:
            with pytest.raises(MaterialError):
                load_bundle(tmp_path, None, NOW + DAY + offset)

    def test_client_certificate_is_refused(self, tmp_path: Path) -> None:
        """Extended key usages without serverAuth mean that clients would refuse it."""
        error = refusal_of(authority().issue("app", purposes=CLIENT).write(tmp_path))
        assert "lacks serverAuth" in error.fact

    @pytest.mark.parametrize(
        "purposes", [None, (*CLIENT, ExtendedKeyUsageOID.SERVER_AUTH), (ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,)]
    )
    def test_server_purpose_is_accepted(
        self, tmp_path: Path, purposes: tuple[x509.ObjectIdentifier, ...] | None
    ) -> None:
        """No extended key usage, serverAuth among others, or any: all serve."""
        load_bundle(authority().issue("app", purposes=purposes).write(tmp_path), None, NOW)

    def test_authority_certificate_is_refused(self, tmp_path: Path) -> None:
        """A CA certificate whose key usage allows only signing certificates cannot serve."""
        assert "is a CA's" in refusal_of(make_root("CA").write(tmp_path)).fact

    def test_key_usage_without_tls_is_refused(self, tmp_path: Path) -> None:
        """A key usage that allows no TLS at all is refused; one of the three that do is enough."""
        issued = authority().issue("app", usage=key_usage("content_commitment"))
        assert "does not allow TLS" in refusal_of(issued.write(tmp_path)).fact
        load_bundle(authority().issue("app", usage=key_usage("key_encipherment")).write(tmp_path), None, NOW)

    def test_sha1_signature_is_refused(self, tmp_path: Path) -> None:
        """A leaf signed with SHA-1 would fail each handshake, so it fails the start."""
        issued = server()
        weak = _with_algorithm(issued.certificate, _ECDSA_SHA256, _ECDSA_SHA1)
        issued.write(tmp_path)
        (tmp_path / "tls.crt").write_bytes(pem(weak))
        assert "signed with SHA-1" in refusal_of(tmp_path).fact

    def test_short_rsa_key_in_chain_is_refused(self, tmp_path: Path) -> None:
        """An issuer with a short RSA key would fail each handshake, so it fails the start."""
        issued = server()
        weak = authority().issue("Weak CA", key=rsa_key(1024)).certificate
        issued.write(tmp_path)
        (tmp_path / "tls.crt").write_bytes(pem(issued.certificate, weak))
        assert "RSA key of 1024 bits" in refusal_of(tmp_path).fact


_ECDSA_SHA256 = bytes.fromhex("06082a8648ce3d040302")
_ECDSA_SHA1 = bytes.fromhex("06072a8648ce3d0401")


def _with_algorithm(certificate: x509.Certificate, old: bytes, new: bytes) -> x509.Certificate:
    """Swap the algorithm identifier by hand, as `cryptography` refuses to sign with SHA-1; lengths are mended."""
    der = certificate.public_bytes(Encoding.DER)
    identifier, changed = b"\x30\x0a" + old, b"\x30\x09" + new
    assert der.count(identifier) == 2
    der = der.replace(identifier, changed)
    outer, inner = int.from_bytes(der[2:4], "big") - 2, int.from_bytes(der[6:8], "big") - 1
    assert der[:2] == der[4:6] == b"\x30\x82"
    der = der[:2] + outer.to_bytes(2, "big") + der[4:6] + inner.to_bytes(2, "big") + der[8:]
    return x509.load_der_x509_certificate(der)


class TestFindProblems:
    def test_good_pair_has_none(self, tmp_path: Path) -> None:
        """Nothing is found where `load_bundle` succeeds."""
        assert find_problems(authority().issue("app").write(tmp_path), None, NOW) == []

    def test_missing_certificate_does_not_hide_a_missing_key(self, tmp_path: Path) -> None:
        """Both files are looked at, whatever is wrong with the first."""
        found = find_problems(tmp_path / "a.crt", tmp_path / "a.key", NOW)
        assert [error.role for error in found] == ["cert", "key"]

    def test_missing_certificate_without_a_key_is_one_problem(self, tmp_path: Path) -> None:
        """Where no key was named, none is missed."""
        assert [error.role for error in find_problems(tmp_path / "a.crt", None, NOW)] == ["cert"]

    def test_wrong_key_does_not_hide_expiry(self, tmp_path: Path) -> None:
        """A certificate is judged for itself, too."""
        directory = authority().issue("app", not_before=NOW - 9 * DAY, not_after=NOW - DAY).write(tmp_path)
        (directory / "tls.key").write_bytes(authority().issue("app").key_pem)
        found = find_problems(directory, None, NOW)
        assert [error.role for error in found] == ["key", "cert"]
        assert "expired" in found[1].fact

    def test_first_problem_is_the_one_that_loading_raises(self, tmp_path: Path) -> None:
        """Both agree about what is wrong."""
        directory = authority().issue("app", purposes=CLIENT).write(tmp_path)
        with pytest.raises(MaterialError) as raised:
            load_bundle(directory, None, NOW)
        assert [str(error) for error in find_problems(directory, None, NOW)] == [str(raised.value)]


class TestLoadAnchors:
    def test_bundle_of_authorities_loads(self, tmp_path: Path) -> None:
        """A file may hold several CAs, intermediates among them."""
        anchors = (authority().certificate, intermediate().certificate, other_authority().certificate)
        (tmp_path / "cas.pem").write_bytes(pem(*anchors))
        assert load_anchors(tmp_path / "cas.pem", NOW) == anchors

    def test_directory_layout_loads(self, tmp_path: Path) -> None:
        """A directory means ca.crt in it."""
        (tmp_path / "ca.crt").write_bytes(pem(authority().certificate))
        assert load_anchors(tmp_path, NOW) == (authority().certificate,)

    def test_directory_without_file_is_named(self, tmp_path: Path) -> None:
        """A directory without ca.crt is said to be one."""
        assert anchor_refusal_of(tmp_path).fact == f"{tmp_path} is a directory without ca.crt"

    @pytest.mark.parametrize("data", [b"", b"hello", b"\x30\x82\x01\x00"])
    def test_other_format_is_refused(self, tmp_path: Path, data: bytes) -> None:
        """What is not PEM is refused, as for a certificate."""
        (tmp_path / "c").write_bytes(data)
        anchor_refusal_of(tmp_path / "c")

    def test_key_alone_is_refused(self, tmp_path: Path) -> None:
        """A key is not a CA certificate."""
        (tmp_path / "c").write_bytes(server().key_pem)
        assert "holds no certificate" in anchor_refusal_of(tmp_path / "c").fact

    def test_leaf_is_named(self, tmp_path: Path) -> None:
        """Each certificate must be a CA; the one that is not is named."""
        (tmp_path / "c").write_bytes(pem(authority().certificate, authority().issue("ci").certificate))
        assert f"'CN=ci' in {tmp_path}/c is not a CA certificate" in anchor_refusal_of(tmp_path / "c").fact

    def test_intermediate_alone_is_refused(self, tmp_path: Path) -> None:
        """Without a root no client could ever be verified."""
        (tmp_path / "c").write_bytes(pem(intermediate().certificate))
        assert "no root" in anchor_refusal_of(tmp_path / "c").fact

    def test_all_expired_is_refused(self, tmp_path: Path) -> None:
        """When every root has expired, the last day is named."""
        roots = [make_root(f"Old {days}", NOW - 9 * DAY, NOW - days * DAY).certificate for days in (1, 2)]
        (tmp_path / "c").write_bytes(pem(*roots))
        error = anchor_refusal_of(tmp_path / "c")
        assert f"has expired, the last on {NOW - DAY:%Y-%m-%d}" in error.fact

    def test_one_expired_of_two_is_accepted(self, tmp_path: Path) -> None:
        """While one root is in date, an expired one beside it is left alone."""
        old = make_root("Old", NOW - 9 * DAY, NOW - DAY).certificate
        (tmp_path / "c").write_bytes(pem(old, authority().certificate))
        assert len(load_anchors(tmp_path / "c", NOW)) == 2


_ISSUED = server()
_ORIGINAL = _ISSUED.cert_pem + _ISSUED.key_pem


@st.composite
def mangled(draw: st.DrawFn) -> bytes:
    """A good file after a few flips, cuts, repeats and insertions."""
    data = bytearray(_ORIGINAL)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        match draw(st.sampled_from(["flip", "letter", "cut", "drop", "insert", "repeat"])):
            case "flip" if data:
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "letter" if data:
                data[at] = draw(st.sampled_from(b"ABCDabcd0189+/=-\n"))
            case "cut":
                del data[at:]
            case "drop":
                del data[at : at + draw(st.integers(1, 80))]
            case "insert":
                data[at:at] = draw(st.binary(max_size=20))
            case _:
                data += data[at : at + 2000]
    return bytes(data)


class TestMangledFiles:
    @settings(deadline=None, max_examples=300)
    @given(mangled())
    def test_mangled_file_loads_or_is_refused(self, data: bytes) -> None:
        """Whatever a file holds, the answer is a bundle or a MaterialError."""
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            try:
                bundle = load_bundle(Path(file.name), None, NOW)
            except MaterialError as error:
                assert error.role in {"cert", "key"}  # noqa: PT017  # the other way out is a bundle
            else:
                assert isinstance(bundle, Bundle)
