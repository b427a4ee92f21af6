"""`sidecar.cli_certs`: the commands of the private CA. Servers are looked at in the scenarios."""

from __future__ import annotations

import errno
import io
import os
import re
import stat
import sys
from pathlib import Path

import attrs
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key, pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sidecar.certs.bundle import load_anchors, load_bundle
from sidecar.cli_certs import main
from tests.support.certs import CLIENT, DAY, NOW, authority, ecdsa_key


@attrs.frozen
class Answer:
    """What a command said."""

    status: int
    out: str
    err: str


class Shell:
    """Runs commands in a directory that has a CA."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str, days_later: int = 0) -> Answer:
        status = main(arguments, NOW + days_later * DAY)
        out, err = self._capsys.readouterr()
        assert "PRIVATE KEY" not in out + err
        return Answer(status, out, err)

    def good(self, *arguments: str, days_later: int = 0) -> str:
        """Run a command that must succeed without a warning; its output."""
        answer = self(*arguments, days_later=days_later)
        assert (answer.status, answer.err) == (0, "")
        return answer.out

    def refusal(self, *arguments: str, status: int = 78, days_later: int = 0) -> str:
        """Run a command that must fail; its one line."""
        answer = self(*arguments, days_later=days_later)
        assert (answer.status, answer.out) == (status, "")
        assert answer.err.startswith("sidecar certs: ")
        assert answer.err.count("\n") == 1
        return answer.err


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """A shell in an empty directory."""
    monkeypatch.chdir(tmp_path)
    return Shell(capsys)


@pytest.fixture
def shell(bare: Shell) -> Shell:
    """A shell beside a CA."""
    bare.good("ca")
    return bare


def certificate(file: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(Path(file).read_bytes())


def sans(file: str) -> list[str]:
    names = certificate(file).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name.value) for name in names]


def mode(file: str) -> int:
    return stat.S_IMODE(Path(file).stat().st_mode)


def files(directory: str) -> list[str]:
    return sorted(path.name for path in Path(directory).iterdir())


def write_request(file: str, *extensions: x509.ExtensionType, name: str = "web.example") -> None:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    for wanted in extensions:
        builder = builder.add_extension(wanted, critical=False)
    Path(file).write_bytes(builder.sign(ecdsa_key(), hashes.SHA256()).public_bytes(Encoding.PEM))


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
        load_bundle(Path("localhost"), None, NOW)
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
        bundle = load_bundle(Path("api.example.com"), None, NOW)
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
        load_bundle(Path("localhost"), None, NOW)

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

    def test_exposed_ca_key_is_a_warning(self, shell: Shell) -> None:
        """The work is done, and the line says what to type."""
        Path("ca/ca.key").chmod(0o644)
        answer = shell("server", "localhost")
        assert answer.status == 0
        assert answer.err == ("sidecar certs: warning: others than its owner may read ca/ca.key; chmod 600 ca/ca.key\n")

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


class TestSign:
    def test_names_come_from_the_request(self, shell: Shell) -> None:
        """The certificate goes beside the request, for servers unless told."""
        wanted = x509.SubjectAlternativeName([x509.DNSName("a.example"), x509.DNSName("b.example")])
        write_request("web.csr", wanted)
        out = shell.good("sign", "web.csr")
        assert sans("web.crt") == ["a.example", "b.example"]
        assert "server certificate for a.example, b.example, until" in out

    def test_name_option_is_instead_of_its_names(self, shell: Shell) -> None:
        """Who signs decides."""
        write_request("web.csr")
        shell.good(
            "sign", "web.csr", "--client", "--name", "ci", "--name", "ci@example.com", "--org", "Ex", "--out", "x"
        )
        assert certificate("x").subject.rfc4514_string() == "CN=ci,O=Ex"
        assert sans("x") == ["ci@example.com"]

    def test_what_a_request_must_not_have_is_left_out_and_said(self, shell: Shell) -> None:
        """CA:TRUE, purposes and unknown extensions are not copied."""
        write_request(
            "web.csr",
            x509.BasicConstraints(ca=True, path_length=None),
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.CODE_SIGNING]),
            x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"),
        )
        answer = shell("sign", "web.csr")
        assert answer.status == 0
        assert [line.removeprefix("sidecar certs: warning: ") for line in answer.err.splitlines()] == [
            "the request asks for a CA certificate; that was not granted",
            "the extension 1.2.3.4 of the request was left out",
        ]
        extensions = certificate("web.crt").extensions
        assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        usage = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
        assert "1.2.3.4" not in {extension.oid.dotted_string for extension in extensions}

    def test_request_that_was_tampered_with_is_refused(self, shell: Shell) -> None:
        """Nobody gets a certificate for a key that is not theirs."""
        write_request("web.csr")
        der = x509.load_pem_x509_csr(Path("web.csr").read_bytes()).public_bytes(Encoding.DER)
        Path("web.csr").write_bytes(der.replace(b"web.example", b"wed.example"))
        assert "not signed by the key that is in it" in shell.refusal("sign", "web.csr", "--name", "a.example")
        assert not Path("web.crt").exists()

    @pytest.mark.parametrize("name", ["Web Server", "*.com"])
    def test_bad_name_in_the_request_is_bad_material(self, shell: Shell, name: str) -> None:
        """The fix includes the option that gives other names."""
        write_request("web.csr", name=name)
        refusal = shell.refusal("sign", "web.csr")
        assert "web.csr: " in refusal
        assert "; --name gives other names" in refusal

    def test_name_option_is_checked_as_usage(self, shell: Shell) -> None:
        """What was typed is whose fault it is."""
        write_request("web.csr")
        assert "'a b' is neither" in shell.refusal("sign", "web.csr", "--name", "a b", status=2)

    def test_file_without_request_is_refused(self, shell: Shell) -> None:
        """A certificate is the likely mistake."""
        assert "holds 0 certificate signing requests" in shell.refusal("sign", "ca/ca.crt")

    def test_certificate_is_not_written_over_something(self, shell: Shell) -> None:
        """Not even over the request, if that has the odd ending."""
        write_request("web.crt")
        assert "already there" in shell.refusal("sign", "web.crt")


class TestRevoke:
    def crl(self) -> x509.CertificateRevocationList:
        return x509.load_pem_x509_crl(Path("ca/ca.crl").read_bytes())

    def number(self) -> int:
        return self.crl().extensions.get_extension_for_class(x509.CRLNumber).value.crl_number

    def test_file_and_number_are_revoked_at_once(self, shell: Shell) -> None:
        """The new list is there in the same step, so that nobody forgets it."""
        for name in ("a", "b", "c"):
            shell.good("client", name)
        serials = [certificate(f"{name}/client.crt").serial_number for name in ("a", "b", "c")]
        out = shell.good("revoke", "a/client.crt", f"0x{serials[1]:040X}")
        assert {entry.serial_number for entry in self.crl()} == set(serials[:2])
        assert f"revoked {serials[0]:x} (client, CN=a)" in out
        assert "list number 1, revoked certificates: 2" in out

    def test_number_as_openssl_prints_it_is_understood(self, shell: Shell) -> None:
        """Octets with colons are copied from there."""
        shell.good("server", "localhost")
        digits = f"{certificate('localhost/tls.crt').serial_number:040x}"
        shell.good("revoke", ":".join(digits[place : place + 2] for place in range(0, 40, 2)))
        assert len(self.crl()) == 1

    def test_second_time_keeps_the_date(self, shell: Shell) -> None:
        """It is said, and the list goes on."""
        shell.good("client", "a")
        shell.good("revoke", "a/client.crt")
        out = shell.good("revoke", "a/client.crt", days_later=1)
        assert "was revoked on" in out
        assert next(iter(self.crl())).revocation_date_utc == NOW
        assert self.number() == 2

    def test_certificate_of_the_ca_that_is_not_in_the_register_can_be_revoked(self, shell: Shell) -> None:
        """A CA of another origin has issued before."""
        shell.good("client", "a")
        Path("ca/issued.txt").unlink()
        shell.good("revoke", "a/client.crt")
        assert len(self.crl()) == 1
        assert " unknown CN=a" in Path("ca/issued.txt").read_text()

    @pytest.mark.parametrize(
        ("target", "message"),
        [
            pytest.param("stranger.crt", "is not a certificate of the CA in ca", id="stranger"),
            pytest.param("ca/ca.crt", "is the CA itself", id="ca"),
            pytest.param("ca/ca.key", "is not a certificate of the CA", id="key"),
            pytest.param("abcdef", "has issued nothing with the serial number abcdef", id="unknown"),
            pytest.param("a/client.crt", "neither a file nor a serial number", id="no-file"),
            pytest.param("a" * 41, "neither a file nor a serial number", id="long"),
        ],
    )
    def test_what_it_did_not_issue_is_refused(self, shell: Shell, target: str, message: str) -> None:
        """One wrong target stops all, before anything is changed."""
        Path("stranger.crt").write_bytes(authority().issue("a", purposes=CLIENT).cert_pem)
        shell.good("client", "good")
        assert message in shell.refusal("revoke", "good/client.crt", target)
        assert not Path("ca/ca.crl").exists()
        assert " - client CN=good" in Path("ca/issued.txt").read_text()

    def test_list_is_renewed_with_a_greater_number(self, shell: Shell) -> None:
        """`crl` keeps what is revoked, and the number grows."""
        shell.good("client", "a")
        shell.good("revoke", "a/client.crt")
        out = shell.good("crl", "--days", "30", days_later=5)
        assert self.number() == 2
        assert len(self.crl()) == 1
        assert self.crl().next_update_utc == NOW + 35 * DAY
        assert "list number 2, revoked certificates: 1" in out

    def test_damaged_register_stops_it(self, shell: Shell) -> None:
        """A list without what was lost would un-revoke it."""
        Path("ca/issued.txt").write_text("crl-number 1\nwhat is this\n")
        assert "line 2 of ca/issued.txt cannot be read" in shell.refusal("crl")


class TestShow:
    def test_directory_is_shown_file_by_file(self, shell: Shell) -> None:
        """The key beside the certificate fits, and the ca.crt beside it is what it is judged by."""
        shell.good("server", "localhost")
        out = shell.good("show", "localhost", "--check")
        assert re.findall(r"^\S.*", out, re.M) == [
            "localhost/ca.crt: root CA certificate",
            "localhost/tls.crt: server certificate",
            "localhost/tls.key: private key",
        ]
        assert "localhost/tls.key fits" in out
        assert "problem" not in out
        assert "note" not in out

    def test_problem_is_status_1_only_when_asked(self, shell: Shell) -> None:
        """Looking is not judging."""
        shell.good("server", "localhost")
        Path("localhost/tls.key").write_bytes(Path("ca/ca.key").read_bytes())
        assert "problem: the key in localhost/tls.key does not belong" in shell.good("show", "localhost/tls.crt")
        assert shell("show", "localhost/tls.crt", "--check").status == 1

    def test_damaged_file_does_not_hide_the_others(self, shell: Shell) -> None:
        """Of a directory everything is shown; a file by itself is refused."""
        shell.good("server", "localhost")
        Path("localhost/old.pem").write_text("junk")
        answer = shell("show", "localhost", "--check")
        assert answer.status == 1
        assert "problem: localhost/old.pem is no certificate" in answer.out
        assert "localhost/tls.crt: server certificate" in answer.out
        assert "is no certificate" in shell.refusal("show", "localhost/old.pem")

    def test_other_ca_is_named_by_option(self, shell: Shell) -> None:
        """A file or the directory of a CA; it goes before the ca.crt beside the file."""
        shell.good("server", "localhost")
        Path("other.crt").write_bytes(authority().cert_pem)
        assert "does not lead to a CA that is trusted" in shell.good("show", "localhost/tls.crt", "--ca", "other.crt")
        assert "problem" not in shell.good("show", "localhost/tls.crt", "--ca", "ca")

    def test_pkcs12_file_opens_with_its_password(self, shell: Shell) -> None:
        """And the certificate in it has its key with it."""
        Path("pw").write_text("correct horse")
        shell.good("client", "ci", "--p12", "--password-file", "pw")
        assert "--password-file" in shell.refusal("show", "ci/client.p12")
        out = shell.good("show", "ci/client.p12", "--password-file", "pw")
        assert "ci/client.p12: client certificate" in out
        assert "private key  ci/client.p12 fits" in out

    def test_control_characters_do_not_reach_the_terminal(self, shell: Shell) -> None:
        """Names are chosen by whoever made the certificate."""
        Path("evil.crt").write_bytes(authority().issue("http://a\x1b[2J\nnote: fine").cert_pem)
        out = shell.good("show", "evil.crt")
        assert "\x1b" not in out
        assert "URI:http://a\\x1b[2J\\nnote: fine" in out

    def test_endless_line_is_cut(self, shell: Shell) -> None:
        """A name may have 64 KiB."""
        Path("long.crt").write_bytes(authority().issue("a", "http://" + "a" * 60_000).cert_pem)
        assert max(len(line) for line in shell.good("show", "long.crt").splitlines()) <= 2_003

    @pytest.mark.parametrize("target", ["none.crt", "host", "host:0", "host:65536", "::1:443", "a b:443", "host:4٤3"])
    def test_what_is_nothing_is_refused(self, shell: Shell, target: str) -> None:
        """The sentence says what could have been meant."""
        assert "is neither a file, nor a directory, nor HOST:PORT" in shell.refusal("show", target)


class TestUsage:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            pytest.param([], "COMMAND", id="nothing"),
            pytest.param(["sever"], "invalid choice: 'sever'", id="command"),
            pytest.param(["server"], "NAME; see sidecar certs server --help", id="no-name"),
            pytest.param(["server", "a..b"], "neither a DNS name nor an IP address", id="name"),
            pytest.param(["server", "a", "--days", "0"], "from 1 to 825", id="no-days"),
            pytest.param(["server", "a", "--days", "826"], "from 1 to 825", id="many-days"),
            pytest.param(["server", "a", "--days", "1.5"], "from 1 to 825", id="half-days"),
            pytest.param(["server", "a", "--days", "٣"], "from 1 to 825", id="other-digits"),
            pytest.param(["ca", "--days", "7301"], "from 1 to 7,300", id="ca-days"),
            pytest.param(["crl", "--days", "366"], "from 1 to 365", id="crl-days"),
            pytest.param(["ca", "--key", "rsa1024"], "invalid choice: 'rsa1024'", id="key"),
            pytest.param(["server", "a", "--rep"], "--rep", id="abbreviation"),
            pytest.param(["sign", "x", "--server", "--client"], "not allowed with", id="both"),
            pytest.param(["show", ""], "nothing to show", id="empty-target"),
            pytest.param(["client", "alice", "bob"], "both plain names", id="two-names"),
        ],
    )
    def test_wrong_arguments_are_one_line(self, bare: Shell, arguments: list[str], message: str) -> None:
        """Status 2, nothing made, and never a usage text of ten lines."""
        assert message in bare.refusal(*arguments, status=2)
        assert files(".") == []

    @pytest.mark.parametrize("arguments", [["--help"], ["server", "-h"], ["show", "--help"]])
    def test_help_is_an_answer(self, bare: Shell, arguments: list[str]) -> None:
        """On standard output, with success."""
        assert bare.good(*arguments).startswith("usage: sidecar certs")

    def test_closed_output_is_status_1(self, shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """What was to be read was not; nothing is raised."""
        reader, writer = os.pipe()
        os.close(reader)
        with open(writer, "w") as closed:
            monkeypatch.setattr(sys, "stdout", closed)
            assert main(["show", "ca"], NOW) == 1

    def test_odd_terminal_gets_escapes(self, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
        """A name in another script does not end in a traceback where the terminal knows ASCII only."""
        shell.good("client", "Zoë")
        written = io.BytesIO()
        with io.TextIOWrapper(written, "ascii") as stream:
            monkeypatch.setattr(sys, "stdout", stream)
            assert main(["show", "Zo_/client.crt"], NOW) == 0
            assert b"CN=Zo\\xeb" in written.getvalue()
