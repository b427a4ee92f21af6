"""
Ensures that a person with a certificate in the browser sees the app, and a person without one is told what is missing.

Chromium keeps certificates in NSS's database below HOME, so each browser here gets a HOME of its own. It asks which
certificate to send; the preference that an administrator's AutoSelectCertificateForUrls sets spares it the question.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.scenarios.clients import openssl, sidecar_certs, write_identity
from tests.support.apps import App
from tests.support.certs import CLIENT, authority, pem, revocation_list
from tests.support.program import Program

PASSWORD = "correct horse battery"

DEADLINE_SECONDS = 30.0


@attrs.frozen
class Browser:
    """
    A headless Chromium that trusts the test root.

    Attributes:
        home: Its HOME, with everything it keeps.
    """

    home: Path

    @property
    def _database(self) -> str:
        return f"sql:{self.home}/.pki/nssdb"

    def prepare(self) -> None:
        """Make its HOME."""
        (self.home / ".pki" / "nssdb").mkdir(parents=True)
        root = self.home / "root.pem"
        root.write_bytes(authority().cert_pem)
        self._run("certutil", "-N", "-d", self._database, "--empty-password")
        self._run("certutil", "-A", "-d", self._database, "-t", "C,,", "-n", "root", "-i", str(root))
        always = json.dumps({"pattern": "*", "filter": {}})
        profile = self.home / "profile" / "Default"
        profile.mkdir(parents=True)
        preferences = {"profile": {"managed_auto_select_certificate_for_urls": [always]}}
        (profile / "Preferences").write_text(json.dumps(preferences))

    def import_identity(self, file: Path) -> None:
        """Import a PKCS#12 file, as a person does who was sent one."""
        self._run("pk12util", "-i", str(file), "-d", self._database, "-W", PASSWORD, "-K", "")

    def page(self, program: Program, path: str) -> str:
        """Open *path*; return what is shown, as HTML."""
        return self._run(
            "chromium",
            "--headless=new",
            "--dump-dom",
            "--no-sandbox",  # which root has not, and most containers neither
            "--no-first-run",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost",
            f"--user-data-dir={self.home}/profile",
            program.url + path,
        )

    def _run(self, *command: str) -> str:
        environ = {**os.environ, "HOME": str(self.home), "XDG_CONFIG_HOME": str(self.home / ".config")}
        environ["XDG_CACHE_HOME"] = str(self.home / ".cache")
        done = subprocess.run(
            command,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def browser(tmp_path: Path) -> Browser:
    """A browser without a client certificate."""
    browser = Browser(tmp_path / "home")
    browser.prepare()
    return browser


@pytest.fixture(scope="module")
def private_ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `sidecar certs` makes for alice: her client.p12, and the CA."""
    directory = tmp_path_factory.mktemp("private-ca")
    (directory / "password").write_text(PASSWORD + "\n")
    sidecar_certs(directory, "ca", "--name", "Private CA")
    sidecar_certs(directory, "client", "alice", "--p12", "--password-file", "password")
    sidecar_certs(directory, "crl")
    return directory


REVOKED = authority().issue("bob", purposes=CLIENT)


@pytest.fixture(scope="module")
def program(app: App, private_ca: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """A sidecar that requires certificates of the test root or of the private CA."""
    directory = tmp_path_factory.mktemp("sidecar")
    ca, crl = directory / "ca.crt", directory / "ca.crl"
    private = x509.load_pem_x509_certificate((private_ca / "ca" / "ca.crt").read_bytes())
    ca.write_bytes(pem(authority().certificate, private))
    revoked = revocation_list(authority(), REVOKED.certificate).public_bytes(Encoding.PEM)
    crl.write_bytes(revoked + (private_ca / "ca" / "ca.crl").read_bytes())
    with Program(
        directory, upstream=app.upstream, client_cert="required", client_ca=str(ca), client_crl=str(crl)
    ) as running:
        yield running


def _of_openssl(name: str, directory: Path, private_ca: Path) -> Path:
    """Export as people do who have certificate and key."""
    issued = REVOKED if name == "bob" else authority().issue(name, purposes=CLIENT)
    pair, file = write_identity(issued, directory / "client.pem"), directory / "client.p12"
    done = openssl("pkcs12", "-export", "-clcerts", "-in", str(pair), "-out", str(file), "-passout", f"pass:{PASSWORD}")
    assert done.returncode == 0, done.stderr
    return file


def _of_sidecar_certs(name: str, directory: Path, private_ca: Path) -> Path:
    return private_ca / name / "client.p12"


class TestBrowser:
    @pytest.mark.parametrize("made", [_of_openssl, _of_sidecar_certs], ids=["openssl", "sidecar-certs"])
    def test_imported_certificate_opens_the_app(
        self,
        browser: Browser,
        program: Program,
        private_ca: Path,
        tmp_path: Path,
        made: Callable[[str, Path, Path], Path],
    ) -> None:
        """Whoever imported the .p12 file sees the page of the app, and is known by name."""
        browser.import_identity(made("alice", tmp_path, private_ca))
        path = f"/hello/{made.__name__}"

        assert "hello\n" in browser.page(program, path)

        line = program.logged(path)
        assert (line["status"], line["client_subject"], line["principal"]) == (200, "CN=alice", "alice")

    def test_without_certificate_the_page_says_what_is_missing(self, browser: Browser, program: Program) -> None:
        """A person reads the reason in the window, where a TLS alert would be an error page of the browser."""
        page = browser.page(program, "/hello/nobody")

        assert "This server requires a client certificate; none was sent." in page
        assert program.logged("/hello/nobody")["status"] == 400

    def test_revoked_certificate_is_told_so(self, browser: Browser, program: Program, tmp_path: Path) -> None:
        """The same for a certificate that is no longer good."""
        browser.import_identity(_of_openssl("bob", tmp_path, tmp_path))

        assert "Refused: the client certificate has been revoked." in browser.page(program, "/hello/bob")
