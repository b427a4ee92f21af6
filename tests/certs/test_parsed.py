"""`certs.parsed`: what a file holds."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, pkcs12

from sidecar.certs.examine import examine
from sidecar.certs.items import Password
from sidecar.certs.parsed import KeyFile, list_files, parse_chain, read
from sidecar.errors import MaterialError
from tests.support.certs import (
    NOW,
    authority,
    intermediate,
    keystore,
    revocation_list,
    signing_request,
)

PASSWORD = Password("the password in pw", "passphrase", b"secret")
WRONG = Password("the password in pw", "passphrase", b"terces")

# It is opened hundreds of times.
FEW_ROUNDS = (
    PrivateFormat.PKCS12.encryption_builder()
    .kdf_rounds(1)
    .key_cert_algorithm(pkcs12.PBES.PBESv2SHA256AndAES256CBC)
    .hmac_hash(hashes.SHA256())
    .build(b"secret")
)


def block(label: str) -> bytes:
    return f"-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n".encode()


def write(directory: Path, content: bytes, name: str = "f.pem") -> Path:
    file = directory / name
    file.write_bytes(content)
    return file


class TestRead:
    @pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER], ids=["pem", "der"])
    @pytest.mark.parametrize("kind", ["certificate", "request", "crl", "key"])
    def test_each_kind_is_recognised(self, tmp_path: Path, encoding: Encoding, kind: str) -> None:
        """What it is follows from the content, not from the name."""
        leaf = authority().issue("localhost")
        made: dict[str, bytes] = {
            "certificate": leaf.certificate.public_bytes(encoding),
            "request": signing_request().public_bytes(encoding),
            "crl": revocation_list(authority()).public_bytes(encoding),
            "key": leaf.key.private_bytes(encoding, PrivateFormat.PKCS8, NoEncryption()),
        }
        contents = read(write(tmp_path, made[kind]))
        found = (contents.certificates, contents.requests, contents.crls, contents.keys)
        assert [len(items) for items in found] == [kind == name for name in ("certificate", "request", "crl", "key")]

    def test_pkcs12_needs_its_password(self, tmp_path: Path) -> None:
        """Without it there is nothing to see, and a wrong one is not shown."""
        leaf = intermediate().issue("ci")
        file = write(tmp_path, keystore(leaf), "c.p12")
        with pytest.raises(MaterialError, match=r"is encrypted, and no password is given; name the file .*-file$"):
            read(file)
        with pytest.raises(MaterialError, match="the password in pw does not open the PKCS#12 keystore") as refusal:
            read(file, WRONG)
        assert "terces" not in str(refusal.value)
        parsed = read(file, PASSWORD)
        assert parsed.certificates == (leaf.certificate, *leaf.chain)
        assert (parsed.keys[0].kind, parsed.keys[0].is_encrypted) == ("ECDSA P-256", True)

    def test_forms_of_the_server_are_read(self, tmp_path: Path) -> None:
        """What it serves with can be looked at, with the password that is in it."""
        leaf = intermediate().issue("a")
        store = json.dumps({"keystore.p12": base64.b64encode(keystore(leaf)).decode(), "password": "secret"})
        assert read(write(tmp_path, store.encode())).certificates == (leaf.certificate, *leaf.chain)

    @pytest.mark.parametrize("format", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL], ids=["pkcs8", "old"])
    def test_encrypted_key_stays_closed_without_password(self, tmp_path: Path, format: PrivateFormat) -> None:
        """It is a key, and what it is a key of needs the password."""
        file = write(tmp_path, authority().issue("a").encrypted_key_pem(format))
        assert read(file).keys == (KeyFile(None, is_encrypted=True),)
        assert read(file, PASSWORD).keys[0].kind == "ECDSA P-256"
        with pytest.raises(MaterialError, match="the password in pw does not open the private key"):
            read(file, WRONG)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            pytest.param(b"", "is empty", id="empty"),
            pytest.param(b"hello", "is not PEM, DER, PKCS#12 or JSON", id="text"),
            pytest.param(b"-----BEGIN CERTIFICATE-----\nAAAA\n", "cut short or damaged", id="cut"),
            pytest.param(block("CERTIFICATE"), "certificate 1 in .* is damaged", id="certificate"),
            pytest.param(block("PRIVATE KEY"), "the private key in .* is damaged", id="key"),
            pytest.param(block("CERTIFICATE REQUEST"), "the certificate request in .* is damaged", id="request"),
            pytest.param(block("X509 CRL"), "revocation list 1 in .* is damaged", id="crl"),
            pytest.param(b"\x30\x82\x02\x00\x02\x01\x03" + bytes(40), "is PKCS#12 that is cut short", id="pkcs12"),
            pytest.param(b"a" * (1024 * 1024 + 1), "over the limit of 1,048,576 bytes", id="huge"),
        ],
    )
    def test_what_cannot_be_read_is_a_sentence(self, tmp_path: Path, content: bytes, message: str) -> None:
        """Damage of any kind is named, with the file."""
        with pytest.raises(MaterialError, match=message) as refusal:
            read(write(tmp_path, content))
        assert "f.pem" in refusal.value.fact

    @pytest.mark.parametrize(
        ("path", "message"),
        [("none", "does not exist"), ("d.pem", "is a directory without"), ("a\x00b", "the path given as certificate")],
    )
    def test_what_cannot_be_opened_is_a_sentence(self, tmp_path: Path, path: str, message: str) -> None:
        """A wrong path is not a traceback."""
        (tmp_path / "d.pem").mkdir()
        with pytest.raises(MaterialError, match=message):
            read(tmp_path / path)

    def test_many_begin_lines_cost_little(self, tmp_path: Path) -> None:
        """A hostile file of a megabyte is refused, not searched for minutes."""
        line = b"-----BEGIN CERTIFICATE-----\n"
        with pytest.raises(MaterialError, match="cut short"):
            read(write(tmp_path, line * (1024 * 1024 // len(line))))

    def test_other_blocks_are_passed_over(self, tmp_path: Path) -> None:
        """Curve parameters, which openssl writes before a key, are no damage."""
        parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
        assert len(read(write(tmp_path, parameters + authority().key_pem)).keys) == 1

    @pytest.mark.parametrize("kind", ["certificate", "request", "crl", "pkcs12", "key"])
    def test_damage_anywhere_is_a_sentence(self, tmp_path: Path, kind: str) -> None:
        """Whatever octet is wrong: there is a report or our own error, never another one."""
        leaf = authority().issue("a.example", "10.0.0.1", "spiffe://ex.org/a")
        good = {
            "certificate": leaf.certificate.public_bytes(Encoding.DER),
            "request": signing_request().public_bytes(Encoding.DER),
            "crl": revocation_list(authority(), leaf.certificate).public_bytes(Encoding.DER),
            "pkcs12": keystore(leaf, encryption=FEW_ROUNDS),
            "key": leaf.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
        }[kind]
        # PKCS#12 costs the derivation of a key each time, and nearly all of it is one encrypted string.
        places = range(0, len(good), 40 if kind == "pkcs12" else 1)
        readable = 0
        for place in places:
            for octet in (good[place] ^ 0x01, 0xFF):
                file = write(tmp_path, good[:place] + bytes([octet]) + good[place + 1 :])
                try:
                    readable += len(examine(read(file, PASSWORD), NOW))
                except MaterialError:
                    pass
        assert readable < 2 * len(places)

    def test_private_key_is_not_kept(self, tmp_path: Path) -> None:
        """Of a key there is only the public half."""
        [key] = read(write(tmp_path, authority().key_pem)).keys
        assert key == KeyFile(authority().key.public_key(), is_encrypted=False)

    def test_odd_key_is_read_too(self, tmp_path: Path) -> None:
        """What the server would not take can still be looked at."""
        key = x25519.X25519PrivateKey.generate()
        file = write(tmp_path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        assert read(file).keys[0].kind == "X25519"


class TestParseChain:
    def test_damaged_certificate_of_a_peer_is_a_sentence(self) -> None:
        """A server can send what it likes."""
        assert parse_chain([authority().certificate.public_bytes(Encoding.DER)], "h:1")
        with pytest.raises(MaterialError, match="h:1 sent a certificate that is damaged"):
            parse_chain([b"\x30\x03junk"], "h:1")


class TestListFiles:
    def test_files_are_those_named_like_it(self, tmp_path: Path) -> None:
        """Others, and directories, are left out; the order is that of the names."""
        for name in ("tls.key", "tls.crt", "README", "issued.txt", "CA.PEM"):
            write(tmp_path, b"x", name)
        (tmp_path / "d.crt").mkdir()
        assert [file.name for file in list_files(tmp_path)] == ["CA.PEM", "tls.crt", "tls.key"]

    def test_empty_or_huge_directory_is_refused(self, tmp_path: Path) -> None:
        """There is something to say, and not too much."""
        with pytest.raises(MaterialError, match=r"holds no file with one of the endings .*\.crt"):
            list_files(tmp_path)
        for number in range(51):
            write(tmp_path, b"x", f"{number}.crt")
        with pytest.raises(MaterialError, match="holds 51 such files, the limit is 50"):
            list_files(tmp_path)
        (tmp_path / "0.crt").unlink()
        assert len(list_files(tmp_path)) == 50

    def test_unreadable_directory_is_a_sentence(self, tmp_path: Path) -> None:
        """As a file would be."""
        with pytest.raises(MaterialError, match="cannot be read"):
            list_files(tmp_path / "none")
