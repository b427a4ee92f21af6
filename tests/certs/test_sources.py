"""`certs.sources`: what cannot be read is said without showing what may be a secret."""

from __future__ import annotations

import base64
import os
import pty
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import pytest

from sidecar.certs import sources
from sidecar.certs.sources import LAYOUT, MAX_FILE_BYTES, is_exposed, may_be_secret, read
from sidecar.errors import MaterialError
from sidecar.settings import Inline, Source
from tests.support.certs import authority, ed25519_key, reveals

_ED25519 = authority().issue("app", key=ed25519_key())
_SHORT_KEY = "".join(_ED25519.key_pem.decode().splitlines()[1:-1])


def refusal_of(source: Source, role: str = "cert") -> MaterialError:
    with pytest.raises(MaterialError) as caught:
        read(source, role)
    assert caught.value.role == role
    return caught.value


class TestRead:
    def test_file_is_read(self, tmp_path: Path) -> None:
        """A file's name is its path, whatever its ending."""
        (tmp_path / "a.txt").write_bytes(b"x\n")
        given = read(tmp_path / "a.txt", "key")
        assert (given.role, given.name, given.file, given.data) == (
            "key",
            f"{tmp_path}/a.txt",
            tmp_path / "a.txt",
            b"x\n",
        )

    def test_value_is_read(self) -> None:
        """A value is named by what it was given as; of several, by its position."""
        assert read(Inline("x"), "key").name == "the value given as key"
        assert read(Inline("x"), "cert", 2).name == "the value given as certificate 2"

    def test_value_is_not_shown(self) -> None:
        """Whoever prints what was read sees no key."""
        assert "hush" not in repr(read(Inline("hush"), "key"))

    def test_bytes_of_the_environment_come_back_whole(self) -> None:
        """A password that is not UTF-8 arrives as surrogates."""
        assert read(Inline(os.fsdecode(b"p\xff")), "passphrase").data == b"p\xff"

    def test_other_surrogates_are_refused(self) -> None:
        """YAML can hold code points that no text has."""
        assert "not text" in refusal_of(Inline("\ud800"), "passphrase").fact

    @pytest.mark.parametrize(("role", "name"), [(role, name) for role, names in LAYOUT.items() for name in names])
    def test_directory_stands_for_a_file_in_it(self, tmp_path: Path, role: str, name: str) -> None:
        """Each name of the layout is found."""
        (tmp_path / name).write_bytes(b"x")
        assert read(tmp_path, role).file == tmp_path / name

    @pytest.mark.parametrize("role", LAYOUT)
    def test_first_name_of_the_layout_wins(self, tmp_path: Path, role: str) -> None:
        """cert-manager writes PEM and keystore side by side; PEM takes no password."""
        for name in LAYOUT[role]:
            (tmp_path / name).write_bytes(b"x")
        assert read(tmp_path, role).file == tmp_path / LAYOUT[role][0]

    @pytest.mark.parametrize(("extra", "fits"), [(0, True), (1, False)])
    @pytest.mark.parametrize("is_file", [True, False])
    def test_limit_is_exact(self, tmp_path: Path, is_file: bool, extra: int, fits: bool) -> None:
        """What has exactly the limit is read, from a file or a value; one byte more is refused."""
        text = "x" * (MAX_FILE_BYTES + extra)
        (tmp_path / "a").write_text(text)
        source = tmp_path / "a" if is_file else Inline(text)
        if fits:
            assert len(read(source, "cert").data) == MAX_FILE_BYTES
        else:
            assert "is over the limit of 1,048,576 bytes" in refusal_of(source).fact

    @pytest.mark.parametrize("text", ["", " \n\t\n"])
    def test_empty_value_is_said_to_be_empty(self, text: str) -> None:
        """An empty variable is the most usual mistake with one."""
        assert refusal_of(Inline(text), "key").fact == "the value given as key is empty"


class TestUnreadablePaths:
    @pytest.mark.parametrize("role", LAYOUT)
    def test_directory_without_any_is_named(self, tmp_path: Path, role: str) -> None:
        """A directory with none of the names is said to lack the first; all are proposed."""
        error = refusal_of(tmp_path, role)
        assert error.fact == f"{tmp_path} is a directory without {LAYOUT[role][0]}"
        assert error.fix == f"put {' or '.join(LAYOUT[role])} there or name a file"

    def test_missing_file_is_named(self, tmp_path: Path) -> None:
        """What looks like a path is shown."""
        assert refusal_of(tmp_path / "no.crt").fact == f"{tmp_path}/no.crt does not exist"

    def test_forbidden_file_names_user(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A file that may not be read is said to be unreadable, for whom, and what to change."""

        def refuse(*_: object) -> None:
            raise PermissionError(13, "Permission denied")

        (tmp_path / "tls.crt").write_bytes(b"x")
        monkeypatch.setattr(os, "open", refuse)  # tests may run as root, who may read anything
        error = refusal_of(tmp_path)
        assert error.fact == f"user {os.geteuid()}, who runs this program, may not read {tmp_path}/tls.crt"
        assert "chmod" in error.fix

    @pytest.mark.parametrize(
        ("name", "reason"),
        [("a/below", "Not a directory"), ("x" * 300, "File name too long"), ("nul\0byte", "it is no path")],
    )
    def test_impossible_path_is_refused(self, tmp_path: Path, name: str, reason: str) -> None:
        """A path that the system cannot even look up is refused, not raised as OSError or ValueError."""
        (tmp_path / "a").write_bytes(b"x")
        assert refusal_of(tmp_path / name).fact.endswith(f" cannot be read: {reason}")

    def test_directory_for_a_passphrase_is_named(self, tmp_path: Path) -> None:
        """There is no layout with a passphrase in it."""
        assert refusal_of(tmp_path, "passphrase").fact == f"{tmp_path} is a directory"

    @pytest.mark.parametrize(
        "text",
        [
            pytest.param(_ED25519.key_pem.decode(), id="PEM"),
            pytest.param(_ED25519.key_pem.decode().replace("\n", "\\n"), id="escaped"),
            pytest.param(_ED25519.key_pem.decode().replace("\n", " "), id="blanks"),
            pytest.param(base64.b64encode(_ED25519.key_pem).decode(), id="base64 of PEM"),
            pytest.param(_SHORT_KEY, id="base64 of DER"),
            pytest.param(_SHORT_KEY[5:], id="part"),
            pytest.param('{"password": "hunter2"}', id="JSON"),
        ],
    )
    @pytest.mark.parametrize("role", ["cert", "key", "ca", "crl", "passphrase"])
    def test_value_taken_for_a_path_is_not_shown(self, text: str, role: str) -> None:
        """A key in place of a path is recognised, and no part of it is in the message."""
        error = refusal_of(Path(text), role)
        assert "the path given as" in error.fact
        assert "hunter2" not in str(error)
        assert not reveals(str(error), str(Path(text)))

    @pytest.mark.parametrize("word", ["hunter2", "/hunter2", "hunter2/.."])
    def test_passphrase_taken_for_a_path_is_not_shown(self, word: str) -> None:
        """Any word may be a passphrase."""
        assert "hunter2" not in str(refusal_of(Path(word), "passphrase"))


class TestOddFiles:
    def test_named_pipe_without_writer_is_refused_at_once(self, tmp_path: Path) -> None:
        """To open it would last until somebody writes, which may be never."""
        os.mkfifo(tmp_path / "tls.crt")
        error = refusal_of(tmp_path)
        assert error.fact == f"{tmp_path}/tls.crt is a pipe from which nothing comes: nobody writes to it"
        assert error.fix.startswith("name a file")

    def test_socket_is_refused(self, tmp_path: Path) -> None:
        """Docker's own is mounted by mistake now and then."""
        os.mknod(tmp_path / "s", stat.S_IFSOCK | 0o600)
        assert refusal_of(tmp_path / "s").fact == f"{tmp_path}/s is a socket, or a device that is not there"

    @pytest.mark.parametrize(
        ("device", "fact"), [("zero", "is over the limit of 1,048,576 bytes"), ("null", "is empty")]
    )
    def test_device_is_read_as_a_file(self, device: str, fact: str) -> None:
        """Up to the limit; the null device is an empty file, as which it is mounted over others."""
        assert refusal_of(Path("/dev") / device).fact == f"/dev/{device} {fact}"

    def test_terminal_is_not_waited_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Standard input may be one."""
        monkeypatch.setattr(sources, "PIPE_SECONDS", 0.05)
        main, terminal = pty.openpty()
        with open(main, "rb"), open(terminal, "rb"):
            name = os.ttyname(terminal)
            assert refusal_of(Path(name)).fact == f"{name} is a device, and has not come to its end within 0.05 s"

    def test_secret_that_names_an_odd_file_is_not_shown(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """As of every path."""
        monkeypatch.chdir(tmp_path)
        os.mkfifo(_SHORT_KEY.replace("/", "_"))
        error = refusal_of(Path(_SHORT_KEY.replace("/", "_")))
        assert error.fact.startswith("the path given as certificate is a pipe")


@pytest.fixture
def pipe() -> Iterator[tuple[Path, BinaryIO]]:
    """A pipe as ``<(COMMAND)`` makes it: the path to read from, and the end to write to."""
    reader, writer = os.pipe()
    with open(reader, "rb"), open(writer, "wb", buffering=0) as stream:
        yield Path(f"/dev/fd/{reader}"), stream


class TestPipes:
    def test_what_has_been_written_is_read(self, pipe: tuple[Path, BinaryIO]) -> None:
        """The writer may have ended already."""
        path, writer = pipe
        writer.write(b"x" * 5000)
        writer.close()
        assert read(path, "cert").data == b"x" * 5000

    def test_slow_writer_is_waited_for(self, pipe: tuple[Path, BinaryIO]) -> None:
        """It comes in pieces, more than a pipe holds, up to the limit."""
        path, writer = pipe
        with ThreadPoolExecutor(1) as pool:
            pool.submit(write_pieces, writer, b"x" * 4096, 256)
            assert read(path, "cert").data == b"x" * MAX_FILE_BYTES

    def test_limit_is_that_of_files(self, pipe: tuple[Path, BinaryIO]) -> None:
        """One byte more is refused."""
        path, writer = pipe
        writer.write(b"12345")
        with pytest.raises(MaterialError, match="is over the limit of 4 bytes"):
            read(path, "cert", limit=4)

    def test_writer_that_said_nothing_is_told(self, pipe: tuple[Path, BinaryIO]) -> None:
        """Its command has failed, or somebody has read it before."""
        path, writer = pipe
        writer.close()
        error = refusal_of(path)
        assert "is a pipe from which nothing comes" in error.fact
        assert "once only" in error.fix

    @pytest.mark.parametrize("said", [b"", b"-----BEGIN"], ids=["nothing", "a part"])
    def test_writer_that_never_ends_is_not_waited_for(
        self, pipe: tuple[Path, BinaryIO], monkeypatch: pytest.MonkeyPatch, said: bytes
    ) -> None:
        """Half a file is none."""
        monkeypatch.setattr(sources, "PIPE_SECONDS", 0.05)
        path, writer = pipe
        writer.write(said)
        error = refusal_of(path)
        assert error.fact == f"{path} is a pipe, and has not come to its end within 0.05 s"

    def test_drip_ends_with_the_deadline(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A byte now and then gives no more time."""
        monkeypatch.setattr(sources, "PIPE_SECONDS", 0.05)
        reader, writer = os.pipe()
        with open(reader, "rb"), open(writer, "wb", buffering=0) as stream, ThreadPoolExecutor(1) as pool:
            stop = threading.Event()
            pool.submit(drip, stream, stop)
            try:
                assert "has not come to its end" in refusal_of(Path(f"/dev/fd/{reader}")).fact
            finally:
                stop.set()


def write_pieces(stream: BinaryIO, piece: bytes, times: int) -> None:
    for _ in range(times):
        stream.write(piece)
    stream.close()


def drip(stream: BinaryIO, stop: threading.Event) -> None:
    while not stop.wait(0.005):
        stream.write(b"x")


class TestMayBeSecret:
    @pytest.mark.parametrize(
        "path",
        [
            "/certs/tls.crt",
            "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
            "/home/Alice/certificates/server1.key",
            "/var/run/secrets/certificates",
            "certs/server-1",
            "C:\\certs\\server.pem",
            "tls.crt",
            "issuing_ca",
        ],
    )
    def test_paths_and_names_may_be_shown(self, path: str) -> None:
        """What operators write as paths is shown to them."""
        assert not may_be_secret(path)

    @pytest.mark.parametrize(
        "text",
        [
            "x" * 401,
            "-----BEGIN PRIVATE KEY",
            "ZyLb2Ct9yiyjw8o2xqxwnw",
            "a\nb",
            '{"key": 1',
            'a": "b"',
            "b}",
            "/certs/" + _SHORT_KEY,
            "a\0b",
        ],
    )
    def test_what_no_path_looks_like_may_not(self, text: str) -> None:
        """Long texts, dashes, line breaks, braces and base64 are no paths."""
        assert may_be_secret(text)


class TestIsExposed:
    @pytest.mark.parametrize(("mode", "expected"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True)])
    def test_others_make_it_so(self, tmp_path: Path, mode: int, expected: bool) -> None:
        """Group or world, reading is enough."""
        (tmp_path / "k").touch()
        (tmp_path / "k").chmod(mode)
        assert is_exposed(tmp_path / "k") is expected
