"""`certs.keys`: keys and keystores of every make, opened or refused with the reason."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    pkcs12,
)

from sidecar.certs.certificates import certificates
from sidecar.certs.forms import parse
from sidecar.certs.items import Contents, Kind, Password, PrivateKey
from sidecar.certs.keys import open_keystores, private_key
from sidecar.certs.sources import Given
from sidecar.errors import MaterialError
from tests.support.certs import (
    Issued,
    authority,
    ecdsa_key,
    ed25519_key,
    intermediate,
    keystore,
    pem,
    rsa_key,
    signing_request,
    truststore,
)

ISSUED = intermediate().issue("app.example", key=rsa_key())
PASSWORD = Password("the password in P", "passphrase", b"secret")
WRONG = Password("the password in W", "passphrase", b"wrong")
OWN = Password("the password in X", "key", b"other")


def contents_of(data: bytes, role: str = "key") -> Contents:
    return parse(Given(role, "X", Path("X"), data))


def key_of(data: bytes, *passwords: Password) -> PrivateKey:
    return private_key(open_keystores(contents_of(data), passwords), passwords)


def refusal_of(data: bytes, *passwords: Password) -> MaterialError:
    with pytest.raises(MaterialError) as caught:
        key_of(data, *passwords)
    assert "secret" not in str(caught.value)
    return caught.value


def is_key_of(key: PrivateKey, issued: Issued) -> bool:
    return key.public_key() == issued.key.public_key()


KEYS = [
    pytest.param(rsa_key, id="RSA 2048"),
    pytest.param(ecdsa_key, id="P-256"),
    pytest.param(lambda: ecdsa_key(ec.SECP384R1()), id="P-384"),
    pytest.param(lambda: ecdsa_key(ec.SECP521R1()), id="P-521"),
    pytest.param(ed25519_key, id="Ed25519"),
]


_ED25519 = ed25519_key().private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


class TestPrivateKey:
    @pytest.mark.parametrize("key", KEYS)
    @pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
    @pytest.mark.parametrize("password", [None, b"secret"])
    def test_supported_key_is_parsed(
        self, key: Callable[[], PrivateKey], encoding: Encoding, password: bytes | None
    ) -> None:
        """RSA from 2048 bits, the three NIST curves and Ed25519, as PKCS#8 with and without a password."""
        issued = authority().issue("app", key=key())
        encryption = NoEncryption() if password is None else BestAvailableEncryption(password)
        data = issued.key.private_bytes(encoding, PrivateFormat.PKCS8, encryption)
        assert is_key_of(key_of(data, PASSWORD), issued)

    @pytest.mark.parametrize("key", [rsa_key, ecdsa_key])
    @pytest.mark.parametrize("is_encrypted", [True, False])
    def test_traditional_key_is_parsed(self, key: Callable[[], PrivateKey], is_encrypted: bool) -> None:
        """BEGIN RSA PRIVATE KEY and BEGIN EC PRIVATE KEY are keys, also after EC PARAMETERS."""
        issued = authority().issue("app", key=key())
        text = issued.traditional_key_pem
        if is_encrypted:
            text = issued.encrypted_key_pem(PrivateFormat.TraditionalOpenSSL)
        parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
        assert is_key_of(key_of(parameters + text, PASSWORD), issued)

    @pytest.mark.parametrize("passwords", [(WRONG, PASSWORD), (PASSWORD, WRONG), (OWN, WRONG, PASSWORD)])
    def test_each_password_is_tried(self, passwords: tuple[Password, ...]) -> None:
        """One that came with the key, and one for all keys."""
        assert is_key_of(key_of(ISSUED.encrypted_key_pem(), *passwords), ISSUED)

    @pytest.mark.parametrize("format", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
    def test_missing_password_is_named(self, format: PrivateFormat) -> None:
        """An encrypted key without a password is the key's problem."""
        error = refusal_of(ISSUED.encrypted_key_pem(format))
        assert (error.role, error.fact) == ("key", "the private key in X is encrypted, and no password is given")

    @pytest.mark.parametrize("format", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
    def test_wrong_password_is_the_passphrases_fault(self, format: PrivateFormat) -> None:
        """The message says which password does not open what."""
        error = refusal_of(ISSUED.encrypted_key_pem(format), WRONG)
        assert error.role == "passphrase"
        assert error.fact == "the password in W does not open the private key in X"

    def test_several_wrong_passwords_are_all_named(self) -> None:
        """Both places are suspected."""
        error = refusal_of(ISSUED.encrypted_key_pem(), OWN, WRONG)
        assert error.fact == "neither the password in X nor the password in W opens the private key in X"

    def test_password_that_came_with_the_key_is_the_keys_fault(self) -> None:
        """Where the only password was in the same JSON, that is what must be mended."""
        assert refusal_of(ISSUED.encrypted_key_pem(), OWN).role == "key"

    @pytest.mark.parametrize(
        "data",
        [
            b"-----BEGIN PRIVATE KEY-----\nTopSecretA==\n-----END PRIVATE KEY-----\n",
            b"-----BEGIN PRIVATE KEY-----\nTopSecretA*=\n-----END PRIVATE KEY-----\n",
            b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nTopSecretA==\n-----END ENCRYPTED PRIVATE KEY-----\n",
            ISSUED.encrypted_key_pem().replace(b"\n-----END", b"*\n-----END"),
            _ED25519.replace(b"\x06\x03\x2b\x65\x70", b"\x06\x03\x2b\x65\x71"),
        ],
        ids=["not DER", "not base64", "encrypted", "encrypted and not base64", "Ed448 of the wrong length"],
    )
    def test_damaged_key_is_not_the_passwords_fault(self, data: bytes) -> None:
        """A damaged key is refused as such, and nothing of it is shown."""
        error = refusal_of(data, PASSWORD)
        assert (error.role, error.fact) == ("key", "the private key in X is damaged or of an unknown kind")
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
    def test_unsupported_key_is_named(self, key: Callable[[], dsa.DSAPrivateKey], name: str) -> None:
        """A key of another kind or size is refused by name, with the kinds that serve."""
        error = refusal_of(key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        assert error.fact == f"the private key in X is {name}, which is not supported"
        assert "P-256" in error.fix

    def test_openssh_key_gets_command(self) -> None:
        """The form of ssh-keygen is recognised."""
        data = ecdsa_key().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        assert "ssh-keygen -p -m PEM -f X" in refusal_of(data).fix

    @pytest.mark.parametrize(
        ("data", "label", "advice"),
        [
            pytest.param(pem(ISSUED.certificate), "CERTIFICATE", "swapped", id="certificate"),
            pytest.param(
                rsa_key().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
                "PUBLIC KEY",
                "that this public key was made from",
                id="public key",
            ),
            pytest.param(
                signing_request().public_bytes(Encoding.PEM), "CERTIFICATE REQUEST", "made with", id="request"
            ),
            pytest.param(
                b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n",
                "EC PARAMETERS",
                "BEGIN PRIVATE KEY",
                id="parameters",
            ),
        ],
    )
    def test_something_else_is_named(self, data: bytes, label: str, advice: str) -> None:
        """What is no private key is called what it is, with advice that fits."""
        error = refusal_of(data)
        assert (error.role, error.fact) == ("key", f"X holds no private key, only: {label}")
        assert advice in error.fix


_LEGACY = (
    PrivateFormat.PKCS12.encryption_builder()
    .kdf_rounds(2000)
    .key_cert_algorithm(pkcs12.PBES.PBESv1SHA1And3KeyTripleDESCBC)
    .hmac_hash(hashes.SHA1())
    .build(b"secret")
)


class TestOpenKeystores:
    @pytest.mark.parametrize(
        ("password", "encryption", "passwords"),
        [
            pytest.param(b"secret", None, (PASSWORD,), id="password"),
            pytest.param(b"secret", None, (WRONG, PASSWORD), id="second password"),
            pytest.param(b"secret", _LEGACY, (PASSWORD,), id="3DES"),
            pytest.param(None, None, (), id="unencrypted"),
            pytest.param(None, None, (PASSWORD,), id="unencrypted with a password given"),
        ],
    )
    def test_key_and_certificates_are_found(
        self, password: bytes | None, encryption: KeySerializationEncryption | None, passwords: tuple[Password, ...]
    ) -> None:
        """A keystore stands for what is in it: its key, and all its certificates."""
        others = (intermediate().certificate, authority().certificate)
        contents = contents_of(keystore(ISSUED, password, others, encryption), "cert")
        opened = open_keystores(contents, passwords)
        assert not opened.has(Kind.PKCS12)
        assert is_key_of(private_key(opened, ()), ISSUED)
        assert set(certificates(opened)) == {ISSUED.certificate, *others}

    def test_truststore_has_no_key(self) -> None:
        """A keystore may hold nothing but certificates."""
        opened = open_keystores(contents_of(truststore(authority().certificate)), [PASSWORD])
        assert certificates(opened) == (authority().certificate,)
        with pytest.raises(MaterialError, match="X holds no private key, only: PKCS#12 certificate"):
            private_key(opened, ())

    def test_other_contents_are_left_alone(self) -> None:
        """Without a keystore nothing changes."""
        contents = contents_of(ISSUED.cert_pem)
        assert open_keystores(contents, [PASSWORD]) is contents

    def test_missing_password_is_named(self) -> None:
        """An encrypted keystore without a password is the problem of its own setting."""
        error = refusal_of(keystore(ISSUED))
        assert (error.role, error.fact) == ("key", "the PKCS#12 keystore in X is encrypted, and no password is given")

    def test_wrong_password_is_the_passphrases_fault(self) -> None:
        """The message says which password does not open what."""
        error = refusal_of(keystore(ISSUED), WRONG)
        assert error.role == "passphrase"
        assert error.fact == "the password in W does not open the PKCS#12 keystore in X"

    def test_password_of_odd_bytes_opens_nothing(self) -> None:
        """PKCS#12 passwords are text: other bytes are wrong ones, not an exception."""
        odd = Password("the password in P", "passphrase", b"\xff\xfe")
        assert "does not open" in refusal_of(keystore(ISSUED), odd).fact

    def test_short_key_inside_is_refused(self) -> None:
        """A keystore does not make a weak key better."""
        weak = authority().issue("app", key=rsa_key(1024))
        assert "is RSA 1024" in refusal_of(keystore(weak), PASSWORD).fact

    def test_encryption_without_support_gets_command(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where the library no longer has RC2, the way out is named."""

        def refuse(*_: object) -> None:
            raise UnsupportedAlgorithm("RC2")

        monkeypatch.setattr(pkcs12, "load_pkcs12", refuse)
        error = refusal_of(keystore(ISSUED), PASSWORD)
        assert "no longer supported" in error.fact
        assert "openssl pkcs12 -legacy -in X" in error.fix


def _without_openssl() -> bool:
    return shutil.which("openssl") is None and "TESTS_REQUIRE_TOOLS" not in os.environ


@pytest.mark.skipif(_without_openssl(), reason="no openssl command")
class TestOpensslCommand:
    @pytest.mark.parametrize("password", ["secret", ""])
    @pytest.mark.parametrize(
        "options",
        [
            pytest.param((), id="AES"),
            pytest.param(("-legacy",), id="RC2"),
            pytest.param(("-keypbe", "PBE-SHA1-3DES", "-certpbe", "PBE-SHA1-3DES", "-macalg", "sha1"), id="3DES"),
            pytest.param(("-keypbe", "NONE", "-certpbe", "NONE"), id="MAC only"),
            pytest.param(("-keypbe", "NONE", "-certpbe", "NONE", "-nomac"), id="nothing"),
        ],
    )
    def test_exported_keystore_is_opened(self, tmp_path: Path, options: tuple[str, ...], password: str) -> None:
        """What `openssl pkcs12 -export` writes is read, with its password or the empty one."""
        ISSUED.write(tmp_path)
        (tmp_path / "cas.pem").write_bytes(pem(authority().certificate))
        inputs = ["-in", tmp_path / "tls.crt", "-inkey", tmp_path / "tls.key", "-certfile", tmp_path / "cas.pem"]
        command = ["openssl", "pkcs12", "-export", *inputs, "-passout", f"pass:{password}", *options]
        done = subprocess.run(command, capture_output=True, check=True)
        opened = open_keystores(contents_of(done.stdout), [PASSWORD] if password else [])
        assert is_key_of(private_key(opened, ()), ISSUED)
        assert len(certificates(opened)) == 3

    @pytest.mark.parametrize(
        "options",
        [("-v2", "aes-256-cbc"), ("-v1", "PBE-SHA1-3DES"), ("-scrypt",), ("-v2", "des3")],
        ids=["PBES2 AES", "PBES1 3DES", "scrypt", "PBES2 3DES"],
    )
    def test_encrypted_key_is_opened(self, tmp_path: Path, options: tuple[str, ...]) -> None:
        """What `openssl pkcs8 -topk8` writes is read."""
        ISSUED.write(tmp_path)
        command = ["openssl", "pkcs8", "-topk8", "-in", tmp_path / "tls.key", "-passout", "pass:secret", *options]
        done = subprocess.run(command, capture_output=True, check=True)
        assert is_key_of(key_of(done.stdout, PASSWORD), ISSUED)
