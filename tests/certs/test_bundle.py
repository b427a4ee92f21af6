"""`certs.bundle`: each way key material can be wrong has a sentence of its own."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sidecar.certs.bundle import Bundle, load_bundles
from sidecar.certs.sources import MAX_FILE_BYTES
from sidecar.errors import MaterialError
from sidecar.settings import Inline, Source
from tests.support.certs import (
    CLIENT,
    DAY,
    NOW,
    Authority,
    Issued,
    authority,
    der,
    ecdsa_key,
    ed25519_key,
    intermediate,
    key_usage,
    keystore,
    make_root,
    other_authority,
    pem,
    rsa_key,
    self_signed,
)


def server() -> Issued:
    return intermediate().issue("app.example")


def load_bundle(cert: Source, key: Source | None, now: datetime, passphrase: Source | None = None) -> Bundle:
    """Load one that nothing is wrong with."""
    (bundle,), found = load_bundles((cert,), () if key is None else (key,), passphrase, now)
    assert found == []
    return bundle


def problems_of(cert: Source, key: Source | None = None, passphrase: Source | None = None) -> list[MaterialError]:
    """All that is wrong with one that cannot serve."""
    bundles, found = load_bundles((cert,), () if key is None else (key,), passphrase, NOW)
    assert bundles == ()
    assert found
    return found


def refusal_of(cert: Source, key: Source | None = None) -> MaterialError:
    """The first thing that is wrong."""
    return problems_of(cert, key)[0]


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
        issued = old.issue("app.example")
        issued.write(tmp_path)
        with (tmp_path / "tls.crt").open("ab") as file:
            file.write(pem(old.certificate))
        assert load_bundle(tmp_path, None, NOW).chain == (old.certificate,)

    def test_chain_in_any_order_is_sorted(self, tmp_path: Path) -> None:
        """The leaf is the certificate that the key belongs to; duplicates are dropped, strangers are set aside."""
        issued = server()
        issued.write(tmp_path)
        stranger = other_authority().certificate
        parts = (authority().certificate, stranger, *issued.chain, issued.certificate, *issued.chain)
        (tmp_path / "tls.crt").write_bytes(pem(*parts))
        bundle = load_bundle(tmp_path, None, NOW)
        assert (bundle.leaf, bundle.chain) == (issued.certificate, (*issued.chain, authority().certificate))
        assert bundle.extras == (stranger,)

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
    def test_text_is_of_no_form(self, tmp_path: Path) -> None:
        """Any text is said to be none of the forms."""
        (tmp_path / "c").write_text("hello\n")
        assert refusal_of(tmp_path / "c").fact.startswith(f"{tmp_path}/c is not PEM")

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

    def test_foreign_key_is_refused(self, tmp_path: Path) -> None:
        """A key that belongs to no certificate of the file does not match."""
        server().write(tmp_path)
        (tmp_path / "tls.key").write_bytes(server().key_pem)
        error = refusal_of(tmp_path)
        assert error.role == "key"
        assert "does not match the certificate in" in error.fact


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
            assert load_bundles((tmp_path,), (), None, NOW + DAY + offset)[0] == ()

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

    def test_short_rsa_key_in_chain_is_refused(self, tmp_path: Path) -> None:
        """An issuer with a short RSA key would fail each handshake, so it fails the start."""
        weak = authority().issue("Weak CA", key=rsa_key(1024))
        issued = Authority(weak.certificate, weak.key).issue("app.example", digest=hashes.SHA256())
        issued.write(tmp_path)
        assert issued.chain == (weak.certificate,)
        assert "RSA key of 1024 bits" in refusal_of(tmp_path).fact


class TestForms:
    """One value or file may hold everything, in any form."""

    @pytest.mark.parametrize(
        "wrap",
        [
            pytest.param(lambda issued: issued.cert_pem + issued.key_pem, id="PEM"),
            pytest.param(lambda issued: base64.b64encode(issued.key_pem + issued.cert_pem), id="base64"),
            pytest.param(lambda issued: base64.encodebytes(keystore(issued, None)), id="base64 of PKCS#12"),
            pytest.param(
                lambda issued: json.dumps(
                    {"tls.crt": issued.cert_pem.decode(), "tls.key": issued.key_pem.decode()}
                ).encode(),
                id="JSON",
            ),
            pytest.param(
                lambda issued: json.dumps(
                    {
                        "Certificate": pem(issued.certificate).decode(),
                        "CertificateChain": pem(*issued.chain).decode(),
                        "PrivateKey": issued.encrypted_key_pem().decode(),
                        "Passphrase": "secret",
                    }
                ).encode(),
                id="JSON with an encrypted key",
            ),
            pytest.param(
                lambda issued: json.dumps(
                    {"keystore.p12": base64.b64encode(keystore(issued)).decode(), "password": "secret"}
                ).encode(),
                id="JSON with a keystore",
            ),
        ],
    )
    @pytest.mark.parametrize("is_file", [True, False])
    def test_one_value_is_enough(self, tmp_path: Path, wrap: Callable[[Issued], bytes], is_file: bool) -> None:
        """Certificate, chain, key and password come in one piece."""
        issued = server()
        data = wrap(issued)
        (tmp_path / "whole.bin").write_bytes(data)
        source = tmp_path / "whole.bin" if is_file else Inline(data.decode())
        assert load_bundle(source, None, NOW) == issued.bundle

    @pytest.mark.parametrize("is_file", [True, False])
    def test_passphrase_opens_key_and_keystore(self, tmp_path: Path, is_file: bool) -> None:
        """One passphrase for whatever is encrypted, in a file or as a value."""
        issued = server()
        (tmp_path / "passphrase").write_bytes(b"secret\n")
        (tmp_path / "keystore.p12").write_bytes(keystore(issued))
        (tmp_path / "key.pem").write_bytes(issued.encrypted_key_pem())
        (tmp_path / "cert.der").write_bytes(der(issued.certificate))
        passphrase = tmp_path / "passphrase" if is_file else Inline("secret")
        assert load_bundle(tmp_path, None, NOW, passphrase) == issued.bundle
        assert load_bundle(tmp_path / "cert.der", tmp_path / "key.pem", NOW, passphrase).leaf == issued.certificate
        assert load_bundle(tmp_path / "cert.der", tmp_path / "keystore.p12", NOW, passphrase).chain == ()

    def test_password_in_the_certificates_json_opens_the_key_file(self, tmp_path: Path) -> None:
        """What came with the certificate is tried on its key as well."""
        issued = server()
        (tmp_path / "key.pem").write_bytes(issued.encrypted_key_pem())
        value = Inline(json.dumps({"cert": issued.cert_pem.decode(), "password": "secret"}))
        assert load_bundle(value, tmp_path / "key.pem", NOW) == issued.bundle

    def test_pem_pair_beside_a_keystore_is_preferred(self, tmp_path: Path) -> None:
        """cert-manager writes both into one directory; PEM needs no password."""
        issued = server()
        (issued.write(tmp_path) / "keystore.p12").write_bytes(keystore(issued))
        assert load_bundle(tmp_path, None, NOW) == issued.bundle

    def test_directory_with_one_file_of_both_loads(self, tmp_path: Path) -> None:
        """Where there is no tls.key, the key may be in tls.crt."""
        issued = server()
        (tmp_path / "tls.crt").write_bytes(issued.key_pem + issued.cert_pem)
        assert load_bundle(tmp_path, None, NOW) == issued.bundle

    def test_value_without_key_asks_for_it(self) -> None:
        """There is no place beside a value to look at."""
        error = refusal_of(Inline(server().cert_pem.decode()))
        assert error.role == "key"
        assert error.fact == "no private key: the value given as certificate holds none"

    def test_swapped_values_are_told_apart(self) -> None:
        """Certificate and key are named by what they were given as."""
        issued = server()
        found = problems_of(Inline(issued.key_pem.decode()), Inline(issued.cert_pem.decode()))
        assert [error.role for error in found] == ["cert", "key"]
        assert all("swapped" in error.fix for error in found)

    def test_wrong_passphrase_is_its_own_fault(self, tmp_path: Path) -> None:
        """It is the passphrase that must be corrected."""
        issued = server()
        issued.write(tmp_path)
        (tmp_path / "tls.key").write_bytes(issued.encrypted_key_pem())
        (error,) = problems_of(tmp_path, None, Inline("wrong"))
        assert error.role == "passphrase"
        assert error.fact == f"the password given does not open the private key in {tmp_path}/tls.key"

    def test_missing_passphrase_hides_what_follows_from_it(self, tmp_path: Path) -> None:
        """Without it, every encrypted key would be one more problem."""
        (tmp_path / "a.p12").write_bytes(keystore(server()))
        (error,) = problems_of(tmp_path / "a.p12", None, tmp_path / "missing")
        assert error.role == "passphrase"


class TestLoadBundles:
    def test_several_load_in_order(self, tmp_path: Path) -> None:
        """Each certificate finds the key that was given in the same place."""
        one, other = server(), authority().issue("other.example", key=rsa_key())
        one.write(tmp_path, "1.crt", "1.pem")
        certs = [tmp_path / "1.crt", Inline(other.cert_pem.decode())]
        keys = [tmp_path / "1.pem", Inline(other.key_pem.decode())]
        assert load_bundles(certs, keys, None, NOW) == ((one.bundle, other.bundle), [])

    def test_keys_beside_and_inside_are_found(self, tmp_path: Path) -> None:
        """Without keys, each certificate is looked at by itself."""
        one, other = server(), server()
        one.write(tmp_path, "1.crt", "1.key")
        certs = [tmp_path / "1.crt", Inline((other.cert_pem + other.key_pem).decode())]
        assert load_bundles(certs, [], None, NOW) == ((one.bundle, other.bundle), [])

    def test_none_is_none(self) -> None:
        """Nothing given is nothing loaded."""
        assert load_bundles([], [], None, NOW) == ((), [])

    @pytest.mark.parametrize(("certs", "keys"), [(2, 1), (1, 2), (0, 1)])
    def test_numbers_must_agree(self, certs: int, keys: int) -> None:
        """A key more or less leaves open which is whose."""
        bundles, (error,) = load_bundles([Inline("x")] * certs, [Inline("y")] * keys, None, NOW)
        assert (bundles, error.role) == ((), "key")
        assert error.fact == f"the numbers of keys, {keys}, and of certificates, {certs}, differ"

    def test_all_problems_name_their_certificate(self, tmp_path: Path) -> None:
        """A bad one names which; the good one between them is not mentioned, and can serve."""
        good = server()
        certs = [tmp_path / "missing.crt", Inline((good.cert_pem + good.key_pem).decode()), Inline("hello there")]
        bundles, found = load_bundles(certs, [], None, NOW)
        assert bundles == (good.bundle,)
        assert [error.fact.partition(" is ")[0].partition(" does ")[0] for error in found] == [
            f"{tmp_path}/missing.crt",
            "the value given as certificate 3",
        ]


class TestProblems:
    def test_missing_certificate_does_not_hide_a_missing_key(self, tmp_path: Path) -> None:
        """Both files are looked at, whatever is wrong with the first."""
        found = problems_of(tmp_path / "a.crt", tmp_path / "a.key")
        assert [error.role for error in found] == ["cert", "key"]

    def test_missing_certificate_without_a_key_is_one_problem(self, tmp_path: Path) -> None:
        """Where no key was named, none is missed."""
        assert [error.role for error in problems_of(tmp_path / "a.crt")] == ["cert"]

    def test_wrong_key_does_not_hide_expiry(self, tmp_path: Path) -> None:
        """A certificate is judged for itself, too."""
        directory = authority().issue("app", not_before=NOW - 9 * DAY, not_after=NOW - DAY).write(tmp_path)
        (directory / "tls.key").write_bytes(authority().issue("app").key_pem)
        found = problems_of(directory)
        assert [error.role for error in found] == ["key", "cert"]
        assert "expired" in found[1].fact
