"""`pki.issuing`: a CA, and certificates for servers and clients, in one command each."""

from __future__ import annotations

import errno
import io
import os
import re
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key, pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID

from sidecar.certs.anchors import load_anchors
from sidecar.certs.bundle import Bundle, load_bundles
from sidecar.cli_certs import main
from tests.support.certs import DAY, NOW
from tests.support.shell import Shell, certificate, files, mode


def sans(file: str) -> list[str]:
    names = certificate(file).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name.value) for name in names]


def load(directory: str) -> Bundle:
    """What the server makes of *directory*; nothing may be wrong with it."""
    (bundle,), found = load_bundles([Path(directory)], [], None, NOW)
    assert found == []
    return bundle


class TestCa:
    def test_files_are_for_their_owner(self, bare: Shell) -> None:
        """The directory and the key are closed to others, and the answer says what comes next."""
        out = bare.good("ca", "--name", "Example CA", "--dir", "d")
        assert (mode("d"), mode("d/ca.key"), mode("d/ca.crt")) == (0o700, 0o600, 0o644)
        assert certificate("d/ca.crt").subject.rfc4514_string() == "CN=Example CA"
        assert "until 2036" in out or "(3650 days left)" in out
        assert "sidecar certs server NAME --ca d" in out

    def test_ca_is_never_overwritten(self, shell: Shell) -> None:
        """A second run names what is there and what to do with it."""
        before = Path("ca/ca.key").read_bytes()
        refusal = shell.refusal("ca")
        assert "already there, and not overwritten: ca/ca.crt, ca/ca.key; use the CA that is there" in refusal
        assert Path("ca/ca.key").read_bytes() == before

    def test_register_of_a_lost_ca_is_not_taken_over(self, bare: Shell) -> None:
        """Serial numbers of one CA mean nothing to another."""
        Path("ca").mkdir()
        Path("ca/issued.txt").write_text("crl-number 9\n")
        assert "ca/issued.txt" in bare.refusal("ca")
        assert files("ca") == ["issued.txt"]

    @pytest.mark.parametrize("kind", ["p384", "rsa2048", "ed25519"])
    def test_each_kind_of_key_issues(self, bare: Shell, kind: str) -> None:
        """What it issues can be loaded by the proxy."""
        bare.good("ca", "--key", kind)
        bare.good("server", "localhost", "--key", kind)
        load("localhost")
        load_anchors(Path("localhost"), NOW)

    def test_password_encrypts_the_key(self, bare: Shell) -> None:
        """It is asked for from then on."""
        Path("pw").write_text("correct horse\n")
        bare.good("ca", "--ca-password-file", "pw")
        assert load_pem_private_key(Path("ca/ca.key").read_bytes(), b"correct horse")
        assert "--ca-password-file" in bare.refusal("server", "localhost")
        bare.good("server", "localhost", "--ca-password-file", "pw")

    @pytest.mark.parametrize(
        ("content", "message"),
        [("secret1\n", "has 7 bytes, the least is 8"), ("\nlong enough\n", "first line of pw is empty")],
    )
    def test_bad_password_is_refused(self, bare: Shell, content: str, message: str) -> None:
        """An empty or short one would be no protection; it is not shown."""
        Path("pw").write_text(content)
        refusal = bare.refusal("ca", "--ca-password-file", "pw")
        assert message in refusal
        assert "secret1" not in refusal
        assert not Path("ca").exists()

    def test_bad_name_is_usage(self, bare: Shell) -> None:
        """Nothing is made before the name is right."""
        assert "the limit is 64" in bare.refusal("ca", "--name", "x" * 65, status=2)
        assert not Path("ca").exists()


class TestServer:
    def test_directory_is_what_the_proxy_takes(self, shell: Shell) -> None:
        """The kubernetes.io/tls layout, under the first name."""
        out = shell.good("server", "api.example.com", "10.0.0.5", "*.bücher.example")
        assert files("api.example.com") == ["ca.crt", "tls.crt", "tls.key"]
        assert (mode("api.example.com"), mode("api.example.com/tls.key")) == (0o700, 0o600)
        bundle = load("api.example.com")
        assert sans("api.example.com/tls.crt") == ["api.example.com", "10.0.0.5", "*.xn--bcher-kva.example"]
        assert load_anchors(Path("api.example.com"), NOW) == (certificate("ca/ca.crt"),)
        bundle.leaf.verify_directly_issued_by(certificate("ca/ca.crt"))
        assert f"SIDECAR_TLS_CERT={Path('api.example.com').absolute()} sidecar run" in out
        assert "curl --cacert api.example.com/ca.crt https://api.example.com/" in out
        assert "(90 days left)" in out

    @pytest.mark.parametrize(
        ("name", "directory", "url"),
        [
            ("*.example.com", "wildcard.example.com", "https://HOST.example.com/"),
            ("::1", "1", "https://[::1]/"),
            ("spiffe://ex.org/../a", None, ""),
            ("spiffe://ex.org/a", "spiffe_ex.org_a", "https://HOST/"),
        ],
    )
    def test_first_name_makes_a_safe_directory(self, shell: Shell, name: str, directory: str | None, url: str) -> None:
        """No name leads out of the current directory or into a hidden one."""
        if directory is None:
            shell.refusal("server", name, status=2)
            assert files(".") == ["ca"]
        else:
            assert url in shell.good("server", name)
            assert files(".") == sorted(["ca", directory])

    def test_existing_files_are_kept_until_replace(self, shell: Shell) -> None:
        """A renewal is asked for; without that nothing changes, nor is anything recorded."""
        shell.good("server", "localhost")
        before, register = Path("localhost/tls.crt").read_bytes(), Path("ca/issued.txt").read_bytes()
        refusal = shell.refusal("server", "localhost")
        assert "localhost/tls.key, localhost/tls.crt, localhost/ca.crt; renew it with --replace" in refusal
        assert (Path("localhost/tls.crt").read_bytes(), Path("ca/issued.txt").read_bytes()) == (before, register)
        shell.good("server", "localhost", "--replace")
        assert Path("localhost/tls.crt").read_bytes() != before
        load("localhost")

    def test_leaf_that_would_outlive_its_ca_is_cut_and_said(self, bare: Shell) -> None:
        """Nobody finds out by an outage."""
        bare.good("ca", "--days", "10")
        out = bare.good("server", "localhost")
        assert "note: it ends with its CA, earlier than the 90 days asked for" in out
        assert certificate("localhost/tls.crt").not_valid_after_utc == NOW + 10 * DAY
        assert "note:" not in bare.good("server", "localhost", "--replace", "--days", "10")

    def test_expired_ca_issues_nothing(self, bare: Shell) -> None:
        """What it signed nobody would take."""
        bare.good("ca", "--days", "10")
        assert "and the clock says" in bare.refusal("server", "localhost", days_later=10)

    def test_missing_ca_says_how_to_make_one(self, bare: Shell) -> None:
        """The first command of a newcomer fails with the one to run before."""
        assert "make a CA with: sidecar certs ca" in bare.refusal("server", "localhost")

    def test_full_disk_leaves_no_pair_behind(self, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
        """The key alone would make the next run stop."""
        real = os.replace

        def replace(source: Path, target: Path) -> None:
            if target.name == "ca.crt":
                raise OSError(errno.ENOSPC, "No space left on device")
            real(source, target)

        monkeypatch.setattr(os, "replace", replace)
        assert "localhost/ca.crt cannot be written: No space left on device" in shell.refusal("server", "localhost")
        assert files("localhost") == []


class TestClient:
    def test_files_are_a_pair(self, shell: Shell) -> None:
        """The certificate is for clients, and the lines to use and demand it name the files."""
        out = shell.good("client", "Alice Example", "alice@example.com", "--org", "Example Ltd", "--ou", "Ops")
        assert files("Alice_Example") == ["client.crt", "client.key"]
        assert mode("Alice_Example/client.key") == 0o600
        leaf = certificate("Alice_Example/client.crt")
        assert leaf.subject.rfc4514_string() == "CN=Alice Example,OU=Ops,O=Example Ltd"
        usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
        assert "for Alice Example, alice@example.com, until" in out
        assert "SIDECAR_CLIENT_CERT=required SIDECAR_CLIENT_CA=ca/ca.crt" in out
        assert "--cert Alice_Example/client.crt --key Alice_Example/client.key --cacert ca/ca.crt" in out

    def test_given_password_opens_the_pkcs12_file_and_is_not_shown(self, shell: Shell) -> None:
        """Only the first line counts, and a line feed does not."""
        Path("pw").write_text("correct horse\nsecond line\n")
        out = shell.good("client", "ci", "--p12", "--password-file", "pw")
        assert "horse" not in out
        assert mode("ci/client.p12") == 0o600
        packed = pkcs12.load_pkcs12(Path("ci/client.p12").read_bytes(), b"correct horse")
        assert packed.cert is not None
        assert packed.cert.certificate == certificate("ci/client.crt")

    @pytest.mark.parametrize("option", ["--p12", "--p12-modern"])
    def test_made_password_is_shown_when_asked_for(self, shell: Shell, option: str) -> None:
        """It opens the file, and there is another one each time."""
        seen = set()
        for name in ("a", "b"):
            match = re.search(
                r"password, shown only now: (\w{24})$", shell.good("client", name, option, "--show-password"), re.M
            )
            assert match is not None
            assert pkcs12.load_pkcs12(Path(name, "client.p12").read_bytes(), match[1].encode()).key is not None
            seen.add(match[1])
        assert len(seen) == 2

    def test_made_password_does_not_end_in_a_log(self, shell: Shell) -> None:
        """If standard output is no terminal somebody has to have asked for it; nothing is made otherwise."""
        assert "--password-file FILE, or --show-password" in shell.refusal("client", "ci", "--p12", status=2)
        assert not Path("ci").exists()

    def test_terminal_shows_it_without_asking(self, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
        """A person in front of it is whom it is for."""
        terminal = io.StringIO()
        monkeypatch.setattr(terminal, "isatty", lambda: True)
        monkeypatch.setattr(sys, "stdout", terminal)
        assert main(["client", "ci", "--p12"], NOW) == 0
        assert "password, shown only now: " in terminal.getvalue()

    def test_existing_pkcs12_file_stops_it(self, shell: Shell) -> None:
        """All files are looked for before one is made."""
        Path("ci").mkdir()
        Path("ci/client.p12").write_bytes(b"old")
        assert "ci/client.p12" in shell.refusal("client", "ci", "--p12", "--show-password")
        assert files("ci") == ["client.p12"]
