"""`pki.showing`: what files have. Servers are looked at in the scenarios."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.certs import authority
from tests.support.shell import Shell


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
        assert "problem: localhost/old.pem is not PEM" in answer.out
        assert "localhost/tls.crt: server certificate" in answer.out
        assert "is not PEM" in shell.refusal("show", "localhost/old.pem")

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

    @pytest.mark.parametrize("target", ["none.crt", "host", "host:0", "host:65536", "::1:443", "a b:443", "host:4٤3"])
    def test_what_is_nothing_is_refused(self, shell: Shell, target: str) -> None:
        """The sentence says what could have been meant."""
        assert "is neither a file, nor a directory, nor HOST:PORT" in shell.refusal("show", target)
