"""
Ensures that keys and certificates are taken in the forms that secret managers hand them out in, as values of variables;
that nothing of a secret can be found afterwards; and that what cannot be used says why, without showing itself.
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import attrs
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from sidecar.certs.items import PrivateKey
from tests.scenarios.clients import HttpsClient, client_context, s_client, write_identity
from tests.scenarios.conftest import Launch
from tests.support.apps import App
from tests.support.certs import (
    CLIENT,
    DAY,
    NOW,
    Issued,
    authority,
    der,
    ecdsa_key,
    ed25519_key,
    intermediate,
    keystore,
    other_authority,
    pem,
    reveals,
    revocation_list,
    rsa_key,
    truststore,
)
from tests.support.program import ROOT, Port, Program, environment, run_to_end

PASSWORD = "correct horse battery staple"

Settings = dict[str, Any]


def b64(data: bytes) -> str:
    """Base64 on one line."""
    return base64.b64encode(data).decode()


def key_der(issued: Issued) -> bytes:
    """The key as PKCS#8 in DER."""
    return issued.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def sec1_der(issued: Issued) -> bytes:
    """The key as `openssl ec -outform DER` writes it."""
    return issued.key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())


def encrypted_key(issued: Issued, format: PrivateFormat = PrivateFormat.PKCS8) -> str:
    """The key as PEM under `PASSWORD`."""
    return issued.key.private_bytes(Encoding.PEM, format, BestAvailableEncryption(PASSWORD.encode())).decode()


def served(program: Program, *arguments: str) -> list[x509.Certificate]:
    """The certificates that the sidecar sends, as `openssl s_client -showcerts` prints them."""
    done = s_client(program, "-showcerts", *arguments)
    assert "HTTP/1.1 200 OK" in done.stdout, done.stderr
    blocks = re.findall(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", done.stdout, re.DOTALL)
    return [x509.load_pem_x509_certificate(block.encode()) for block in blocks]


# -- forms -------------------------------------------------------------------------------------------------------


@attrs.frozen
class Form:
    """
    A form of key material.

    Attributes:
        settings: From a server's certificate and key, and the CA of clients.
        sent: How many certificates the server sends then: leaf, intermediate, root.
    """

    settings: Callable[[Issued, Issued], Settings]
    sent: int = 2


def _escaped(text: bytes, line_break: str = "\\n") -> str:
    return text.decode().replace("\n", line_break)


def _acm(server: Issued, ca: Issued) -> Settings:
    """What `aws acm export-certificate` prints."""
    exported = {
        "Certificate": pem(server.certificate).decode(),
        "CertificateChain": pem(*server.chain).decode(),
        "PrivateKey": encrypted_key(server),
    }
    return {"tls_cert": json.dumps(exported), "tls_key_password": PASSWORD, "client_ca": ca.cert_pem.decode()}


def _vault(server: Issued, ca: Issued) -> Settings:
    """What `vault write -format=json pki/issue/ROLE` prints."""
    answer = {
        "request_id": "6c2a4f0e-0c64-4e2a-9f67-0a9c1de0f3ad",
        "lease_duration": 0,
        "data": {
            "certificate": pem(server.certificate).decode(),
            "issuing_ca": pem(*server.chain).decode(),
            "ca_chain": [pem(one).decode() for one in server.chain],
            "private_key": server.traditional_key_pem.decode(),
            "private_key_type": "rsa",
            "serial_number": "39:dd:2e",
        },
    }
    ca_answer = {"data": {"issuing_ca": ca.cert_pem.decode(), "ca_chain": [ca.cert_pem.decode()]}}
    return {"tls_cert": json.dumps(answer), "client_ca": json.dumps(ca_answer)}


def _kubernetes(server: Issued, ca: Issued) -> Settings:
    """What `kubectl get secret -o json` prints."""
    data = {"tls.crt": b64(server.cert_pem), "tls.key": b64(server.key_pem), "ca.crt": b64(ca.cert_pem)}
    secret = {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "data": data}
    return {"tls_cert": json.dumps(secret, indent=4), "client_ca": json.dumps(secret)}


def _keystore_json(server: Issued, ca: Issued) -> Settings:
    store = {"keystore": b64(keystore(server, PASSWORD.encode())), "password": PASSWORD}
    trust = {"truststore": b64(truststore(ca.certificate, password=PASSWORD.encode())), "password": PASSWORD}
    return {"tls_cert": json.dumps(store), "client_ca": json.dumps(trust)}


FORMS: dict[str, Form] = {
    "pem": Form(
        lambda server, ca: {
            "tls_cert": server.cert_pem.decode(),
            "tls_key": server.key_pem.decode(),
            "client_ca": ca.cert_pem.decode(),
        }
    ),
    "pem-key-and-certificates-together": Form(
        lambda server, ca: {
            "tls_cert": (server.key_pem + server.cert_pem).decode(),
            "client_ca": ca.cert_pem.decode(),
        }
    ),
    "pem-with-escaped-line-breaks": Form(
        lambda server, ca: {
            "tls_cert": _escaped(server.cert_pem),
            "tls_key": _escaped(server.key_pem, "\\r\\n"),
            "client_ca": f'"{_escaped(ca.cert_pem)}"',
        }
    ),
    "pem-with-blanks-for-line-breaks": Form(
        lambda server, ca: {
            "tls_cert": _escaped(server.cert_pem, " "),
            "tls_key": _escaped(server.traditional_key_pem, " "),
            "client_ca": _escaped(ca.cert_pem, " "),
        }
    ),
    "pem-with-encrypted-pkcs8": Form(
        lambda server, ca: {
            "tls_cert": server.cert_pem.decode(),
            "tls_key": encrypted_key(server),
            "tls_key_password": PASSWORD,
            "client_ca": ca.cert_pem.decode(),
        }
    ),
    "pem-with-encrypted-traditional-key": Form(
        lambda server, ca: {
            "tls_cert": server.cert_pem.decode(),
            "tls_key": _escaped(encrypted_key(server, PrivateFormat.TraditionalOpenSSL).encode()),
            "tls_key_password": PASSWORD,
            "client_ca": ca.cert_pem.decode(),
        }
    ),
    "base64-of-pem": Form(
        lambda server, ca: {
            "tls_cert": b64(server.cert_pem),
            "tls_key": base64.encodebytes(server.key_pem).decode(),
            "client_ca": b64(ca.cert_pem).rstrip("="),
        }
    ),
    "base64-of-der": Form(
        lambda server, ca: {
            "tls_cert": b64(der(server.certificate)),
            "tls_key": b64(key_der(server)),
            "client_ca": b64(der(ca.certificate)),
        },
        sent=1,
    ),
    "base64-of-pkcs12": Form(
        lambda server, ca: {
            "tls_cert": b64(keystore(server, PASSWORD.encode())),
            "tls_key_password": PASSWORD,
            "client_ca": b64(truststore(ca.certificate, password=None)),
        }
    ),
    "base64-of-pkcs12-without-password": Form(
        lambda server, ca: {"tls_cert": b64(keystore(server, None)), "client_ca": ca.cert_pem.decode()}
    ),
    "json-of-acm": Form(_acm),
    "json-of-vault": Form(_vault),
    "json-of-kubernetes": Form(_kubernetes, sent=3),
    "json-with-keystore": Form(_keystore_json),
    "json-plain": Form(
        lambda server, ca: {
            "tls_cert": json.dumps({"cert": server.cert_pem.decode(), "key": server.key_pem.decode()}),
            "client_ca": json.dumps({"ca": ca.cert_pem.decode()}),
        }
    ),
    "base64-of-json": Form(
        lambda server, ca: {
            "tls_cert": b64(json.dumps({"cert": b64(server.cert_pem), "key": b64(key_der(server))}).encode()),
            "client_ca": b64(json.dumps({"ca": b64(der(ca.certificate))}).encode()),
        }
    ),
}


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A client that the test root vouches for."""
    return write_identity(authority().issue("ci", purposes=CLIENT), tmp_path_factory.mktemp("identity") / "id.pem")


class TestForms:
    @pytest.mark.parametrize("form", FORMS)
    def test_value_serves_with_its_chain_and_leaves_no_trace(
        self, launch: Launch, app: App, identity: Path, form: str
    ) -> None:
        """Certificate, key, CA and password are read from the variables, and are not to be found there afterwards."""
        server = intermediate().issue("localhost", key=rsa_key())
        settings = FORMS[form].settings(server, authority())

        program = launch(upstream=app.upstream, client_cert="required", **settings)

        sent = [server.certificate, intermediate().certificate, authority().certificate][: FORMS[form].sent]
        assert served(program, "-cert", str(identity), "-key", str(identity)) == sent
        kept = Path(f"/proc/{program.pid}/environ").read_bytes().decode("latin-1") + program.stderr + program.stdout
        for name, value in settings.items():
            assert not reveals(kept, value), name

    @pytest.mark.parametrize(
        ("make", "encode"),
        [
            pytest.param(lambda: ecdsa_key(ec.SECP384R1()), lambda server: server.key_pem.decode(), id="P-384"),
            pytest.param(lambda: ecdsa_key(ec.SECP384R1()), lambda server: b64(key_der(server)), id="P-384-base64"),
            pytest.param(ed25519_key, lambda server: server.key_pem.decode(), id="Ed25519"),
            pytest.param(ed25519_key, lambda server: b64(key_der(server)), id="Ed25519-base64"),
            pytest.param(
                ecdsa_key,
                lambda server: b64(sec1_der(server)),
                id="P-256-traditional-base64",
            ),
        ],
    )
    def test_each_kind_of_key_serves(
        self, launch: Launch, app: App, make: Callable[[], PrivateKey], encode: Callable[[Issued], str]
    ) -> None:
        """Modern keys prove themselves to openssl, in the forms that they come in."""
        server = authority().issue("localhost", key=make())

        program = launch(upstream=app.upstream, tls_cert=server.cert_pem.decode(), tls_key=encode(server), wait="0")

        assert served(program, "-verify_return_error") == [server.certificate]


# -- several certificates, and their chains -----------------------------------------------------------------------

ORDERS = {
    "right": ("leaf", "second", "first"),
    "reversed": ("first", "second", "leaf"),
    "shuffled": ("second", "leaf", "first"),
    "reversed-with-root": ("root", "first", "second", "leaf"),
    "repeated": ("leaf", "first", "leaf", "second", "first"),
    "with-strangers": ("other", "first", "stranger", "leaf", "second"),
}
"""How people put chains together. The second CA comes from the first, and that from the root."""


@pytest.fixture(scope="module")
def chained(app: App, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Program, dict[str, Issued]]]:
    """A sidecar with a certificate for each of `ORDERS`, and these certificates."""
    directory = tmp_path_factory.mktemp("chained")
    second = intermediate().delegate("Second Intermediate CA")
    issued = {order: second.issue(f"{order}.example") for order in ORDERS}
    for order, names in ORDERS.items():
        certificates = {
            "leaf": issued[order].certificate,
            "second": second.certificate,
            "first": intermediate().certificate,
            "root": authority().certificate,
            "other": other_authority().certificate,
            "stranger": other_authority().issue(f"{order}.example").certificate,
        }
        (directory / f"{order}.crt").write_bytes(pem(*(certificates[name] for name in names)))
        (directory / f"{order}.key").write_bytes(issued[order].key_pem)
    files = ",".join(str(directory / f"{order}.crt") for order in ORDERS)
    with Program(directory, upstream=app.upstream, tls_cert=files) as running:
        yield running, issued


class TestChain:
    @pytest.mark.parametrize("order", ORDERS)
    def test_chain_is_sent_in_order_however_it_was_given(
        self, chained: tuple[Program, dict[str, Issued]], order: str
    ) -> None:
        """`openssl s_client -showcerts` sees the leaf, then each issuer; what does not belong there is left out."""
        program, issued = chained

        sent = served(program, "-servername", f"{order}.example", "-verify_return_error")

        root = [authority().certificate] if "root" in ORDERS[order] else []
        assert sent == [issued[order].certificate, *issued[order].chain, *root]

    def test_strangers_are_named_in_a_warning(self, chained: tuple[Program, dict[str, Issued]]) -> None:
        """An operator learns that something in the file is of no use."""
        program, _ = chained

        assert "certificates that do not belong to the chain of 'CN=with-strangers.example'" in program.stderr


SERVERS = {
    "rsa": ("localhost", "app.example"),
    "ecdsa": ("localhost", "app.example"),
    "p384": ("api.example",),
    "ed25519": ("*.wild.example",),
}


@pytest.fixture(scope="module")
def servers() -> dict[str, Issued]:
    """Certificates for several names, one name having two."""
    keys: dict[str, PrivateKey] = {
        "rsa": rsa_key(),
        "ecdsa": ecdsa_key(),
        "p384": ecdsa_key(ec.SECP384R1()),
        "ed25519": ed25519_key(),
    }
    return {kind: authority().issue(*names, key=keys[kind]) for kind, names in SERVERS.items()}


@pytest.fixture(scope="module")
def several(app: App, servers: dict[str, Issued], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """A sidecar with all of them, the RSA one first."""
    directory = tmp_path_factory.mktemp("several")
    for kind, issued in servers.items():
        issued.write(directory, f"{kind}.crt", f"{kind}.key")
    files = ", ".join(str(directory / f"{kind}.crt") for kind in servers)
    with Program(directory, upstream=app.upstream, tls_cert=files) as running:
        yield running


ONLY_RSA = ("-sigalgs", "RSA-PSS+SHA256:RSA+SHA256")
ONLY_ECDSA = ("-sigalgs", "ECDSA+SHA256")
OLD_RSA = ("-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256")
OLD_ECDSA = ("-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256")


class TestSeveralCertificates:
    @pytest.mark.parametrize(
        ("name", "options", "kind"),
        [
            ("app.example", ONLY_RSA, "rsa"),
            ("app.example", ONLY_ECDSA, "ecdsa"),
            ("app.example", OLD_RSA, "rsa"),
            ("app.example", OLD_ECDSA, "ecdsa"),
            ("APP.example", ONLY_RSA, "rsa"),
            ("api.example", (), "p384"),
            ("x.wild.example", (), "ed25519"),
            ("x.y.wild.example", ONLY_RSA, "rsa"),
            ("wild.example", ONLY_RSA, "rsa"),
            ("unknown.example", ONLY_RSA, "rsa"),
            ("unknown.example", ONLY_ECDSA, "ecdsa"),
            (None, ONLY_RSA, "rsa"),
            (None, OLD_ECDSA, "ecdsa"),
        ],
    )
    def test_name_and_abilities_of_the_client_choose(
        self, several: Program, servers: dict[str, Issued], name: str | None, options: tuple[str, ...], kind: str
    ) -> None:
        """SNI chooses the name, the client's algorithms the kind of key; without a known name it is the first."""
        asked = ("-noservername",) if name is None else ("-servername", name)

        assert served(several, *asked, *options) == [servers[kind].certificate]

    def test_admin_page_lists_all_of_them(self, several: Program, servers: dict[str, Issued]) -> None:
        """One look shows every certificate that can be served, the default first."""
        page = json.loads(several.admin("/certs")[1])

        serials = [int(one["serial"].replace(":", ""), 16) for one in page["certificates"]]
        assert serials == [issued.certificate.serial_number for issued in servers.values()]


# -- traces ------------------------------------------------------------------------------------------------------

PAGES = ("/", "/live", "/ready", "/stats/prometheus", "/handshakes", "/certs", "/certs/server.pem")

VALUES = ("tls_cert", "tls_key", "tls_key_password", "client_ca", "client_crl")

IN_DIRECTORY = 'cd "$0" && export HOME="$0" TMPDIR="$0" PYTHONPATH="$1" && shift && exec "$@"'


class TestTraces:
    @pytest.fixture
    def server(self) -> Issued:
        """A server whose key is known to the test."""
        return authority().issue("localhost", key=rsa_key())

    @pytest.fixture
    def settings(self, server: Issued) -> Settings:
        """Everything as a value."""
        return {
            "tls_cert": server.cert_pem.decode(),
            "tls_key": encrypted_key(server),
            "tls_key_password": PASSWORD,
            "client_cert": "optional",
            "client_ca": authority().cert_pem.decode(),
            "client_crl": revocation_list(authority()).public_bytes(Encoding.PEM).decode(),
            "log_level": "debug",
        }

    def test_running_program_shows_no_secret_and_writes_no_file(
        self, launch: Launch, app: App, server: Issued, settings: Settings, identity: Path, tmp_path: Path
    ) -> None:
        """
        Neither the process, nor its logs, nor an admin page has 20 characters of the key or the password; nothing was
        put into a file, in the directory that it works in, at home, or among temporary files.
        """
        empty = tmp_path / "empty"
        empty.mkdir()
        program = launch(prefix=("sh", "-c", IN_DIRECTORY, str(empty), str(ROOT)), upstream=app.upstream, **settings)
        with HttpsClient(program, context=client_context(identity=identity)) as client:
            assert client.get("/hello").status == 200

        process = Path(f"/proc/{program.pid}")
        environ, command = ((process / name).read_bytes().decode("latin-1") for name in ("environ", "cmdline"))
        for name in VALUES:
            assert not reveals(environ, settings[name]), name
        for text in (
            environ,
            command,
            program.stdout,
            program.stderr,
            *(program.admin(one)[1].decode() for one in PAGES),
        ):
            assert PASSWORD not in text
            for secret in (settings["tls_key"], server.key_pem.decode(), b64(key_der(server))):
                assert not reveals(text, secret)
        assert list(empty.iterdir()) == []
        files = {name for name in program.descriptors() if name.startswith("/") and not name.startswith("/dev/")}
        assert files == {str(program.directory / name) for name in ("stdout", "stderr")}

    def test_config_command_masks_every_value(self, settings: Settings) -> None:
        """`sidecar config` says that there is something, and where it comes from."""
        done = subprocess.run(
            [sys.executable, "-m", "sidecar", "config"],
            cwd=ROOT,
            env=environment(**settings),
            capture_output=True,
            text=True,
            timeout=30,
        )

        assert done.returncode == 0
        for name in VALUES:
            assert re.search(rf'^{name}: "\*\*\*" +# environment$', done.stdout, re.MULTILINE), name
            assert not reveals(done.stdout + done.stderr, settings[name])


# -- what cannot be used -----------------------------------------------------------------------------------------


@attrs.frozen
class Bad:
    """
    Values that cannot work.

    Attributes:
        settings: From a server's certificate and key.
        problems: For each line that is to be said: the setting, what is wrong, and what to do.
    """

    settings: Callable[[Issued], Settings]
    problems: tuple[tuple[str, str, str], ...]


def _pair(server: Issued, **others: str) -> Settings:
    return {"tls_cert": server.cert_pem.decode(), "tls_key": server.key_pem.decode(), **others}


def _leaf(not_before: datetime, not_after: datetime) -> Settings:
    return _pair(authority().issue("localhost", not_before=not_before, not_after=not_after))


def _clients(**values: str) -> Settings:
    return {"client_cert": "required", "client_ca": authority().cert_pem.decode(), **values}


BAD: dict[str, Bad] = {
    "wrong-password-of-keystore": Bad(
        lambda server: {"tls_cert": b64(keystore(server, b"another")), "tls_key_password": PASSWORD},
        (("TLS_KEY_PASSWORD", "does not open the PKCS#12 keystore", "give the password it was exported with"),),
    ),
    "wrong-password-of-key": Bad(
        lambda server: _pair(server, tls_key=server.encrypted_key_pem().decode(), tls_key_password=PASSWORD),
        (("TLS_KEY_PASSWORD", "does not open the private key", "give the password of this key"),),
    ),
    "password-is-the-key": Bad(
        lambda server: _pair(
            server, tls_key=server.encrypted_key_pem().decode(), tls_key_password=server.key_pem.decode()
        ),
        (("TLS_KEY_PASSWORD", "has 1,7", "holds nothing but the password"),),
    ),
    "no-password": Bad(
        lambda server: _pair(server, tls_key=encrypted_key(server)),
        (("TLS_KEY", "is encrypted, and no password is given", "give its password"),),
    ),
    "truncated-keystore": Bad(
        lambda server: {
            "tls_cert": b64(keystore(server, PASSWORD.encode())[:1500]),
            "tls_key_password": PASSWORD,
        },
        (("TLS_CERT", "is PKCS#12 that is cut short: it has 1500 of", "copy it again"),),
    ),
    "truncated-base64": Bad(
        lambda server: {
            "tls_cert": b64(keystore(server, PASSWORD.encode()))[:1501],
            "tls_key_password": PASSWORD,
        },
        (("TLS_CERT", "looks like base64 that is damaged", "copy it whole"),),
    ),
    "truncated-pem": Bad(
        lambda server: _pair(server, tls_key=server.key_pem.decode()[:-40]),
        (("TLS_KEY", "is cut short or damaged", "copy the whole"),),
    ),
    "pem-without-its-first-line": Bad(
        lambda server: _pair(server, tls_key=server.key_pem.decode().partition("\n")[2]),
        (("TLS_KEY", "line breaks", "give the path of a file"),),
    ),
    "base64-without-its-first-letters": Bad(
        lambda server: _pair(server, tls_key=b64(key_der(server))[3:]),
        (("TLS_KEY", "does not exist, and may be key material", "copy it whole"),),
    ),
    "swapped": Bad(
        lambda server: {"tls_cert": server.key_pem.decode(), "tls_key": server.cert_pem.decode()},
        (
            ("TLS_CERT", "holds no certificate", "swapped?"),
            ("TLS_KEY", "holds no private key", "swapped?"),
        ),
    ),
    "key-of-another-certificate": Bad(
        lambda server: _pair(server, tls_key=authority().issue("localhost").key_pem.decode()),
        (("TLS_KEY", "does not match the certificate", "that this certificate was made for"),),
    ),
    "no-key": Bad(
        lambda server: {"tls_cert": server.cert_pem.decode(), "tls_key": ""},
        (("TLS_CERT", "no private key", "give the key, too"),),
    ),
    "key-without-certificate": Bad(
        lambda server: {"tls_key": server.key_pem.decode()},
        (("TLS_KEY", "there is a key but no certificate", "set SIDECAR_TLS_CERT too"),),
    ),
    "expired": Bad(
        lambda server: _leaf(NOW - 30 * DAY, NOW - DAY),
        (("TLS_CERT", "expired on", "renew it"),),
    ),
    "not-yet-valid": Bad(
        lambda server: _leaf(NOW + DAY, NOW + 30 * DAY),
        (("TLS_CERT", "is not valid until", "correct the clock"),),
    ),
    "for-clients": Bad(
        lambda server: _pair(authority().issue("localhost", purposes=CLIENT)),
        (("TLS_CERT", "is not for servers", "issued for server authentication"),),
    ),
    "base64-of-garbage": Bad(
        lambda server: _pair(server, tls_key=b64(b"0\x82" + bytes(range(256)))),
        (("TLS_KEY", "damaged", "copy it again"),),
    ),
    "base64-of-a-sentence": Bad(
        lambda server: _pair(server, tls_key=b64(b"{no JSON " + PASSWORD.encode() * 3)),
        (("TLS_KEY", "does not exist, and may be key material", "copy it whole"),),
    ),
    "json-without-usable-fields": Bad(
        lambda server: {"tls_cert": json.dumps({"username": "admin", "secret": server.key_pem.decode()})},
        (("TLS_CERT", "JSON without a field for this; its fields with text: 'username', 'secret'", "certificate"),),
    ),
    "json-with-a-value-for-a-name": Bad(
        lambda server: {"tls_cert": json.dumps({b64(key_der(server))[:60]: "key"})},
        (("TLS_CERT", "(not shown)", "certificate"),),
    ),
    "json-without-key": Bad(
        lambda server: {"tls_cert": json.dumps({"cert": server.cert_pem.decode(), "pk": server.key_pem.decode()})},
        (("TLS_CERT", "no private key", "give the key, too"),),
    ),
    "json-cut-short": Bad(
        lambda server: {"tls_cert": json.dumps({"key": server.key_pem.decode(), "cert": "x"})[:-20]},
        (("TLS_CERT", "is JSON that is damaged", "copy it again"),),
    ),
    "ca-that-is-none": Bad(
        lambda server: _pair(server) | _clients(client_ca=server.cert_pem.decode()),
        (("CLIENT_CA", "holds no CA certificate: 'CN=localhost' is a server's", "of the CA that issued it"),),
    ),
    "ca-that-is-its-key": Bad(
        lambda server: _pair(server) | _clients(client_ca=authority().key_pem.decode()),
        (("CLIENT_CA", "holds no certificate", "certificate"),),
    ),
    "crl-of-another-ca": Bad(
        lambda server: (
            _pair(server) | _clients(client_crl=revocation_list(other_authority()).public_bytes(Encoding.PEM).decode())
        ),
        (("CLIENT_CRL", "is from 'CN=Other Root CA', and the client CAs are 'CN=Test Root CA'", "add its CA"),),
    ),
    "crl-that-is-a-certificate": Bad(
        lambda server: _pair(server) | _clients(client_crl=server.cert_pem.decode()),
        (("CLIENT_CRL", "holds no certificate revocation list", "as the CA publishes it"),),
    ),
}

LINE = re.compile(r"sidecar: SIDECAR_(?P<setting>[A-Z_]+) \((?:environment|default)\): (?P<text>.+; .+)")


@pytest.fixture(scope="module")
def at_once() -> Iterator[Settings]:
    """Addresses to listen on that are free; and what seems to be a path is not waited for."""
    with Port() as listen, Port() as admin:
        yield {"listen": str(listen), "admin": str(admin), "wait": "0"}


class TestRefusal:
    @pytest.mark.parametrize("case", BAD)
    def test_what_cannot_be_used_ends_with_78_and_a_line_each(self, at_once: Settings, case: str) -> None:
        """The line names the setting, what is wrong, and what to do; nothing of a value is in it."""
        server = authority().issue("localhost", key=rsa_key())
        settings = BAD[case].settings(server)

        done = run_to_end(**at_once, **settings)

        assert done.returncode == 78, done.stderr
        assert done.stdout == ""
        self._check_secrecy(done.stderr, settings, server)
        found = [LINE.fullmatch(line) for line in done.stderr.splitlines()]
        assert len(found) == len(BAD[case].problems), done.stderr
        for match, (setting, fact, fix) in zip(found, BAD[case].problems, strict=True):
            assert match is not None, done.stderr
            assert match["setting"] == setting
            _, is_said, rest = match["text"].partition(fact)
            assert is_said, done.stderr
            assert fix in rest

    @staticmethod
    def _check_secrecy(shown: str, settings: Settings, server: Issued) -> None:
        assert PASSWORD not in shown
        for secret in (*settings.values(), server.key_pem.decode(), b64(key_der(server))):
            assert not reveals(shown, secret), shown

    @pytest.mark.parametrize("content", [b"", b" \n\n"], ids=["empty", "blank"])
    @pytest.mark.parametrize("name", ["tls_cert", "tls_key", "client_ca"])
    def test_file_with_nothing_in_it_is_named(
        self, at_once: Settings, tmp_path: Path, name: str, content: bytes
    ) -> None:
        """A mount that failed leaves an empty file."""
        server = authority().issue("localhost", key=rsa_key())
        file = tmp_path / "nothing"
        file.write_bytes(content)

        done = run_to_end(**at_once, **{**_pair(server), **_clients(), name: str(file)})

        assert done.returncode == 78
        [match] = [LINE.fullmatch(line) for line in done.stderr.splitlines()]
        assert match is not None, done.stderr
        assert match["setting"] == name.upper()
        assert match["text"].startswith(f"{file} is empty; ")
