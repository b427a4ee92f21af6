"""What holds for key material however it was damaged: generated input."""

from __future__ import annotations

import base64
import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, pkcs12
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.certs.anchors import load_anchors, load_crls
from sidecar.certs.bundle import load_bundles
from sidecar.errors import MaterialError
from sidecar.settings import Inline, Source
from tests.support.certs import (
    NOW,
    authority,
    der,
    ed25519_key,
    intermediate,
    keystore,
    pem,
    reveals,
    revocation_list,
)

PASSPHRASE = "correct horse"
ISSUED = intermediate().issue("app.example", key=ed25519_key())  # the shortest key is the easiest to show in passing
ROOT = authority().certificate
CRL = revocation_list(authority(), ISSUED.certificate)

# Few rounds: it is opened hundreds of times.
_ENCRYPTION = (
    PrivateFormat.PKCS12.encryption_builder()
    .kdf_rounds(1)
    .key_cert_algorithm(pkcs12.PBES.PBESv2SHA256AndAES256CBC)
    .hmac_hash(hashes.SHA256())
    .build(PASSPHRASE.encode())
)
_STORE = keystore(ISSUED, encryption=_ENCRYPTION)
_CERT, _KEY = ISSUED.cert_pem, ISSUED.key_pem
_EC = intermediate().issue("ec.example")
_LOCKED = _EC.encrypted_key_pem(PrivateFormat.TraditionalOpenSSL)
_CRL = CRL.public_bytes(Encoding.PEM)


def _json(**fields: bytes) -> bytes:
    return json.dumps({name: data.decode() for name, data in fields.items()}).encode()


FORMS = {
    "PEM": _CERT + _KEY,
    "escaped": (_CERT + _KEY).replace(b"\n", b"\\n"),
    "blanks": (_KEY + _CERT).replace(b"\n", b" "),
    "encrypted": _EC.cert_pem + _EC.encrypted_key_pem(),
    "traditional": _EC.cert_pem + _LOCKED,
    "DER": der(ISSUED.certificate),
    "DER of a key": ISSUED.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
    "PKCS#12": _STORE,
    "base64 of PEM": base64.b64encode(_CERT + _KEY),
    "base64 of a key": b"".join(_KEY.splitlines()[1:-1]),
    "base64 of PKCS#12": base64.encodebytes(_STORE),
    "JSON": _json(certificate=_CERT, private_key=_KEY, ca=pem(ROOT), crl=_CRL),
    "JSON of base64": _json(crt=base64.b64encode(_CERT), key=base64.b64encode(_KEY), crl=base64.b64encode(_CRL)),
    "JSON of PKCS#12": _json(p12=base64.b64encode(_STORE), password=PASSPHRASE.encode()),
    "CAs": pem(ROOT, intermediate().certificate),
    "CRLs": _CRL + revocation_list(intermediate()).public_bytes(Encoding.PEM),
    "base64 of a CRL": base64.b64encode(der(CRL)),
}

_LETTERS = b'ABCDabcd0189+/=-\n \\{}":,'


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """What is left of *whole* after a few flips, cuts, repeats and insertions."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        match draw(st.sampled_from(["flip", "letter", "cut", "behead", "drop", "insert", "repeat"])):
            case "flip" if data:
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "letter" if data:
                data[at] = draw(st.sampled_from(_LETTERS))
            case "cut":
                del data[at:]
            case "behead":
                del data[:at]
            case "drop":
                del data[at : at + draw(st.integers(1, 80))]
            case "insert":
                data[at:at] = draw(st.binary(max_size=20) | st.sampled_from([b"-----", b"\n", b"\\n", b'"', b"{"]))
            case _:
                data += data[at : at + 2000]
    return bytes(data)


def check_message(error: MaterialError, data: bytes) -> None:
    """The role is one that callers know, and the text shows nothing of what was given."""
    assert error.role in {"cert", "key", "ca", "crl", "passphrase"}
    message = str(error)
    assert PASSPHRASE not in message
    for run in re.findall(r"[A-Za-z0-9+/=]{20,}", message):
        assert not reveals(run, data.decode("latin-1"))
    assert len(message) < 1500


def attempt(step: Callable[[], object], data: bytes) -> object:
    try:
        return step()
    except MaterialError as error:
        check_message(error, data)
        return None


def try_all(source: Source, data: bytes) -> None:
    """Use *source* for everything that it could be given as."""
    passphrase = Inline(PASSPHRASE)
    own = Inline(_CERT.decode())
    for certs, keys, password in (
        ((source,), (), passphrase),
        ((own,), (source,), None),
        ((own,), (Inline(_LOCKED.decode()),), source),
    ):
        bundles, found = load_bundles(certs, keys, password, NOW)
        assert (len(bundles) == 1) == (not found)
        for error in found:
            check_message(error, data)
    attempt(lambda: load_anchors(source, NOW, passphrase=passphrase), data)
    attempt(lambda: load_crls(source, [ROOT, intermediate().certificate], NOW), data)


@pytest.mark.parametrize("form", FORMS)
class TestDamagedForms:
    @settings(deadline=None, max_examples=60)
    @given(data=st.data())
    def test_file_loads_or_is_refused_without_being_shown(self, form: str, data: st.DataObject) -> None:
        """Whatever a file holds, the answer is key material or a MaterialError that repeats nothing of it."""
        content = data.draw(damaged(FORMS[form]))
        with tempfile.NamedTemporaryFile() as file:
            file.write(content)
            file.flush()
            try_all(Path(file.name), content)

    @settings(deadline=None, max_examples=60)
    @given(data=st.data())
    def test_value_loads_or_is_refused_without_being_shown(self, form: str, data: st.DataObject) -> None:
        """The same of a value, also one that is taken for a path."""
        content = data.draw(damaged(FORMS[form]))
        text = content.decode("utf-8", "surrogateescape")
        try_all(Inline(text), content)
        try_all(Path(text), content)
