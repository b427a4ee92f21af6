"""
Ensures that an app is told who its verified client is, in the fields that it already knows how to read, and that no
client can write such a field itself.
"""

from __future__ import annotations

import base64
import hashlib
import re
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from tests.scenarios.clients import HttpsClient, client_context, in_parallel, write_identity
from tests.support.apps import App
from tests.support.certs import CLIENT, Issued, authority, der, intermediate, other_authority
from tests.support.program import Program, eventually

AMZN = "X-Amzn-Mtls-Clientcert"

FIELDS = {
    "xfcc": ("X-Forwarded-Client-Cert",),
    "client-cert": ("Client-Cert", "Client-Cert-Chain"),
    "x-ssl": (
        *("X-SSL-Client-Verify", "X-SSL-Client-S-DN", "X-SSL-Client-I-DN", "X-SSL-Client-Serial"),
        *("X-SSL-Client-Fingerprint", "X-SSL-Client-Cert"),
    ),
    "x-amzn": tuple(f"{AMZN}-{what}" for what in ("Serial-Number", "Issuer", "Subject", "Validity", "Leaf")),
    "tls": ("X-SSL-Protocol", "X-SSL-Cipher", "X-SSL-Curve", "X-SSL-Server-Name", "X-SSL-Session-Reused"),
}
NAMES = {name.lower() for names in FIELDS.values() for name in names}

SPIFFE = "spiffe://prod/ns/shop/sa/web"


# -- who asks, and what the app reads -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def issued() -> Issued:
    """A client below an intermediate CA, with a name that many readers would split."""
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, 'Müller, "Söhne"; & Co'),
            x509.NameAttribute(NameOID.COMMON_NAME, "web,O=Evil"),
        ]
    )
    return intermediate().issue("web.example", "www.example", SPIFFE, purposes=CLIENT, subject=subject)


@pytest.fixture(scope="module")
def identity(issued: Issued, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a file with the chain and the key."""
    return write_identity(issued, tmp_path_factory.mktemp("identity") / "id.pem")


PROGRAMS: dict[str, dict[str, str]] = {
    **{dialect: {"identity_headers": dialect} for dialect in FIELDS},
    "all": {"identity_headers": ",".join(FIELDS)},
    "all-underscores": {"identity_headers": ",".join(FIELDS), "underscore_headers": "allow"},
    "exempt": {"identity_headers": ",".join(FIELDS), "client_cert": "required", "client_cert_exempt": "/echo"},
    "nothing-told": {"underscore_headers": "allow"},
    "nobody-asked": {"underscore_headers": "allow", "client_cert": "none"},
}


@pytest.fixture(scope="module")
def programs(app: App, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Program]]:
    """A sidecar for each of `PROGRAMS`."""
    directory = tmp_path_factory.mktemp("programs")
    ca = directory / "ca.crt"
    ca.write_bytes(authority().cert_pem)
    with ExitStack() as stack:

        def start(name: str) -> Program:
            settings: dict[str, Any] = {"client_cert": "optional", **PROGRAMS[name]}
            if settings["client_cert"] != "none":
                settings["client_ca"] = str(ca)
            return stack.enter_context(Program(directory / name, upstream=app.upstream, **settings))

        started = in_parallel([partial(start, name) for name in PROGRAMS])
        yield dict(zip(PROGRAMS, started, strict=True))


class Seen:
    """What an app saw of a request, as a framework gives it: names without case, values as they came."""

    def __init__(self, echo: dict[str, Any]) -> None:
        self.head: str = echo["head"]
        self.trailers: list[str] = echo["trailers"]
        self.lines: list[list[str]] = [line.split(": ", 1) for line in self.head.split("\r\n")[1:-2]]

    def value(self, name: str) -> str:
        """The value of the one field *name*."""
        [found] = [value for key, value in self.lines if key.lower() == name.lower()]
        return found

    @property
    def identity(self) -> list[tuple[str, str]]:
        """All that says who the client is, also in the spellings that some frameworks do not tell apart."""
        plain = [(re.sub(r"[^a-z0-9]", "-", key.lower()), value) for key, value in self.lines]
        return [(key, value) for key, value in plain if key in NAMES]


def ask(connection: HttpsClient, *lines: str) -> Seen:
    """Send a request with these *lines*; return what the app saw."""
    response = connection.get("/echo", *lines)
    assert response.status == 200, response.body
    return Seen(response.json())


def unescaped(pem: str) -> bytes:
    """DER of a percent-encoded PEM certificate."""
    return ssl.PEM_cert_to_DER_cert(unquote(pem))


def parsed_xfcc(value: str) -> dict[str, list[str]]:
    """The pairs of one element, as Envoy's readers split it: at semicolons outside quotes."""
    pairs = re.findall(r'([A-Za-z]+)=("(?:[^"\\]|\\.)*"|[^";,]*)(?:;|$)', value)
    assert ";".join(f"{key}={text}" for key, text in pairs) == value
    found: dict[str, list[str]] = {}
    for key, text in pairs:
        found.setdefault(key, []).append(text.strip('"'))
    return found


def parsed_dn(text: str) -> list[tuple[str, str]]:
    """Attributes of an RFC 4514 name, by somebody who splits at every comma first and unescapes then."""
    pairs = (part.partition("=") for part in text.split(","))
    octets = re.compile(rb"\\([0-9A-F]{2})")
    return [
        (key, octets.sub(lambda match: bytes.fromhex(match[1].decode()), value.encode()).decode())
        for key, _, value in pairs
    ]


SUBJECT = [("CN", "web,O=Evil"), ("O", 'Müller, "Söhne"; & Co')]
ISSUER = [("CN", "Test Intermediate CA")]


def _check_xfcc(seen: Seen, issued: Issued) -> None:
    found = parsed_xfcc(seen.value("X-Forwarded-Client-Cert"))
    leaf = der(issued.certificate)
    assert found["Hash"] == [hashlib.sha256(leaf).hexdigest()]
    assert unescaped(found["Cert"][0]) == leaf
    chain = re.findall(r"-----BEGIN.*?-----END CERTIFICATE-----\n", unquote(found["Chain"][0]), re.DOTALL)
    assert [ssl.PEM_cert_to_DER_cert(pem) for pem in chain] == [leaf, *map(der, issued.chain)]
    assert parsed_dn(found["Subject"][0]) == SUBJECT
    assert found["URI"] == [SPIFFE]
    assert found["DNS"] == ["web.example", "www.example"]


def _check_client_cert(seen: Seen, issued: Issued) -> None:
    def sequences(name: str) -> list[bytes]:
        items = seen.value(name).split(", ")
        assert all(item[0] == item[-1] == ":" for item in items)
        return [base64.b64decode(item[1:-1], validate=True) for item in items]

    assert sequences("Client-Cert") == [der(issued.certificate)]
    assert sequences("Client-Cert-Chain") == [der(one) for one in issued.chain]


def _check_x_ssl(seen: Seen, issued: Issued) -> None:
    assert seen.value("X-SSL-Client-Verify") == "SUCCESS"
    assert parsed_dn(seen.value("X-SSL-Client-S-DN")) == SUBJECT
    assert parsed_dn(seen.value("X-SSL-Client-I-DN")) == ISSUER
    assert int(seen.value("X-SSL-Client-Serial"), 16) == issued.certificate.serial_number
    assert seen.value("X-SSL-Client-Fingerprint") == hashlib.sha256(der(issued.certificate)).hexdigest()
    assert unescaped(seen.value("X-SSL-Client-Cert")) == der(issued.certificate)


def _check_x_amzn(seen: Seen, issued: Issued) -> None:
    certificate = issued.certificate
    assert int(seen.value(f"{AMZN}-Serial-Number"), 16) == certificate.serial_number
    assert parsed_dn(seen.value(f"{AMZN}-Subject")) == SUBJECT
    assert parsed_dn(seen.value(f"{AMZN}-Issuer")) == ISSUER
    assert unescaped(seen.value(f"{AMZN}-Leaf")) == der(certificate)
    first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    expected = f"NotBefore={first:%Y-%m-%dT%H:%M:%SZ};NotAfter={last:%Y-%m-%dT%H:%M:%SZ}"
    assert seen.value(f"{AMZN}-Validity") == expected


def _check_tls(seen: Seen, issued: Issued) -> None:
    assert seen.value("X-SSL-Protocol") == "TLSv1.3"
    assert re.fullmatch(r"TLS_[A-Z0-9_]+", seen.value("X-SSL-Cipher"))
    assert seen.value("X-SSL-Curve")
    assert seen.value("X-SSL-Server-Name") == "localhost"
    assert seen.value("X-SSL-Session-Reused") == "."


CHECKS: dict[str, Callable[[Seen, Issued], None]] = {
    "xfcc": _check_xfcc,
    "client-cert": _check_client_cert,
    "x-ssl": _check_x_ssl,
    "x-amzn": _check_x_amzn,
    "tls": _check_tls,
}


class TestDialects:
    @pytest.mark.parametrize("dialect", FIELDS)
    def test_app_reads_who_the_client_is(
        self, programs: dict[str, Program], issued: Issued, identity: Path, dialect: str
    ) -> None:
        """What its reader gets out of the fields is what stands in the certificate; no other dialect is written."""
        with HttpsClient(programs[dialect], context=client_context(identity=identity)) as connection:
            seen = ask(connection)

        CHECKS[dialect](seen, issued)
        assert sorted(key for key, _ in seen.identity) == sorted(name.lower() for name in FIELDS[dialect])

    def test_all_dialects_fit_beside_each_other(
        self, programs: dict[str, Program], issued: Issued, identity: Path
    ) -> None:
        """Also on every further request of the connection."""
        with HttpsClient(programs["all"], context=client_context(identity=identity)) as connection:
            for seen in (ask(connection), ask(connection)):
                for check in CHECKS.values():
                    check(seen, issued)
                assert len(seen.identity) == len(NAMES)

    @pytest.mark.parametrize("dialect", FIELDS)
    def test_client_without_certificate_is_nobody(self, programs: dict[str, Program], dialect: str) -> None:
        """There is no field that an app could take for a name; nginx's says NONE."""
        with HttpsClient(programs[dialect]) as connection:
            seen = ask(connection)

        if dialect == "tls":
            assert {key for key, _ in seen.identity} == {name.lower() for name in FIELDS["tls"]}
        else:
            assert seen.identity == ([("x-ssl-client-verify", "NONE")] if dialect == "x-ssl" else [])

    def test_invalid_certificate_on_an_exempt_path_is_nobody(
        self, programs: dict[str, Program], tmp_path: Path
    ) -> None:
        """Who is served whatever he shows is not believed: to the app it is as if he had shown nothing."""
        forged = other_authority().issue("web.example", SPIFFE, purposes=CLIENT)
        context = client_context(identity=write_identity(forged, tmp_path / "id.pem"))
        with HttpsClient(programs["exempt"], context=context) as connection:
            seen = ask(connection)

        of_tls = {name.lower() for name in FIELDS["tls"]}
        assert [pair for pair in seen.identity if pair[0] not in of_tls] == [("x-ssl-client-verify", "NONE")]
        assert "web.example" not in seen.head
        assert SPIFFE not in seen.head

    def test_valid_certificate_on_an_exempt_path_is_told(
        self, programs: dict[str, Program], issued: Issued, identity: Path
    ) -> None:
        """An exempt path asks for nothing, and knows what it is shown."""
        with HttpsClient(programs["exempt"], context=client_context(identity=identity)) as connection:
            _check_x_ssl(ask(connection), issued)

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
    def test_resumed_session_is_the_same_client(
        self, programs: dict[str, Program], issued: Issued, identity: Path, version: ssl.TLSVersion
    ) -> None:
        """The certificate is that of the first handshake; only the CAs above it are forgotten."""
        program, context = programs["all"], client_context(identity=identity, version=version)
        with HttpsClient(program, context=context) as connection:
            ask(connection)
            session = connection.socket.session
            connection.socket.unwrap()
        with HttpsClient(program, context=context, session=session) as connection:
            seen = ask(connection)

        assert seen.value("X-SSL-Session-Reused") == "r"
        assert seen.value("Client-Cert") == f":{base64.b64encode(der(issued.certificate)).decode()}:"
        assert unescaped(parsed_xfcc(seen.value("X-Forwarded-Client-Cert"))["Cert"][0]) == der(issued.certificate)
        _check_x_ssl(seen, issued)
        _check_x_amzn(seen, issued)

    def test_field_that_would_be_too_long_is_left_out_whole_and_logged(
        self, programs: dict[str, Program], tmp_path: Path
    ) -> None:
        """A certificate that no app server would take in a field is not cut: the names stay, the log says the rest."""
        names = (f"name-{i:03}.{'x' * 40}.example" for i in range(95))
        large = authority().issue(*names, purposes=CLIENT)
        program = programs["x-ssl"]
        context = client_context(identity=write_identity(large, tmp_path / "id.pem"))
        with HttpsClient(program, context=context) as connection:
            seen = ask(connection)

        assert seen.value("X-SSL-Client-Verify") == "SUCCESS"
        assert int(seen.value("X-SSL-Client-Serial"), 16) == large.certificate.serial_number
        assert "x-ssl-client-cert" not in [key for key, _ in seen.identity]
        eventually(lambda: "X-SSL-Client-Cert: too long" in program.stderr, "the log says what is missing")


# -- what clients may not claim -----------------------------------------------------------------------------------

FORGED = "forged-by-the-client"

PLAIN = [name for names in FIELDS.values() for name in names]


def _joined(character: str) -> Callable[[list[str]], list[str]]:
    return lambda names: [name.replace("-", character) for name in names]


SPELLINGS: dict[str, Callable[[list[str]], list[str]]] = {
    "as-written": lambda names: names,
    "lower-case": lambda names: [name.lower() for name in names],
    "upper-case": lambda names: [name.upper() for name in names],
    "swapped-case": lambda names: [name.swapcase() for name in names],
    "underscores": _joined("_"),
    "first-underscore": lambda names: [name.replace("-", "_", 1) for name in names],
    "last-underscore": lambda names: ["_".join(name.rsplit("-", 1)) for name in names],
    "upper-underscores": lambda names: [name.upper().replace("-", "_") for name in names],
    "dots": _joined("."),
    "first-dot": lambda names: [name.replace("-", ".", 1) for name in names],
    "tildes": _joined("~"),
    "apostrophes": _joined("'"),
    "dollars": _joined("$"),
    "bars": _joined("|"),
    "repeated": lambda names: [*names, *names],
    "repeated-in-both-spellings": lambda names: [*names, *_joined("_")(names)],
}

FORGING = pytest.mark.parametrize("target", ["all", "all-underscores", "nothing-told", "nobody-asked"])
WHO = pytest.mark.parametrize("has_certificate", [True, False], ids=["verified", "nobody"])


class TestForgery:
    @FORGING
    @WHO
    @pytest.mark.parametrize("spelling", SPELLINGS)
    def test_field_of_a_client_never_reaches_the_app(
        self, programs: dict[str, Program], identity: Path, target: str, has_certificate: bool, spelling: str
    ) -> None:
        """The app is told exactly what it is told without the forged fields."""
        context = client_context(identity=identity if has_certificate else None)
        with HttpsClient(programs[target], context=context) as connection:
            honest = ask(connection)
            forged = ask(connection, *(f"{name}: {FORGED}" for name in SPELLINGS[spelling](PLAIN)))

        assert FORGED not in forged.head
        assert forged.identity == honest.identity

    @FORGING
    @WHO
    @pytest.mark.parametrize("is_sent", [True, False], ids=["sent", "only-nominated"])
    def test_nominated_field_is_neither_forged_nor_lost(
        self, programs: dict[str, Program], identity: Path, target: str, has_certificate: bool, is_sent: bool
    ) -> None:
        """A client that calls our fields hop-by-hop does not take them from the app."""
        context = client_context(identity=identity if has_certificate else None)
        lines = [f"Connection: keep-alive, {', '.join(PLAIN)}", f"Connection: {', '.join(map(str.lower, PLAIN))}"]
        if is_sent:
            lines += [f"{name}: {FORGED}" for name in PLAIN]
        with HttpsClient(programs[target], context=context) as connection:
            honest = ask(connection)
            forged = ask(connection, *lines)

        assert FORGED not in forged.head
        assert forged.identity == honest.identity

    @FORGING
    @WHO
    @pytest.mark.parametrize("spelling", SPELLINGS)
    def test_trailer_of_a_client_never_reaches_the_app(
        self, programs: dict[str, Program], identity: Path, target: str, has_certificate: bool, spelling: str
    ) -> None:
        """Frameworks that merge trailers into the head would take it for a field; honest trailers get through."""
        context = client_context(identity=identity if has_certificate else None)
        names = SPELLINGS[spelling](PLAIN)
        head = f"POST /echo HTTP/1.1\r\nHost: localhost\r\nTrailer: {names[0]}\r\nTransfer-Encoding: chunked\r\n\r\n"
        trailers = "".join(f"{name}: {FORGED}\r\n" for name in names)
        with HttpsClient(programs[target], context=context) as connection:
            honest = ask(connection)
            connection.send(f"{head}4\r\nbody\r\n0\r\nX-Honest: 1\r\n{trailers}\r\n".encode())
            response = connection.response()

        assert response.status == 200
        forged = Seen(response.json())
        assert forged.trailers == ["X-Honest: 1"]
        assert FORGED not in forged.head
        assert forged.identity == honest.identity
