"""`certs.items`: DER is told apart by its structure."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from sidecar.certs.items import Contents, Item, Kind, Password, der_item, der_size, is_der
from tests.support.certs import (
    Issued,
    authority,
    der,
    ecdsa_key,
    ed25519_key,
    keystore,
    revocation_list,
    rsa_key,
    self_signed,
    signing_request,
)

_PKCS8, _TRADITIONAL = PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL


def key_der(
    issued: Issued, format: PrivateFormat = _PKCS8, encryption: KeySerializationEncryption | None = None
) -> bytes:
    return issued.key.private_bytes(Encoding.DER, format, encryption or NoEncryption())


_RSA, _EC, _ED = (authority().issue("app", key=key) for key in (rsa_key(), ecdsa_key(), ed25519_key()))
_SECRET = BestAvailableEncryption(b"secret")

FORMS = [
    pytest.param(der(_EC.certificate), Kind.CERTIFICATE, id="certificate"),
    pytest.param(der(self_signed("a").certificate), Kind.CERTIFICATE, id="self-signed"),
    pytest.param(key_der(_RSA), Kind.PRIVATE_KEY, id="RSA PKCS#8"),
    pytest.param(key_der(_RSA, _TRADITIONAL), Kind.PRIVATE_KEY, id="RSA traditional"),
    pytest.param(key_der(_EC), Kind.PRIVATE_KEY, id="EC PKCS#8"),
    pytest.param(key_der(_EC, _TRADITIONAL), Kind.PRIVATE_KEY, id="EC traditional"),
    pytest.param(key_der(_ED), Kind.PRIVATE_KEY, id="Ed25519"),
    pytest.param(key_der(_EC, encryption=_SECRET), Kind.PRIVATE_KEY, id="encrypted"),
    pytest.param(keystore(_EC), Kind.PKCS12, id="PKCS#12"),
    pytest.param(keystore(_ED, None), Kind.PKCS12, id="PKCS#12 without password"),
    pytest.param(der(revocation_list(authority())), Kind.CRL, id="CRL"),
    pytest.param(der(revocation_list(authority(), _EC.certificate)), Kind.CRL, id="CRL with entries"),
    pytest.param(der(signing_request()), Kind.REQUEST, id="request"),
    pytest.param(
        _RSA.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        Kind.PUBLIC_KEY,
        id="public key",
    ),
    # Content type signedData, as in the files of certificates that Windows calls .p7b.
    pytest.param(bytes.fromhex("300f06092a864886f70d010702a0020500"), Kind.OTHER, id="PKCS#7"),
]


class TestDerItem:
    @pytest.mark.parametrize(("data", "kind"), FORMS)
    def test_kind_is_told_by_structure(self, data: bytes, kind: Kind) -> None:
        """Each form is DER of its own size, and of its own kind."""
        assert is_der(data)
        assert der_size(data) == len(data)
        item = der_item(data)
        assert (item.kind, item.data) == (kind, data)

    @pytest.mark.parametrize(("data", "kind"), FORMS)
    def test_kind_is_told_of_what_is_cut_short(self, data: bytes, kind: Kind) -> None:
        """The start is enough, and says how much is missing."""
        assert is_der(data[:-5])
        assert der_size(data[:-5]) == len(data)
        assert der_item(data[:-5]).kind is kind

    def test_encryption_is_seen(self) -> None:
        """A key that takes a password is known before one is tried."""
        assert der_item(key_der(_EC, encryption=_SECRET)).is_encrypted
        assert not der_item(key_der(_EC)).is_encrypted

    def test_first_version_of_lists_and_certificates_is_known(self) -> None:
        """RFC 5280 sections 4.1 and 5.1: neither has a version field when it is of version 1."""
        crl, certificate = "3021301f3000300017003000", "301a3018020101300030003000"
        assert der_item(bytes.fromhex(crl)).kind is Kind.CRL
        assert der_item(bytes.fromhex(certificate)).kind is Kind.CERTIFICATE

    def test_keystore_of_marked_length_is_known(self) -> None:
        """BER, as some programs write keystores: the end is marked, so the size is not known before."""
        data = bytes.fromhex("30800201033080")
        assert is_der(data)
        assert der_size(data) is None
        assert der_item(data).kind is Kind.PKCS12

    @pytest.mark.parametrize("text", ["", "0", "00000000", "0: zero", "-----BEGIN", '{"a": 1}', "MIIB"])
    def test_text_is_not_der(self, text: str) -> None:
        """What starts with the digit 0, which is the byte of a SEQUENCE, is text if it goes on as text."""
        assert not is_der(text.encode())

    @given(st.binary(max_size=40).map(b"\x30".__add__) | st.binary(max_size=40))
    def test_any_bytes_have_a_kind(self, data: bytes) -> None:
        """No structure is too odd to be looked at."""
        assert der_item(data).kind in Kind
        size = der_size(data)
        assert size is None or size >= 2


class TestContents:
    def test_labels_are_named_once(self) -> None:
        """What a message lists is short."""
        items = [Item(Kind.PUBLIC_KEY, label, b"") for label in ("PUBLIC KEY", "EC PARAMETERS", "PUBLIC KEY")]
        contents = Contents("key", "a.pem", "a.pem", tuple(items))
        assert contents.labels() == "PUBLIC KEY, EC PARAMETERS"
        assert contents.of(Kind.PUBLIC_KEY) == items
        assert not contents.has(Kind.CERTIFICATE)

    def test_nothing_has_a_word(self) -> None:
        """An empty keystore is said to hold nothing."""
        assert Contents("key", "a.p12", "a.p12", ()).labels() == "nothing"

    def test_place_names_the_field(self) -> None:
        """In JSON, the place of an item is a field."""
        contents = Contents("key", "a.json", "a.json", ())
        assert contents.where(Item(Kind.CRL, "CRL", b"", field="'crl'")) == "a.json (field 'crl')"

    def test_error_is_of_its_role(self) -> None:
        """What is wrong with it is a matter of what it was given as."""
        error = Contents("crl", "a.crl", "a.crl", ()).error("it is odd", "replace it")
        assert (error.role, error.fact, error.fix) == ("crl", "it is odd", "replace it")

    def test_repr_hides_bytes_and_passwords(self) -> None:
        """Neither keys nor passwords are shown by whoever prints the values."""
        item = Item(Kind.PRIVATE_KEY, "PRIVATE KEY", b"hush", loaded=ecdsa_key())
        contents = Contents("key", "a.pem", "a.pem", (item,), Password("the password", "key", b"hush"))
        assert "hush" not in repr(contents)
        assert "EllipticCurve" not in repr(contents)
