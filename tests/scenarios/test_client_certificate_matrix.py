"""
Ensures that every client gets the answer that its certificate deserves, whatever the version of TLS, the mode and the
way of refusal; that operators can read why; and that a resumed session changes nothing.
"""

from __future__ import annotations

import json
import ssl
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import attrs
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from tests.scenarios.clients import HttpsClient, Response, alert_of, client_context, in_parallel, write_identity
from tests.support.apps import App
from tests.support.certs import (
    CLIENT,
    DAY,
    NOW,
    Issued,
    authority,
    intermediate,
    other_authority,
    pem,
    revocation_list,
    rsa_key,
    self_signed,
)
from tests.support.program import Program

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
MODES = ("none", "optional", "required")
REFUSALS = ("http", "handshake")

NAME = "web.allowed.example"
ALLOWED = "dns=*.allowed.example"
"""Every client but one has a name that is let in, so that only what is wrong with it can be why it is not."""


# -- the table ---------------------------------------------------------------------------------------------------


@attrs.frozen
class Refused:
    """
    How a client is refused, where it is.

    Attributes:
        status: What it gets over HTTP.
        reason: What operators read.
        sentence: What it reads over HTTP.
        alert: What ends the handshake, where that refuses.
        alert_13: What ends it in TLS 1.3; None: the same.
    """

    status: int
    reason: str
    sentence: str
    alert: str
    alert_13: str | None = None


@attrs.frozen
class Row:
    """A client, and how it is refused; None: it is served in every mode."""

    issue: Callable[[], Issued | None]
    refused: Refused | None = None


TABLE = {
    "no-certificate": Row(
        lambda: None,
        Refused(
            400,
            "client_certificate_missing",
            "This server requires a client certificate; none was sent.",
            "handshake_failure",
            alert_13="certificate_required",
        ),
    ),
    "self-signed": Row(
        lambda: self_signed(NAME, purposes=CLIENT),
        Refused(403, "self_signed", "the client certificate is self-signed and not trusted here", "unknown_ca"),
    ),
    "wrong-ca": Row(
        lambda: other_authority().issue(NAME, purposes=CLIENT),
        Refused(403, "unknown_ca", "does not come from a CA that is trusted here", "unknown_ca"),
    ),
    "expired": Row(
        lambda: authority().issue(NAME, purposes=CLIENT, not_before=NOW - 30 * DAY, not_after=NOW - DAY),
        Refused(403, "expired", "has expired", "certificate_expired"),
    ),
    "not-yet-valid": Row(
        lambda: authority().issue(NAME, purposes=CLIENT, not_before=NOW + DAY, not_after=NOW + 30 * DAY),
        Refused(403, "not_yet_valid", "is not valid yet", "bad_certificate"),
    ),
    "revoked": Row(
        lambda: authority().issue(NAME, purposes=CLIENT),
        Refused(403, "revoked", "has been revoked", "certificate_revoked"),
    ),
    "for-servers": Row(
        lambda: authority().issue(NAME),
        Refused(403, "wrong_purpose", "is not for client authentication", "unsupported_certificate"),
    ),
    "not-authorized": Row(
        lambda: authority().issue("web.other.example", purposes=CLIENT),
        Refused(403, "client_not_authorized", "is not authorized here", "bad_certificate"),
    ),
    "via-intermediate": Row(lambda: intermediate().issue(NAME, purposes=CLIENT)),
    "right": Row(lambda: authority().issue(NAME, purposes=CLIENT)),
}


def refused(client: str, mode: str) -> Refused | None:
    """How *client* is refused in *mode*; None if it is served."""
    is_let_in = mode == "none" or (mode == "optional" and client == "no-certificate")
    return None if is_let_in else TABLE[client].refused


def cases(modes: tuple[str, ...], refusals: tuple[str, ...]) -> pytest.MarkDecorator:
    """Every client in these *modes* with these ways of refusal, in both versions of TLS."""
    return pytest.mark.parametrize(
        ("mode", "refusal", "version", "client"),
        [pytest.param(*case, id="-".join(case)) for case in product(modes, refusals, VERSIONS, TABLE)],
    )


# -- what they meet ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def issued() -> dict[str, Issued | None]:
    """The certificate of each client."""
    return {name: row.issue() for name, row in TABLE.items()}


@pytest.fixture(scope="module")
def identities(issued: dict[str, Issued | None], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path | None]:
    """The same as files with the keys."""
    directory = tmp_path_factory.mktemp("identities")
    return {
        name: None if one is None else write_identity(one, directory / f"{name}.pem") for name, one in issued.items()
    }


@pytest.fixture(scope="module")
def programs(
    app: App, issued: dict[str, Issued | None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[tuple[str, str], Program]]:
    """A sidecar for each mode and way of refusal."""
    directory = tmp_path_factory.mktemp("programs")
    server = authority().issue("localhost", "*.matrix.example", key=rsa_key()).write(directory)
    revoked = issued["revoked"]
    assert revoked is not None
    lists = (revocation_list(authority(), revoked.certificate), revocation_list(intermediate()))
    (directory / "ca.crl").write_bytes(b"".join(crl.public_bytes(Encoding.PEM) for crl in lists))
    (directory / "ca.crt").write_bytes(pem(authority().certificate, intermediate().certificate))
    demands = {
        "client_ca": str(directory / "ca.crt"),
        "client_crl": str(directory / "ca.crl"),
        "client_allow": ALLOWED,
    }
    with ExitStack() as stack:

        def start(mode: str, refusal: str) -> Program:
            settings: dict[str, Any] = {
                "client_cert": mode,
                "client_refusal": refusal,
                **({} if mode == "none" else demands),
            }
            program = Program(
                directory / f"{mode}-{refusal}", upstream=app.upstream, tls_cert=str(server / "tls.crt"), **settings
            )
            return stack.enter_context(program)

        pairs = list(product(MODES, REFUSALS))
        started = in_parallel([partial(start, *pair) for pair in pairs])
        yield dict(zip(pairs, started, strict=True))


@attrs.frozen
class Outcome:
    """What came of a request: a response, or an alert."""

    response: Response | None
    alert: str = ""


def ask(program: Program, context: ssl.SSLContext, server_name: str, path: str) -> Outcome:
    """Send one request on a connection of its own."""
    try:
        with HttpsClient(program, context=context, server_name=server_name) as client:
            return Outcome(client.get(path))
    except ssl.SSLError as error:
        return Outcome(None, alert_of(error))


def rejections(program: Program, server_name: str) -> list[dict[str, Any]]:
    """What /handshakes says of clients that asked for *server_name*."""
    page = json.loads(program.admin("/handshakes")[1])
    return [event for event in page["rejections"] if event["server_name"] == server_name]


def counters(program: Program) -> Counter[str]:
    """Every counter of clients that were turned away."""
    lines = program.admin("/stats/prometheus")[1].decode().splitlines()
    families = ("sidecar_client_rejections_total{", "sidecar_tls_handshake_failures_total{")
    counted = (line.rpartition(" ") for line in lines if line.startswith(families))
    return Counter({name.removeprefix("sidecar_"): int(float(value)) for name, _, value in counted})


# -- tests -------------------------------------------------------------------------------------------------------


class TestMatrix:
    @cases(MODES, REFUSALS)
    def test_client_gets_what_it_deserves_and_operators_read_why(
        self,
        programs: dict[tuple[str, str], Program],
        app: App,
        issued: dict[str, Issued | None],
        identities: dict[str, Path | None],
        mode: str,
        refusal: str,
        version: str,
        client: str,
    ) -> None:
        """It is served, or refused with the status or alert of its flaw; the admin pages say the same of it."""
        program, expected = programs[mode, refusal], refused(client, mode)
        name = f"{client}-{version.replace('.', '')}.matrix.example"
        path = f"/hello/{mode}-{refusal}-{version}-{client}"
        before = counters(program)

        outcome = ask(program, client_context(version=VERSIONS[version], identity=identities[client]), name, path)

        counted = counters(program) - before
        if expected is None:
            assert outcome.response is not None, outcome.alert
            assert (outcome.response.status, outcome.response.body) == (200, b"hello\n")
            assert rejections(program, name) == []
            assert counted == {}
            subject = program.logged(path).get("client_subject")
            assert subject == (None if mode == "none" or issued[client] is None else f"CN={NAME}")
            return
        assert path not in [request.path for request in app.requests]
        [event] = rejections(program, name)
        self._check_event(event, issued[client])
        if refusal == "http":
            assert outcome.response is not None, outcome.alert
            self._check_answer(outcome.response, expected)
            assert program.logged(path)["status"] == expected.status
            assert (event["reason"], event["answer"]) == (expected.reason, str(expected.status))
            assert counted == {f'client_rejections_total{{reason="{expected.reason}"}}': 1}
        else:
            is_13 = version == "1.3" and expected.alert_13 is not None
            assert outcome.alert == (expected.alert_13 if is_13 else expected.alert)
            assert (event["reason"], event["answer"]) == (expected.reason, "alert")
            assert counted == {f'tls_handshake_failures_total{{reason="{expected.reason}"}}': 1}

    @staticmethod
    def _check_answer(response: Response, expected: Refused) -> None:
        assert response.status == expected.status
        assert expected.sentence in response.body.decode()
        assert response.values("connection") == ["close"]

    @staticmethod
    def _check_event(event: dict[str, Any], issued: Issued | None) -> None:
        assert event["count"] == 1
        assert event["client"] == "127.0.0.1"
        assert event["hint"]
        if issued is None:
            assert event["certificate"] is None
            return
        certificate = issued.certificate
        assert event["certificate"]["subject"] == certificate.subject.rfc4514_string()
        assert event["certificate"]["issuer"] == certificate.issuer.rfc4514_string()
        assert int(event["certificate"]["serial"], 16) == certificate.serial_number


class TestResumption:
    @cases(("optional", "required"), ("http",))
    def test_resumed_session_keeps_its_verdict(
        self,
        programs: dict[tuple[str, str], Program],
        identities: dict[str, Path | None],
        mode: str,
        refusal: str,
        version: str,
        client: str,
    ) -> None:
        """Whoever resumes a session is what he was when it began: neither better nor worse."""
        program = programs[mode, refusal]
        context = client_context(version=VERSIONS[version], identity=identities[client])
        with HttpsClient(program, context=context) as connection:
            first = connection.get("/hello")
            session = connection.socket.session
            connection.socket.unwrap()

        with HttpsClient(program, context=context, session=session) as connection:
            second = connection.get("/hello")
            assert connection.socket.session_reused

        expected = refused(client, mode)
        assert first.status == (200 if expected is None else expected.status)
        assert (second.status, second.body) == (first.status, first.body)

    @cases(("optional", "required"), ("handshake",))
    def test_refused_handshake_leaves_no_session_to_resume(
        self,
        programs: dict[tuple[str, str], Program],
        identities: dict[str, Path | None],
        mode: str,
        refusal: str,
        version: str,
        client: str,
    ) -> None:
        """A client that got an alert gets it again when it comes with what the first handshake left; others resume."""
        program, expected = programs[mode, refusal], refused(client, mode)
        context = client_context(version=VERSIONS[version], identity=identities[client])
        sessions: list[ssl.SSLSession | None] = []

        def attempt() -> str:
            try:
                with HttpsClient(program, context=context, session=sessions[-1] if sessions else None) as connection:
                    try:
                        status = connection.get("/hello").status
                        reused = "resumed " if connection.socket.session_reused else ""
                    finally:
                        sessions.append(connection.socket.session)
                    connection.socket.unwrap()
            except ssl.SSLError as error:
                return alert_of(error)
            return f"{reused}{status}"

        first, second = attempt(), attempt()

        if expected is None:
            assert (first, second) == ("200", "resumed 200")
        else:
            alert = (version == "1.3" and expected.alert_13) or expected.alert
            assert (first, second) == (alert, alert)
