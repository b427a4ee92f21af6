"""`certs.forms`: the same items in every form, and a sentence for each that is none."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from sidecar.certs.forms import MAX_JSON_DEPTH, MAX_LAYERS, parse, password_field
from sidecar.certs.items import Contents, Kind
from sidecar.certs.sources import MAX_FILE_BYTES, Given
from sidecar.errors import MaterialError
from tests.support.certs import authority, der, intermediate, keystore, pem, reveals, revocation_list, rsa_key

ISSUED = intermediate().issue("app.example", key=rsa_key())
BOTH = ISSUED.cert_pem + ISSUED.key_pem
CERT, KEY = ISSUED.cert_pem.decode(), ISSUED.key_pem.decode()
LEAF, ISSUER, ROOT = der(ISSUED.certificate), der(intermediate().certificate), der(authority().certificate)


def given(data: bytes | str, role: str = "cert", file: Path | None = None) -> Given:
    text = data.encode() if isinstance(data, str) else data
    return Given(role, "X" if file is None else str(file), file, text)


def parsed(data: bytes | str, role: str = "cert") -> Contents:
    return parse(given(data, role))


def refusal_of(data: bytes | str, role: str = "cert", file: Path | None = None) -> MaterialError:
    with pytest.raises(MaterialError) as caught:
        parse(given(data, role, file))
    assert caught.value.role == role
    return caught.value


def certificates_of(data: bytes | str, role: str = "cert") -> list[bytes]:
    return [item.data for item in parsed(data, role).of(Kind.CERTIFICATE)]


def b64(data: bytes | str) -> str:
    return base64.b64encode(data.encode() if isinstance(data, str) else data).decode()


WRAPPINGS: list[Callable[[bytes], bytes]] = [
    lambda text: text,
    lambda text: text.replace(b"\n", b"\r\n"),
    lambda text: text.replace(b"\n", b"\r"),
    lambda text: text.replace(b"\n", b"\\n"),
    lambda text: text.replace(b"\n", b"\\r\\n"),
    lambda text: text.replace(b"\n", b"\\\\n"),
    lambda text: text.replace(b"\n", b" "),
    lambda text: text.replace(b"\n", b""),
    lambda text: b'"' + text.replace(b"\n", b"\\n") + b'"',
    lambda text: b"'" + text + b"'\n",
    lambda text: b"\xef\xbb\xbf" + text,
    lambda text: text.decode().encode("utf-16"),
    lambda text: b"Bag Attributes\n  friendlyName: x\n" + text + b"# the end\n",
    base64.b64encode,
    base64.encodebytes,
    lambda text: base64.encodebytes(text).replace(b"\n", b" "),
    lambda text: base64.encodebytes(text).replace(b"\n", b"\\n"),
    lambda text: base64.b64encode(text).rstrip(b"="),
    lambda text: base64.b64encode(base64.b64encode(text)),
    lambda text: base64.b64encode(text.replace(b"\n", b"\\n")),
    lambda text: json.dumps({"certificate": text.decode()}).encode(),
    lambda text: b'{"cert": "' + text + b'"}',
    lambda text: json.dumps({"tls.crt": b64(text)}).encode(),
    lambda text: base64.b64encode(json.dumps({"tls.crt": b64(text)}).encode()),
]
_WRAPPING_IDS = (
    *("as it is", "CR LF", "CR", "escaped", "escaped CR LF", "escaped twice", "blanks", "one line", "quoted"),
    *("single quotes", "BOM", "UTF-16", "comments", "base64", "base64 lines", "base64 blanks", "base64 escaped"),
    *("base64 unpadded", "base64 twice", "base64 of escaped", "JSON", "JSON with line breaks", "JSON base64"),
    "base64 JSON base64",
)


class TestPem:
    @pytest.mark.parametrize("wrap", WRAPPINGS, ids=_WRAPPING_IDS)
    def test_items_are_the_same_in_every_wrapping(self, wrap: Callable[[bytes], bytes]) -> None:
        """However it was brought into a file or a variable, the chain and the key are found."""
        contents = parsed(wrap(BOTH))
        assert [item.data for item in contents.of(Kind.CERTIFICATE)] == [LEAF, ISSUER]
        (key,) = contents.of(Kind.PRIVATE_KEY)
        assert key.data == ISSUED.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())

    @pytest.mark.parametrize("wrap", WRAPPINGS, ids=_WRAPPING_IDS)
    def test_encrypted_traditional_key_is_restored(self, wrap: Callable[[bytes], bytes]) -> None:
        """The one form with headers inside its block comes back as OpenSSL wrote it, unless they ran together."""
        text = ISSUED.encrypted_key_pem(PrivateFormat.TraditionalOpenSSL)
        is_lost = wrap(b"\n") == b""
        (key,) = parsed(wrap(text)).of(Kind.PRIVATE_KEY)
        assert (key.data, key.is_encrypted) == ((b"", False) if is_lost else (text, True))

    @pytest.mark.parametrize(
        ("label", "kind"),
        [
            ("CERTIFICATE", Kind.CERTIFICATE),
            ("X509 CERTIFICATE", Kind.CERTIFICATE),
            ("TRUSTED CERTIFICATE", Kind.OTHER),
            ("CERTIFICATE REQUEST", Kind.REQUEST),
            ("NEW CERTIFICATE REQUEST", Kind.REQUEST),
            ("X509 CRL", Kind.CRL),
            ("PRIVATE KEY", Kind.PRIVATE_KEY),
            ("ENCRYPTED PRIVATE KEY", Kind.PRIVATE_KEY),
            ("EC PRIVATE KEY", Kind.PRIVATE_KEY),
            ("OPENSSH PRIVATE KEY", Kind.PRIVATE_KEY),
            ("RSA PUBLIC KEY", Kind.PUBLIC_KEY),
            ("PKCS12", Kind.PKCS12),
            ("EC PARAMETERS", Kind.OTHER),
            ("PKCS #7 SIGNED DATA", Kind.OTHER),
        ],
    )
    def test_label_tells_the_kind(self, label: str, kind: Kind) -> None:
        """A block is what its label says."""
        (item,) = parsed(f"-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n").items
        assert (item.kind, item.label, item.data) == (kind, label, b"\0\0\0")
        assert item.is_encrypted == (label == "ENCRYPTED PRIVATE KEY")

    @pytest.mark.parametrize("body", ["A", "AA*A", "AAAA=AAA", "", "Proc-Type: 4,ENCRYPTED\n\nAAAA"])
    def test_damaged_block_does_not_hide_the_others(self, body: str) -> None:
        """It may be one that nobody needs; whoever needs it will find it empty."""
        contents = parsed(CERT + f"-----BEGIN DH PARAMETERS-----\n{body}\n-----END DH PARAMETERS-----\n")
        assert [item.data for item in contents.items] == [LEAF, ISSUER, b""]

    @pytest.mark.parametrize(
        "data",
        [
            BOTH[:-40],
            BOTH.replace(b"-----END CERTIFICATE-----", b"", 1),
            BOTH.replace(b"-----END PRIVATE", b"-----END EC PRIVATE"),
        ],
        ids=["end", "middle", "label"],
    )
    def test_cut_text_is_refused(self, data: bytes) -> None:
        """A BEGIN line without its END line means that something is missing."""
        assert "X is cut short or damaged" in refusal_of(data).fact

    @pytest.mark.parametrize(
        "data",
        [b"-----BEGIN A-----" * 60_000, b"\\" * MAX_FILE_BYTES, b"-" * MAX_FILE_BYTES, b" \n" * 500_000 + b"/"],
        ids=["markers", "backslashes", "dashes", "blanks"],
    )
    def test_hostile_repetition_costs_linear_time(self, data: bytes) -> None:
        """A megabyte of the worst takes less than a second or two, where quadratic time would take hours."""
        start = time.process_time()
        refusal_of(data)
        assert time.process_time() - start < 5


class TestDer:
    def test_certificate_is_found(self) -> None:
        """DER is one item."""
        assert certificates_of(LEAF) == [LEAF]
        assert certificates_of(LEAF + b"\n") == [LEAF]

    @pytest.mark.parametrize("wrap", [base64.b64encode, base64.encodebytes])
    @pytest.mark.parametrize("data", [LEAF, keystore(ISSUED)], ids=["certificate", "PKCS#12"])
    def test_base64_of_it_is_found(self, data: bytes, wrap: Callable[[bytes], bytes]) -> None:
        """Binary forms come as base64 in variables."""
        (item,) = parsed(wrap(data)).items
        assert item.data == data

    @pytest.mark.parametrize(("data", "what"), [(LEAF, "DER certificate"), (keystore(ISSUED), "PKCS#12")])
    def test_cut_short_is_counted(self, data: bytes, what: str) -> None:
        """What is missing of DER is known exactly."""
        fact = refusal_of(data[:-30]).fact
        assert fact == f"X is {what} that is cut short: it has {len(data) - 30} of {len(data)} bytes"

    def test_more_after_its_end_is_refused(self) -> None:
        """Two files in one are not DER."""
        assert "more follows after its end" in refusal_of(LEAF + ISSUER).fact

    def test_java_keystore_gets_command(self, tmp_path: Path) -> None:
        """JKS is recognised, and can be converted."""
        error = refusal_of(bytes.fromhex("feedfeed00000002"), file=tmp_path / "a.jks")
        assert "Java keystore" in error.fact
        assert f"keytool -importkeystore -srckeystore {tmp_path}/a.jks" in error.fix


_ROOT, _ISSUER, _OWN = (pem(it.certificate).decode() for it in (authority(), intermediate(), ISSUED))
_ACM = {"Certificate": _OWN, "CertificateChain": _ISSUER + _ROOT, "PrivateKey": KEY}
_KUBERNETES = {"data": {"tls.crt": b64(CERT), "tls.key": b64(KEY), "ca.crt": b64(_ROOT)}, "kind": "Secret"}
_VAULT = {
    "certificate": _OWN.strip(),
    "issuing_ca": _ISSUER.strip(),
    "ca_chain": [_ISSUER.strip(), _ROOT.strip()],
    "private_key": KEY.strip(),
    "private_key_type": "rsa",
    "expiration": 1_900_000_000,
}


class TestJson:
    @pytest.mark.parametrize(
        ("fields", "expected"),
        [
            pytest.param(_ACM, [LEAF, ISSUER, ROOT], id="ACM export"),
            pytest.param(_KUBERNETES, [LEAF, ISSUER, ROOT], id="Kubernetes secret"),
            pytest.param({"tls.crt": CERT, "tls.key": KEY, "ca.crt": ""}, [LEAF, ISSUER], id="Kubernetes data"),
            pytest.param(_VAULT, [LEAF, ISSUER, ISSUER, ROOT], id="Vault"),
            pytest.param({"request_id": "1", "data": _VAULT}, [LEAF, ISSUER, ISSUER, ROOT], id="Vault answer"),
            pytest.param({"CERT": CERT, "privateKey": KEY, "x": None}, [LEAF, ISSUER], id="plain"),
            pytest.param({"crt": b64(LEAF), "key": KEY, "chain": b64(ISSUER)}, [LEAF, ISSUER], id="DER"),
            pytest.param({"fullchain": CERT.replace("\n", "\\n"), "PRIVATE-KEY": KEY}, [LEAF, ISSUER], id="escaped"),
            pytest.param({"chain": CERT, "key": KEY}, [LEAF, ISSUER], id="chain only"),
        ],
    )
    def test_fields_are_known_by_their_usual_names(self, fields: dict[str, object], expected: list[bytes]) -> None:
        """What secret managers write is understood: certificate, chain and key."""
        contents = parsed(json.dumps(fields))
        assert [item.data for item in contents.of(Kind.CERTIFICATE)] == expected
        assert len(contents.of(Kind.PRIVATE_KEY)) == 1
        assert [item.data for item in parsed(json.dumps(fields), "key").items] == [
            item.data for item in contents.of(Kind.PRIVATE_KEY)
        ]

    @pytest.mark.parametrize("name", ["passphrase", "Password", "keyPassword", "KEYSTORE_PASSWORD", "private"])
    def test_password_comes_along(self, name: str) -> None:
        """A keystore and its password are in one value; what is not called a password is none."""
        contents = parsed(json.dumps({"keystore": b64(keystore(ISSUED)), name: "secret"}))
        assert [item.kind for item in contents.items] == [Kind.PKCS12]
        if name == "private":
            assert contents.password is None
        else:
            assert contents.password is not None
            assert (contents.password.secret, contents.password.role) == (b"secret", "cert")
            assert contents.password.name == "the password in X"

    def test_pem_is_preferred_to_a_keystore_with_the_same(self) -> None:
        """cert-manager keeps both; PEM needs no password."""
        fields = {"keystore.p12": b64(keystore(ISSUED)), "tls.crt": CERT, "tls.key": KEY}
        assert not parsed(json.dumps(fields)).has(Kind.PKCS12)

    @pytest.mark.parametrize(
        ("fields", "expected"),
        [
            ({"certificate": _OWN, "issuing_ca": _ROOT}, [ROOT]),
            ({"certificate": _ROOT}, [ROOT]),
            ({"tls.crt": CERT, "ca.crt": b64(_ROOT)}, [ROOT]),
        ],
    )
    def test_ca_is_preferred_to_certificate(self, fields: dict[str, str], expected: list[bytes]) -> None:
        """As client CA, the CA of an answer is meant, and the certificate only if it is alone."""
        assert certificates_of(json.dumps(fields), "ca") == expected

    def test_revocation_lists_are_found(self) -> None:
        """Lists have a field of their own, of one or several."""
        lists = [revocation_list(authority()), revocation_list(intermediate())]
        data = json.dumps({"ca.crt": _ROOT, "CRL": [b64(der(crl)) for crl in lists]})
        assert [item.data for item in parsed(data, "crl").items] == [der(crl) for crl in lists]

    def test_item_knows_its_field(self) -> None:
        """A message can say which field it is about."""
        assert {item.field for item in parsed(json.dumps(_VAULT)).items} == {
            *("'certificate'", "'issuing_ca'", "'ca_chain'", "'private_key'")
        }

    def test_wrong_field_is_named(self) -> None:
        """What is wrong with one field is said of that field."""
        error = refusal_of(json.dumps({"certificate": CERT, "key": "changeme please"}))
        assert error.fact.startswith("X (field 'key') is not PEM")

    def test_nothing_usable_lists_names_only(self) -> None:
        """The names of fields help to find the mistake; values stay hidden."""
        error = refusal_of(json.dumps({"username": "hunter1", "certificat": "hunter2", "n": 5, CERT: "hunter3"}))
        assert error.fact == (
            "X is JSON without a field for this; its fields with text: 'username', 'certificat', (not shown)"
        )
        assert error.fix == "call the field certificate"

    def test_list_of_names_is_bounded(self) -> None:
        """Ten thousand fields make no message of ten thousand names."""
        error = refusal_of(json.dumps({f"field{number}": "x" for number in range(10_000)}))
        assert len(error.fact) < 300

    @pytest.mark.parametrize("text", ["{}", '{"certificate": null}', '{"certificate": []}', '{"certificate": " "}'])
    def test_nothing_at_all_is_said(self, text: str) -> None:
        """An empty object has no fields to list."""
        assert refusal_of(text).fact.endswith("fields with text: none")

    @pytest.mark.parametrize(
        "text",
        ['{"a"', "{'a': 'b'}", '{"a": ' * 200_000, '{"a": ' + "1" * 10_000 + "}", "{", '{"a": "b"} {'],
        ids=["cut", "single quotes", "deep", "long number", "brace", "two"],
    )
    def test_damaged_json_is_refused(self, text: str) -> None:
        """Whatever a parser stumbles over is one sentence."""
        assert refusal_of(text).fact == "X is JSON that is damaged"

    @pytest.mark.parametrize(("depth", "fits"), [(MAX_JSON_DEPTH, True), (MAX_JSON_DEPTH + 1, False)])
    def test_depth_is_bounded(self, depth: int, fits: bool) -> None:
        """Fields are looked for in objects inside objects, up to a limit."""
        fields: dict[str, object] = {"cert": CERT}
        for _ in range(depth - 1):
            fields = {"data": fields}
        if fits:
            assert certificates_of(json.dumps(fields)) == [LEAF, ISSUER]
        else:
            assert "without a field" in refusal_of(json.dumps(fields)).fact


class TestLayers:
    @pytest.mark.parametrize(("layers", "fits"), [(MAX_LAYERS, True), (MAX_LAYERS + 1, False)])
    def test_number_of_layers_is_bounded(self, layers: int, fits: bool) -> None:
        """Base64 of base64 ends somewhere."""
        data = pem(ISSUED.certificate)
        for _ in range(layers):
            data = base64.b64encode(data)
        if fits:
            assert certificates_of(data) == [LEAF]
        else:
            assert "is not PEM" in refusal_of(data).fact


class TestUnknownForms:
    @pytest.mark.parametrize(
        "text",
        ["hello", "hello world", "aGVsbG8gd29ybGQ=", "\0\1\2", "[]", '"', "0", "====", "BEGIN CERTIFICATE", "é" * 50],
    )
    def test_anything_else_is_of_no_form(self, text: str) -> None:
        """What decodes from base64 by chance is no better than what does not."""
        assert refusal_of(text).fact == "X is not PEM, DER, PKCS#12 or JSON, nor base64 of one"

    @pytest.mark.parametrize(
        "data",
        [
            b64(BOTH)[:-3] + "*",
            b64(BOTH)[:-3] + "\N{EM DASH}",
            b64(LEAF) + "A===",
            b64('{"cert": "abc"}').replace("Y", "?"),
        ],
        ids=["star", "dash", "padding", "JSON"],
    )
    def test_damaged_base64_is_recognised(self, data: str) -> None:
        """By its start, base64 of a known form is known even if it cannot be decoded."""
        assert refusal_of(data).fact == "X is not PEM; it looks like base64 that is damaged"

    @pytest.mark.parametrize(
        "text", ["/certs/tls.crt", "./tls.crt", "../a", "~/tls.key", "tls.crt", "C:\\a.pem", "file:///a", "certs/a.p12"]
    )
    def test_path_in_place_of_a_value_is_recognised(self, text: str) -> None:
        """A path to nowhere may arrive as a value; in a file it is no path."""
        error = refusal_of(text, "key")
        assert error.fact == "X is no key material; it looks like a path"
        assert "is not PEM" in refusal_of(text, "key", Path("/a")).fact

    @pytest.mark.parametrize("data", [KEY[40:], b64(KEY)[10:], KEY.replace("-----", "--"), json.dumps({"x": KEY})])
    def test_no_message_shows_the_value(self, data: str) -> None:
        """However a key was cut up, no part of it is repeated."""
        error = refusal_of(data, "key")
        assert not reveals(str(error), data)


class TestPasswordField:
    @pytest.mark.parametrize(
        ("data", "secret"),
        [
            (b'{"passphrase": "x"}', b"x"),
            (b' {"data": {"password": "x"}}', b"x"),
            (b'{"password": ["x", "y"]}', b"x"),
            (b'{"pass": "x"}', None),
            (b'{"password": 5}', None),
            (b'{"password"', None),
            (b'["password"]', None),
            (b"password", None),
            (b"", None),
        ],
    )
    def test_only_an_object_has_fields(self, data: bytes, secret: bytes | None) -> None:
        """Anything else is a password itself."""
        assert password_field(data) == secret
