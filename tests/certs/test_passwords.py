"""`certs.passwords`: what is the password, and what is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.certs.passwords import MAX_PASSWORD_BYTES, read_password
from sidecar.errors import MaterialError
from sidecar.settings import Inline


class TestReadPassword:
    @pytest.mark.parametrize(
        ("data", "secret"),
        [
            (b"secret", b"secret"),
            (b"secret\n", b"secret"),
            (b"secret\r\n", b"secret"),
            (b"secret\n\n", b"secret\n"),
            (b" se cret \n", b" se cret "),
            (b"secret\r", b"secret\r"),
            (b"\xff\xfe1\n", b"\xff\xfe1"),
            (b'{"passphrase": "a b"}\n', b"a b"),
            (b'{"data": {"keystore-password": "x"}}', b"x"),
            (b"{secret}\n", b"{secret}"),
            (b'{"user": "me"}', b'{"user": "me"}'),
        ],
    )
    def test_file_is_a_password_and_perhaps_a_line_break(self, tmp_path: Path, data: bytes, secret: bytes) -> None:
        """Editors end the last line; nothing else is taken off. JSON counts only if it has a field for it."""
        (tmp_path / "p").write_bytes(data)
        password = read_password(tmp_path / "p")
        assert (password.secret, password.role) == (secret, "passphrase")
        assert password.name == f"the password in {tmp_path}/p"

    @pytest.mark.parametrize("text", ["secret", "secret\n", " secret", '"secret"'])
    def test_value_is_taken_as_it_is(self, text: str) -> None:
        """Nobody adds a line break to a value by chance."""
        password = read_password(Inline(text))
        assert (password.secret, password.name) == (text.encode(), "the password given")

    def test_field_of_a_json_value_is_taken(self) -> None:
        """A secret manager puts the whole JSON into the variable."""
        assert read_password(Inline('{"Password": "x", "user": "y"}')).secret == b"x"

    def test_repr_hides_it(self) -> None:
        """A password is never shown."""
        assert "hunter2" not in repr(read_password(Inline("hunter2")))

    @pytest.mark.parametrize(("extra", "fits"), [(0, True), (1, False)])
    def test_limit_is_exact(self, extra: int, fits: bool) -> None:
        """What is longer than any password is another file."""
        source = Inline("x" * (MAX_PASSWORD_BYTES + extra))
        if fits:
            assert len(read_password(source).secret) == MAX_PASSWORD_BYTES
            return
        with pytest.raises(MaterialError, match="has 1,025 bytes, a password has at most 1,024") as caught:
            read_password(source)
        assert caught.value.role == "passphrase"

    def test_empty_file_is_refused(self, tmp_path: Path) -> None:
        """An empty password needs no setting: it is tried anyway."""
        (tmp_path / "p").write_bytes(b"\n")
        with pytest.raises(MaterialError, match="is empty") as caught:
            read_password(tmp_path / "p")
        assert caught.value.role == "passphrase"
