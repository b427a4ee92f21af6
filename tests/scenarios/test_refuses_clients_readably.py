"""
Ensures that client certificates are enforced as nginx's `ssl_verify_client` does it: the handshake succeeds, and who is
refused can read why with curl.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from tests.scenarios.clients import HttpsClient, client_context, curl, s_client, write_identity
from tests.scenarios.conftest import Launch
from tests.support.apps import App
from tests.support.certs import CLIENT, DAY, NOW, SERVER, Issued, authority, intermediate, other_authority, self_signed
from tests.support.program import Program, eventually

TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A certificate of the test root is required."""
    ca = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.write_bytes(authority().cert_pem)
    return {"client_cert": "required", "client_ca": str(ca)}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A client certificate that is in order."""
    return write_identity(authority().issue("ci.example", purposes=CLIENT), tmp_path_factory.mktemp("good") / "id.pem")


def _unknown_ca() -> Issued:
    return other_authority().issue("mallory", purposes=CLIENT)


def _self_signed() -> Issued:
    return self_signed("mallory", purposes=CLIENT)


def _expired() -> Issued:
    return authority().issue("late", purposes=CLIENT, not_before=NOW - 30 * DAY, not_after=NOW - DAY)


def _not_yet_valid() -> Issued:
    return authority().issue("early", purposes=CLIENT, not_before=NOW + DAY, not_after=NOW + 30 * DAY)


def _for_servers() -> Issued:
    return authority().issue("server", purposes=SERVER)


def _with_subject(issued: Issued, name: bytes, file: Path) -> Path:
    """Write *issued* with another encoding of its common name; its signature is broken by that."""
    der = issued.certificate.public_bytes(Encoding.DER)
    old = b"\x06\x03\x55\x04\x03\x0c\x02ab"
    assert old in der
    changed = ssl.DER_cert_to_PEM_cert(der.replace(old, old[:5] + name))
    file.write_bytes(changed.encode() + issued.key_pem)
    return file


BAD = pytest.mark.parametrize(
    ("issue", "why"),
    [
        pytest.param(_unknown_ca, "does not come from a CA that is trusted here", id="unknown-ca"),
        pytest.param(_self_signed, "is self-signed", id="self-signed"),
        pytest.param(_expired, "has expired", id="expired"),
        pytest.param(_not_yet_valid, "is not valid yet", id="not-yet-valid"),
        pytest.param(_for_servers, "is not for client authentication", id="wrong-purpose"),
    ],
)

VERSIONS = pytest.mark.parametrize("version", [pytest.param(TLS12, id="1.2"), pytest.param(TLS13, id="1.3")])


class TestCurl:
    def test_no_certificate_is_answered_with_400(self, program: Program) -> None:
        """`curl -v -k -I` without a certificate completes the handshake and reads `400 Bad Request`, then the end."""
        done = curl(program, "--http1.1", "-v", "-k", "-I", program.url)

        assert done.returncode == 0
        assert "SSL connection using" in done.stderr
        assert done.stdout.splitlines()[0].strip() == "HTTP/1.1 400 Bad Request"
        assert "connection: close" in done.stdout.lower()

    def test_over_http_2_it_is_an_answer_too(self, program: Program) -> None:
        """Nothing but the request ends; the connection would serve another."""
        done = curl(program, "--http2", "-k", "-I", program.url)

        assert done.returncode == 0
        assert done.stdout.splitlines()[0].strip() == "HTTP/2 400"

    def test_reason_is_one_line(self, program: Program) -> None:
        """The body of the refusal is one sentence."""
        done = curl(program, "-k", program.url)

        assert done.stdout == "This server requires a client certificate; none was sent.\n"

    def test_certificate_is_served_and_kept_alive(self, program: Program, good: Path) -> None:
        """`curl --cert --key` gets 200, and the second request goes over the same connection."""
        url = f"{program.url}/hello"
        done = curl(
            program, "-v", "-k", "--cert", str(good), "--key", str(good), "-w", "%{http_code} %{num_connects}\n",
            url, url,
        )  # fmt: skip

        assert done.stdout == "hello\n200 1\nhello\n200 0\n"
        assert "connection: close" not in done.stderr.lower()

    def test_head_with_certificate_is_served(self, program: Program, good: Path) -> None:
        """`curl -I` with a certificate gets 200."""
        done = curl(program, "-k", "-I", "--cert", str(good), "--key", str(good), f"{program.url}/hello")

        assert done.stdout.splitlines()[0].strip() == "HTTP/2 200"

    def test_client_name_is_in_the_access_log(self, program: Program, good: Path) -> None:
        """The subject of the certificate stands beside the request."""
        curl(program, "-k", "--cert", str(good), f"{program.url}/no-content")

        assert program.logged("/no-content")["client_subject"] == "CN=ci.example"


class TestRefusal:
    @VERSIONS
    @BAD
    def test_bad_certificate_is_answered_with_403_and_the_reason(
        self, program: Program, tmp_path: Path, version: ssl.TLSVersion, issue: object, why: str
    ) -> None:
        """A certificate that cannot be verified completes the handshake; then the client reads what is wrong."""
        assert callable(issue)
        identity = write_identity(issue(), tmp_path / "id.pem")
        with HttpsClient(program, context=client_context(version=version, identity=identity)) as client:
            response = client.get("/hello")

            assert response.status == 403
            assert why in response.body.decode()
            assert response.body.count(b"\n") == 1
            assert response.values("connection") == ["close"]
            assert client.is_closed()

    @VERSIONS
    @pytest.mark.parametrize(
        "name",
        [
            pytest.param(b"\x14\x02\xe9\xe9", id="T61String"),
            pytest.param(b"\x16\x02\xe9\xe9", id="IA5String"),
            pytest.param(b"\x03\x02\x00\x00", id="BIT-STRING"),
        ],
    )
    def test_certificate_whose_subject_cannot_be_read_is_answered_with_403(
        self, program: Program, tmp_path: Path, version: ssl.TLSVersion, name: bytes
    ) -> None:
        """A name in an odd encoding is the client's problem: it reads so, is logged, and leaves nothing behind."""
        identity = _with_subject(self_signed("ab", purposes=CLIENT), name, tmp_path / "id.pem")
        path = f"/unreadable-{name.hex()}-{version.name}"
        with HttpsClient(program, context=client_context(version=version, identity=identity)) as client:
            response = client.get(path)

            assert response.status == 403
            assert response.body.count(b"\n") == 1
            assert client.is_closed()
        line = program.logged(path)
        assert line["status"] == 403
        assert "client_subject" not in line
        eventually(lambda: program.metric("downstream_connections_active") == 0, "no connection is left")

    @VERSIONS
    def test_no_certificate_is_answered_with_400(self, program: Program, version: ssl.TLSVersion) -> None:
        """It is the same in both versions of TLS."""
        with HttpsClient(program, context=client_context(version=version)) as client:
            response = client.get("/hello")

            assert response.status == 400
            assert client.is_closed()

    def test_body_of_a_refused_request_does_not_hide_the_answer(self, program: Program) -> None:
        """A client that is still sending its body can read the refusal: the connection is not reset under it."""
        with HttpsClient(program) as client:
            client.send(b"POST /sink HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000\r\n\r\n" + bytes(200_000))
            response = client.response()

        assert response.status == 400

    def test_app_never_sees_a_refused_request(self, program: Program, app: App) -> None:
        """Nothing of a refused client reaches the app."""
        with HttpsClient(program) as client:
            client.get("/refused-path")

        assert "/refused-path" not in [request.path for request in app.requests]

    def test_chain_through_an_intermediate_is_accepted(self, program: Program, tmp_path: Path) -> None:
        """A client that sends its intermediate CA is verified up to the root."""
        identity = write_identity(intermediate().issue("deep", purposes=CLIENT), tmp_path / "id.pem")
        with HttpsClient(program, context=client_context(identity=identity)) as client:
            assert client.get("/hello").status == 200

    @pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
    def test_resumed_session_of_a_refused_client_stays_refused(
        self, program: Program, tmp_path: Path, version: str
    ) -> None:
        """The result of the verification belongs to the session: resuming it without a certificate gives 403 again."""
        identity = str(write_identity(_unknown_ca(), tmp_path / "id.pem"))
        session = str(tmp_path / "session")

        first = s_client(program, version, "-cert", identity, "-key", identity, "-sess_out", session)
        second = s_client(program, version, "-sess_in", session)

        assert "HTTP/1.1 403 Forbidden" in first.stdout
        assert "\nReused, " in second.stdout
        assert "HTTP/1.1 403 Forbidden" in second.stdout

    @pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
    def test_resumed_session_of_an_accepted_client_stays_accepted(
        self, program: Program, tmp_path: Path, good: Path, version: str
    ) -> None:
        """A verified client that resumes is served without showing its certificate again."""
        session = str(tmp_path / "session")

        s_client(program, version, "-cert", str(good), "-key", str(good), "-sess_out", session)
        second = s_client(program, version, "-sess_in", session)

        assert "\nReused, " in second.stdout
        assert "HTTP/1.1 200 OK" in second.stdout

    @pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
    def test_resumed_session_without_certificate_stays_refused(
        self, program: Program, tmp_path: Path, version: str
    ) -> None:
        """A session that was begun without a certificate gives 400 when it is resumed."""
        session = str(tmp_path / "session")

        s_client(program, version, "-sess_out", session)
        second = s_client(program, version, "-sess_in", session)

        assert "\nReused, " in second.stdout
        assert "HTTP/1.1 400 Bad Request" in second.stdout


class TestOptional:
    @pytest.fixture
    def optional(self, launch: Launch, app: App, settings: dict[str, Any]) -> Program:
        return launch(upstream=app.upstream, **{**settings, "client_cert": "optional"})

    def test_only_a_bad_certificate_is_refused(self, optional: Program, tmp_path: Path, good: Path) -> None:
        """In optional mode none is served, a good one is served, a bad one is refused."""
        bad = write_identity(_unknown_ca(), tmp_path / "bad.pem")
        contexts = [client_context(), client_context(identity=good), client_context(identity=bad)]

        statuses = []
        for context in contexts:
            with HttpsClient(optional, context=context) as client:
                statuses.append(client.get("/hello").status)

        assert statuses == [200, 200, 403]
