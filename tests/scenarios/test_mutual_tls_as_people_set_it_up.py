"""
Ensures that mutual TLS works with what people have: the CA, keys and keystores that lines of openssl make, or the
commands of `sidecar certs`, in front of curl; as on a load balancer's listener, in Tomcat and in nginx.
"""

from __future__ import annotations

import base64
import json
import shlex
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from tests.scenarios.clients import HttpsClient, client_context, curl, openssl, sidecar_certs, write_identity
from tests.scenarios.conftest import Launch
from tests.support.apps import App
from tests.support.certs import CLIENT, authority, other_authority
from tests.support.program import Program, eventually, run_to_end

PASSWORD = "changeit"

OPENSSL = """
genrsa -out root.key 2048
req -x509 -new -key root.key -sha256 -days 3650 -subj '/O=Example/CN=Root CA' -out root.crt

genrsa -out server.key 2048
req -new -key server.key -subj '/O=Example/CN=localhost' -out server.csr
x509 -req -in server.csr -CA root.crt -CAkey root.key -CAcreateserial -days 3650 -extfile server.ext -out server.crt

genrsa -out intermediate.key 2048
req -new -key intermediate.key -subj '/O=Example/CN=Intermediate CA' -out intermediate.csr
x509 -req -in intermediate.csr -CA root.crt -CAkey root.key -days 1825 -extfile ca.ext -out intermediate.crt

genrsa -out client.key 2048
req -new -key client.key -subj /O=Example/OU=payments/CN=alice -out client.csr
x509 -req -in client.csr -CA intermediate.crt -CAkey intermediate.key -CAcreateserial -days 30 -out client.crt
pkcs12 -export -clcerts -in client.crt -inkey client.key -out client.p12 -passout pass:changeit
pkcs12 -export -in server.crt -inkey server.key -certfile root.crt -name tomcat -out server.p12 -passout pass:changeit

req -x509 -newkey rsa:2048 -nodes -keyout invalid.key -days 30 -subj /O=Example/OU=payments/CN=alice -out invalid.crt
"""

EXTENSIONS = {
    "server.ext": "subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n",
    "ca.ext": "basicConstraints=critical,CA:true\nkeyUsage=critical,keyCertSign,cRLSign\n",
}


@attrs.frozen
class Pki:
    """
    What somebody who sets up mutual TLS has.

    Attributes:
        root: What clients trust the server by.
        bundle: What the server trusts clients by.
        pair: Settings for the server's certificate and key.
        keystore: The same in one place, as Tomcat wants it where there is such a thing.
        client, invalid: Options of curl with a good pair, and with one from nowhere.
        client_p12: The good pair for browsers.
    """

    root: Path
    bundle: Path
    pair: dict[str, Any]
    keystore: dict[str, Any]
    client: tuple[str, ...]
    invalid: tuple[str, ...]
    client_p12: Path

    def curl(self, program: Program, *arguments: str) -> tuple[int, str, str]:
        """Run curl against /hello; return its status, what it printed, and what it complained of."""
        done = curl(program, "--cacert", str(self.root), *arguments, f"{program.url}/hello")
        return done.returncode, done.stdout, done.stderr


def _by_openssl(directory: Path) -> Pki:
    for name, text in EXTENSIONS.items():
        (directory / name).write_text(text)
    for line in filter(None, OPENSSL.splitlines()):
        done = openssl(*shlex.split(line), directory=directory)
        assert done.returncode == 0, f"{line}: {done.stderr}"
    bundle = directory / "bundle.crt"
    bundle.write_bytes(b"".join((directory / f"{name}.crt").read_bytes() for name in ("root", "intermediate")))
    return Pki(
        root=directory / "root.crt",
        bundle=bundle,
        pair={"tls_cert": str(directory / "server.crt"), "tls_key": str(directory / "server.key")},
        keystore={"tls_cert": str(directory / "server.p12"), "tls_key_password": PASSWORD},
        client=("--cert", str(directory / "client.crt"), "--key", str(directory / "client.key")),
        invalid=("--cert", str(directory / "invalid.crt"), "--key", str(directory / "invalid.key")),
        client_p12=directory / "client.p12",
    )


def _by_sidecar_certs(directory: Path) -> Pki:
    (directory / "password").write_text(PASSWORD)
    who = ("client", "alice", "--org", "Example", "--ou", "payments")
    sidecar_certs(directory, "ca", "--name", "Root CA")
    sidecar_certs(directory, "server", "localhost", "127.0.0.1")
    sidecar_certs(directory, *who, "--p12", "--password-file", "password")
    sidecar_certs(directory, "ca", "--name", "Root CA", "--dir", "other-ca")
    sidecar_certs(directory, *who, "--ca", "other-ca", "--out", "invalid")
    server = {"tls_cert": str(directory / "localhost")}
    return Pki(
        root=directory / "localhost" / "ca.crt",
        bundle=directory / "ca" / "ca.crt",
        pair=server,
        keystore=server,
        client=("--cert", str(directory / "alice" / "client.crt"), "--key", str(directory / "alice" / "client.key")),
        invalid=(
            *("--cert", str(directory / "invalid" / "client.crt")),
            *("--key", str(directory / "invalid" / "client.key")),
        ),
        client_p12=directory / "alice" / "client.p12",
    )


@pytest.fixture(scope="module", params=[_by_openssl, _by_sidecar_certs], ids=["openssl", "sidecar-certs"])
def pki(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pki:
    """What people have, however they came by it."""
    make: Callable[[Path], Pki] = request.param
    return make(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def by_openssl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that the lines of openssl leave behind."""
    directory = tmp_path_factory.mktemp("openssl")
    _by_openssl(directory)
    return directory


# -- S2 and S4: PEM files, refusals in HTTP -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def listener(app: App, pki: Pki, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """A listener with a certificate, a named policy, mutual authentication and a CA certificate."""
    with Program(
        tmp_path_factory.mktemp("listener"),
        upstream=app.upstream,
        tls_policy="ELBSecurityPolicy-TLS13-1-2-2021-06",
        client_cert="required",
        client_ca=str(pki.bundle),
        **pki.pair,
    ) as running:
        yield running


class TestListenerWithMutualAuthentication:
    def test_curl_with_the_pair_is_allowed(self, listener: Program, pki: Pki) -> None:
        """`curl --cert client.crt --key client.key --cacert root.crt https://NAME` prints the app's answer."""
        assert pki.curl(listener, "-f", *pki.client) == (0, "hello\n", "")

    def test_curl_with_the_browsers_file_is_allowed(self, listener: Program, pki: Pki) -> None:
        """The PKCS#12 file that people import into browsers holds the same."""
        packed = ("--cert-type", "P12", "--cert", f"{pki.client_p12}:{PASSWORD}")

        assert pki.curl(listener, "-f", *packed) == (0, "hello\n", "")

    @pytest.mark.parametrize("version", ["--tlsv1.2", "--tlsv1.3"])
    def test_policy_allows_both_versions(self, listener: Program, pki: Pki, version: str) -> None:
        """The policy's name means what it says elsewhere."""
        only = (version, "--tls-max", version.removeprefix("--tlsv"))

        assert pki.curl(listener, "-f", *only, *pki.client) == (0, "hello\n", "")


class TestVerifyClientOn:
    def test_without_certificate_the_handshake_succeeds_and_the_answer_is_400(
        self, listener: Program, pki: Pki
    ) -> None:
        """`curl -v -k -I` shows the TLS session, `400 Bad Request`, and `Connection: close`."""
        done = curl(listener, "--http1.1", "-v", "-k", "-I", f"{listener.url}/hello")

        assert done.returncode == 0
        assert "SSL connection using TLSv1.3" in done.stderr
        assert done.stdout.splitlines()[0] == "HTTP/1.1 400 Bad Request"
        assert "Connection: close" in done.stdout

    def test_with_certificate_the_answer_is_200_and_the_connection_stays(self, listener: Program, pki: Pki) -> None:
        """With `--key` and `--cert` it is `200 OK`, and the next request needs no new connection."""
        url = f"{listener.url}/hello"
        done = curl(listener, "-v", "-k", "-I", *pki.client, "-w", "%{http_code} %{num_connects}\n", url, url)

        assert [line for line in done.stdout.splitlines() if line[:3] == "200"] == ["200 1", "200 0"]
        assert "Connection: close" not in done.stdout

    def test_with_a_certificate_from_nowhere_the_answer_is_403(self, listener: Program, pki: Pki) -> None:
        """A certificate with the right name and the wrong origin is told so."""
        status, out, _ = pki.curl(listener, "-w", "%{http_code}", *pki.invalid)

        assert status == 0
        assert out.startswith("Refused: the client certificate ")
        assert out.endswith("403")


# -- S3: a keystore, a truststore, and three answers --------------------------------------------------------------


@pytest.fixture(scope="module")
def blocking(app: App, pki: Pki, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """Tomcat's clientAuth="true": clients without a good certificate do not get past the handshake."""
    with Program(
        tmp_path_factory.mktemp("blocking"),
        upstream=app.upstream,
        client_cert="required",
        client_refusal="handshake",
        client_ca=str(pki.bundle),
        access_log="text",
        **pki.keystore,
    ) as running:
        yield running


@pytest.fixture(scope="module")
def answering(app: App, pki: Pki, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """The same with answers that people can read."""
    with Program(
        tmp_path_factory.mktemp("answering"),
        upstream=app.upstream,
        client_cert="required",
        client_ca=str(pki.bundle),
        **pki.keystore,
    ) as running:
        yield running


class TestClientAuth:
    @pytest.mark.parametrize(
        ("version", "alert"), [("1.2", "alert handshake failure"), ("1.3", "alert certificate required")]
    )
    def test_no_certificate_is_blocked(self, blocking: Program, pki: Pki, version: str, alert: str) -> None:
        """It gets an alert, and curl names it."""
        status, out, complaint = pki.curl(blocking, f"--tlsv{version}", "--tls-max", version)

        assert status in (35, 56)
        assert out == ""
        assert alert in complaint

    @pytest.mark.parametrize("version", ["1.2", "1.3"])
    def test_invalid_certificate_is_blocked(self, blocking: Program, pki: Pki, version: str) -> None:
        """So does one from nowhere."""
        status, out, complaint = pki.curl(blocking, f"--tlsv{version}", "--tls-max", version, *pki.invalid)

        assert status in (35, 56)
        assert out == ""
        assert "alert unknown ca" in complaint or "alert decrypt error" in complaint

    def test_valid_certificate_is_served_and_its_name_logged(self, blocking: Program, pki: Pki) -> None:
        """The client's name shows in the access log, as text if that is wanted."""
        assert pki.curl(blocking, "-f", *pki.client) == (0, "hello\n", "")
        eventually(lambda: "client_subject=" in blocking.stdout, "the request is in the access log")
        assert "CN=alice,OU=payments,O=Example" in blocking.stdout

    def test_answers_are_400_403_and_200(self, answering: Program, pki: Pki) -> None:
        """With answers in HTTP: none 400, an invalid one 403, a valid one 200."""
        code = ("-o", "/dev/null", "-w", "%{http_code}")

        answers = [pki.curl(answering, *code, *pair)[1] for pair in ((), pki.invalid, pki.client)]

        assert answers == ["400", "403", "200"]
        assert answering.logged("/hello")["client_subject"] == "CN=alice,OU=payments,O=Example"

    def test_want_serves_clients_without_certificate(self, launch: Launch, app: App, pki: Pki) -> None:
        """clientAuth="want" is optional: only an invalid certificate is turned away."""
        program = launch(upstream=app.upstream, client_cert="optional", client_ca=str(pki.bundle), **pki.keystore)
        code = ("-o", "/dev/null", "-w", "%{http_code}")

        answers = [pki.curl(program, *code, *pair)[1] for pair in ((), pki.invalid, pki.client)]

        assert answers == ["200", "403", "200"]


def served_certificate(program: Program, root: Path) -> bytes:
    """The certificate that the sidecar shows, in DER."""
    with HttpsClient(program, context=client_context(trusted=root.read_text())) as client:
        assert client.get("/hello").status == 200
        return client.socket.getpeercert(binary_form=True) or b""


class TestKeystore:
    @pytest.mark.parametrize(
        "options",
        [
            pytest.param((), id="default"),
            pytest.param(("-legacy",), id="legacy"),
            pytest.param(("-keypbe", "PBE-SHA1-3DES", "-certpbe", "PBE-SHA1-3DES", "-macalg", "SHA1"), id="3DES"),
            pytest.param(("-keypbe", "AES-256-CBC", "-certpbe", "NONE"), id="certificates-in-clear"),
            pytest.param(("-iter", "100000", "-macalg", "SHA512"), id="many-rounds"),
        ],
    )
    def test_every_export_of_openssl_serves(
        self, launch: Launch, app: App, by_openssl: Path, tmp_path: Path, options: tuple[str, ...]
    ) -> None:
        """Whatever `openssl pkcs12 -export` was told, and with the password in a file."""
        file, password = tmp_path / "keystore.p12", tmp_path / "password"
        line = "pkcs12 -export -in server.crt -inkey server.key -certfile root.crt -passout pass:changeit -out"
        done = openssl(*line.split(), str(file), *options, directory=by_openssl)
        if "-legacy" in options and done.returncode != 0:
            pytest.skip("this openssl has no legacy provider")
        password.write_text(PASSWORD + "\n")

        program = launch(upstream=app.upstream, tls_cert=str(file), tls_key_password=str(password))

        expected = ssl.PEM_cert_to_DER_cert((by_openssl / "server.crt").read_text())
        assert served_certificate(program, by_openssl / "root.crt") == expected

    @pytest.mark.parametrize("encode", [base64.b64encode, base64.encodebytes], ids=["one-line", "wrapped"])
    def test_keystore_as_base64_in_the_variable_serves(
        self, launch: Launch, app: App, by_openssl: Path, encode: Callable[[bytes], bytes]
    ) -> None:
        """What `base64 server.p12` prints can stand in SIDECAR_TLS_CERT."""
        value = encode((by_openssl / "server.p12").read_bytes()).decode()

        program = launch(upstream=app.upstream, tls_cert=value, tls_key_password=PASSWORD)

        assert served_certificate(program, by_openssl / "root.crt")

    def test_keystore_without_password_serves(self, launch: Launch, app: App, by_openssl: Path, tmp_path: Path) -> None:
        """An empty password, which some tools cannot do without, needs no setting."""
        file = tmp_path / "keystore.p12"
        line = f"pkcs12 -export -in server.crt -inkey server.key -passout pass: -out {file}"
        assert openssl(*line.split(), directory=by_openssl).returncode == 0

        program = launch(upstream=app.upstream, tls_cert=str(file))

        assert served_certificate(program, by_openssl / "root.crt")


class TestCertificateWithoutExtensions:
    def test_server_certificate_of_two_lines_serves_with_a_warning(
        self, launch: Launch, app: App, by_openssl: Path, tmp_path: Path
    ) -> None:
        """`openssl x509 -req` without -extfile makes one without names: curl takes it, browsers do not."""
        line = "x509 -req -in server.csr -CA root.crt -CAkey root.key -days 3650 -out"
        assert openssl(*line.split(), str(tmp_path / "plain.crt"), directory=by_openssl).returncode == 0

        program = launch(
            upstream=app.upstream, tls_cert=str(tmp_path / "plain.crt"), tls_key=str(by_openssl / "server.key")
        )

        done = curl(program, "--cacert", str(by_openssl / "root.crt"), f"{program.url}/hello")
        assert done.stdout == "hello\n"
        assert "SIDECAR_TLS_CERT" in program.stderr
        assert "has no subject alternative name" in program.stderr


class TestTruststore:
    def _statuses(self, program: Program, by_openssl: Path, directory: Path) -> list[int]:
        """What alice, a client of the second root, and a client of a third get."""
        root = (by_openssl / "root.crt").read_text()
        alice = directory / "alice.pem"
        alice.write_bytes((by_openssl / "client.crt").read_bytes() + (by_openssl / "client.key").read_bytes())
        second = write_identity(authority().issue("bob", purposes=CLIENT), directory / "bob.pem")
        third = write_identity(other_authority().issue("eve", purposes=CLIENT), directory / "eve.pem")
        statuses = []
        for identity in (alice, second, third):
            with HttpsClient(program, context=client_context(identity=identity, trusted=root)) as client:
                statuses.append(client.get("/hello").status)
        return statuses

    @pytest.fixture
    def bundle(self, by_openssl: Path, tmp_path: Path) -> Path:
        """A bundle with two roots and an intermediate."""
        file = tmp_path / "truststore.pem"
        file.write_bytes(
            (by_openssl / "intermediate.crt").read_bytes()
            + authority().cert_pem
            + (by_openssl / "root.crt").read_bytes()
        )
        return file

    def _settings(self, app: App, by_openssl: Path) -> dict[str, Any]:
        keystore = {"tls_cert": str(by_openssl / "server.p12"), "tls_key_password": PASSWORD}
        return {"upstream": app.upstream, "client_cert": "required", **keystore}

    def test_bundle_lets_in_clients_of_all_its_roots(
        self, launch: Launch, app: App, by_openssl: Path, bundle: Path, tmp_path: Path
    ) -> None:
        """Several roots in one file are all trusted, and nobody else."""
        program = launch(**self._settings(app, by_openssl), client_ca=str(bundle))

        assert self._statuses(program, by_openssl, tmp_path) == [200, 200, 403]

    @pytest.mark.parametrize("password", ["", PASSWORD], ids=["no-password", "password"])
    def test_truststore_in_json_lets_in_clients_of_all_its_roots(
        self, launch: Launch, app: App, by_openssl: Path, bundle: Path, tmp_path: Path, password: str
    ) -> None:
        """A PKCS#12 truststore and its password, as a secret manager keeps them together."""
        file = self._keystore_of(bundle, password)
        value = {"truststore": base64.b64encode(file.read_bytes()).decode(), "password": password}

        program = launch(**self._settings(app, by_openssl), client_ca=json.dumps(value))

        assert self._statuses(program, by_openssl, tmp_path) == [200, 200, 403]

    def _keystore_of(self, bundle: Path, password: str) -> Path:
        """The bundle as PKCS#12."""
        file = bundle.with_suffix(".p12")
        done = openssl(*f"pkcs12 -export -nokeys -in {bundle} -out {file} -passout pass:{password}".split())
        assert done.returncode == 0, done.stderr
        return file

    @pytest.mark.parametrize(
        "password",
        [
            pytest.param("", id="no-password"),
            pytest.param(PASSWORD, id="password"),
        ],
    )
    def test_truststore_file_lets_in_clients_of_all_its_roots(
        self, launch: Launch, app: App, by_openssl: Path, bundle: Path, tmp_path: Path, password: str
    ) -> None:
        """Tomcat's truststore as it is, with the password that keystore and truststore usually share."""
        file = self._keystore_of(bundle, password)

        program = launch(**self._settings(app, by_openssl), client_ca=str(file))

        assert self._statuses(program, by_openssl, tmp_path) == [200, 200, 403]

    def test_root_alone_is_enough_for_clients_that_send_their_intermediate(
        self, launch: Launch, app: App, by_openssl: Path, tmp_path: Path
    ) -> None:
        """Who sends only the leaf is refused then, and reads that the CA is not known."""
        program = launch(**self._settings(app, by_openssl), client_ca=str(by_openssl / "root.crt"))
        chain = tmp_path / "chain.crt"
        chain.write_bytes((by_openssl / "client.crt").read_bytes() + (by_openssl / "intermediate.crt").read_bytes())
        common = ("--cacert", str(by_openssl / "root.crt"), "--key", str(by_openssl / "client.key"))

        whole = curl(program, *common, "--cert", str(chain), f"{program.url}/hello")
        leaf = curl(program, *common, "--cert", str(by_openssl / "client.crt"), f"{program.url}/hello")

        assert whole.stdout == "hello\n"
        assert "does not come from a CA that is trusted here" in leaf.stdout


# -- what none of them can ---------------------------------------------------------------------------------------

MISSING = b"This server requires a client certificate; none was sent.\n"
OF_THE_APP = (404, b"no such path\n")
"""What the app says to a path that it does not have: the request got through."""


def _client(directory: Path, name: str, unit: str) -> Path:
    subject = x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit), x509.NameAttribute(NameOID.COMMON_NAME, name)]
    )
    return write_identity(authority().issue(name, purposes=CLIENT, subject=subject), directory / f"{name}.pem")


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path | None]:
    """Clients by name; nobody has no certificate, eve one from nowhere."""
    directory = tmp_path_factory.mktemp("clients")
    return {
        "nobody": None,
        "ops": _client(directory, "ops", "operations"),
        "web": _client(directory, "web", "frontend"),
        "eve": write_identity(other_authority().issue("ops", purposes=CLIENT), directory / "eve.pem"),
    }


@pytest.fixture(scope="module")
def ca_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test root."""
    file = tmp_path_factory.mktemp("ca") / "ca.crt"
    file.write_bytes(authority().cert_pem)
    return file


@pytest.fixture(scope="module")
def exempting(app: App, ca_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """A sidecar that requires certificates but for two paths."""
    with Program(
        tmp_path_factory.mktemp("exempting"),
        upstream=app.upstream,
        client_cert="required",
        client_ca=str(ca_file),
        client_cert_exempt="/service,/healthz",
    ) as running:
        yield running


class TestExemptPaths:
    @pytest.mark.parametrize("client", ["nobody", "web", "eve"])
    @pytest.mark.parametrize("target", ["/service", "/healthz", "/service?deep=1", "/%73ervice"])
    def test_exempt_path_is_served_to_anybody(
        self, exempting: Program, clients: dict[str, Path | None], client: str, target: str
    ) -> None:
        """A health check needs no certificate, and what it shows is not looked at."""
        with HttpsClient(exempting, context=client_context(identity=clients[client])) as connection:
            response = connection.get(target)

        assert (response.status, response.body) == OF_THE_APP

    @pytest.mark.parametrize(
        "target",
        [
            "/",
            "/hello",
            "/servicex",
            "/service/",
            "/service/internal",
            "/SERVICE",
            "//service",
            "/service;v=1",
            "/service/../hello",
            "/hello/../service",
            "/hello;/../service",
            "/service%2f..%2fhello",
            "/service%00",
            "/hello?/service",
            "/hello#/service",
            "https://localhost/hello",
        ],
    )
    def test_all_else_is_refused(self, exempting: Program, app: App, target: str) -> None:
        """Nothing that an app could read as another path passes for an exempt one."""
        before = len(app.requests)
        with HttpsClient(exempting) as connection:
            response = connection.get(target)

        assert response.status == 400
        assert len(app.requests) == before

    def test_refusal_says_what_is_missing(self, exempting: Program) -> None:
        """The same sentence as without exempt paths; and the connection ends."""
        with HttpsClient(exempting) as connection:
            assert connection.get("/service").status == 404
            assert connection.get("/hello").body == MISSING
            assert connection.is_closed()

    def test_certificate_opens_the_rest(self, exempting: Program, clients: dict[str, Path | None]) -> None:
        """Clients with a good certificate are served everywhere."""
        with HttpsClient(exempting, context=client_context(identity=clients["web"])) as connection:
            assert connection.get("/hello").status == 200


RULES = """\
client:
  cert: required
  ca: {ca}
  rules:
    - name: probes
      path: [/service, /healthz]
      method: GET
      client_cert: none
    - name: operators
      path: /admin/*
      allow: ou=operations
    - name: uploads
      method: [PUT, DELETE]
      allow: [cn=web]
    - name: public
      host: "*.public.example"
      client_cert: optional
    - name: frozen
      path: /frozen/*
      deny: cn=web
"""


@pytest.fixture(scope="module")
def ruled(app: App, ca_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """A sidecar with the rules."""
    directory = tmp_path_factory.mktemp("ruled")
    file = directory / "sidecar.yaml"
    file.write_text(RULES.format(ca=ca_file))
    with Program(directory, upstream=app.upstream, config=str(file)) as running:
        yield running


class TestRules:
    @pytest.mark.parametrize(
        ("method", "host", "path", "nobody", "ops", "web", "eve"),
        [
            ("GET", "localhost", "/service", 200, 200, 200, 200),
            ("HEAD", "localhost", "/healthz", 200, 200, 200, 200),
            ("POST", "localhost", "/service", 400, 200, 200, 403),
            ("GET", "localhost", "/admin/x", 400, 200, 403, 403),
            ("GET", "localhost", "/ADMIN/x", 400, 200, 403, 403),
            ("GET", "localhost", "/admin", 400, 200, 403, 403),
            ("PUT", "localhost", "/x", 400, 403, 200, 403),
            ("DELETE", "a.public.example", "/x", 400, 403, 200, 403),
            ("GET", "a.public.example", "/x", 200, 200, 200, 403),
            ("GET", "A.PUBLIC.example:443", "/x", 200, 200, 200, 403),
            ("GET", "public.example", "/x", 400, 200, 200, 403),
            ("GET", "a.public.example", "/admin/x", 400, 200, 403, 403),
            ("GET", "localhost", "/frozen/x", 400, 200, 403, 403),
            ("GET", "localhost", "/anything", 400, 200, 200, 403),
        ],
    )
    def test_each_client_gets_what_the_first_fitting_rule_says(
        self,
        ruled: Program,
        clients: dict[str, Path | None],
        method: str,
        host: str,
        path: str,
        nobody: int,
        ops: int,
        web: int,
        eve: int,
    ) -> None:
        """Rules in a file decide by path, method and host; where they let a request through, the app answers."""
        found = {}
        for name, identity in clients.items():
            with HttpsClient(ruled, context=client_context(identity=identity)) as connection:
                connection.send(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n".encode())
                found[name] = connection.response(method).status

        expected = {"nobody": nobody, "ops": ops, "web": web, "eve": eve}
        assert found == {name: 404 if status == 200 else status for name, status in expected.items()}

    def test_log_names_the_rule(self, ruled: Program, clients: dict[str, Path | None]) -> None:
        """An operator reads which rule refused whom."""
        with HttpsClient(ruled, context=client_context(identity=clients["web"])) as connection:
            connection.get("/admin/secrets")

        line = ruled.logged("/admin/secrets")
        assert line["reason"] == "client_not_authorized"
        assert "rule operators" in line["detail"]
        assert line["client_subject"] == "CN=web,OU=frontend"

    def test_handshake_cannot_refuse_by_path(self, ca_file: Path) -> None:
        """Alerts come before the path is known: the two settings together are refused, and why is said."""
        done = run_to_end(
            client_cert="required", client_ca=str(ca_file), client_cert_exempt="/service", client_refusal="handshake"
        )

        assert done.returncode == 78
        assert "SIDECAR_CLIENT_REFUSAL (environment): handshake: the handshake ends before the path" in done.stderr
