"""`pki.opening`: passwords in files, and the CA."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.errors import MaterialError
from sidecar.pki.opening import ca_option, new_password_in, password_in
from tests.support.shell import Shell


class TestPasswordIn:
    @pytest.mark.parametrize(
        ("content", "secret"),
        [
            pytest.param(b"correct horse", b"correct horse", id="line"),
            pytest.param(b"correct horse\nsecond line\n", b"correct horse", id="lines"),
            pytest.param(b"correct horse\r\n", b"correct horse", id="windows"),
            pytest.param(b" a ", b" a ", id="blanks"),
            pytest.param(b'{"password": "a"}', b'{"password": "a"}', id="json"),
        ],
    )
    def test_first_line_is_the_password(self, tmp_path: Path, content: bytes, secret: bytes) -> None:
        """As openssl's file: takes it."""
        (tmp_path / "pw").write_bytes(content)
        password = password_in(tmp_path / "pw")
        assert password is not None
        assert password.secret == secret
        assert password.name == f"the password in {tmp_path}/pw"

    def test_no_file_is_no_password(self) -> None:
        """The option is optional."""
        assert password_in(None) is None

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            pytest.param(b"", "is empty", id="empty"),
            pytest.param(b"\nlong enough\n", "first line of .*pw is empty", id="empty-line"),
            pytest.param(b"a" * (64 * 1024 + 1), "over the limit of 65,536 bytes", id="huge"),
        ],
    )
    def test_bad_file_is_refused(self, tmp_path: Path, content: bytes, message: str) -> None:
        """An empty password would open what is not meant."""
        (tmp_path / "pw").write_bytes(content)
        with pytest.raises(MaterialError, match=message):
            password_in(tmp_path / "pw")


class TestNewPasswordIn:
    @pytest.mark.parametrize(("length", "is_taken"), [(7, False), (8, True)])
    def test_short_one_is_refused(self, tmp_path: Path, length: int, is_taken: bool) -> None:
        """It would be no protection; it is not shown."""
        (tmp_path / "pw").write_text("x" * length)
        if is_taken:
            assert new_password_in(tmp_path / "pw") == b"x" * length
        else:
            with pytest.raises(MaterialError, match="has 7 bytes, the least is 8") as refusal:
                new_password_in(tmp_path / "pw")
            assert "xxx" not in str(refusal.value)


class TestLoadCa:
    def test_exposed_key_is_a_warning(self, shell: Shell) -> None:
        """The work is done, and the line says what to type."""
        Path("ca/ca.key").chmod(0o644)
        answer = shell("server", "localhost")
        assert answer.status == 0
        assert answer.err == ("sidecar certs: warning: others than its owner may read ca/ca.key; chmod 600 ca/ca.key\n")


class TestCaOption:
    @pytest.mark.parametrize(("directory", "option"), [("ca", ""), ("my ca", " --ca 'my ca'"), ("/ca", " --ca /ca")])
    def test_usual_place_goes_without_saying(self, directory: str, option: str) -> None:
        """What is printed can be pasted into a shell."""
        assert ca_option(Path(directory)) == option
