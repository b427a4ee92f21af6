"""
The one module that looks at the world: files, /proc, sockets.

Every wait has a deadline, what is read is bounded, and nothing is changed. A question to the app is one HEAD request,
which its log will show, or how HTTP/2 or TLS begins.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import ssl
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final

import attrs

from sidecar.certs.sources import LAYOUT
from sidecar.doctor.app import Answer, Spoken
from sidecar.doctor.mounts import File
from sidecar.doctor.patience import within
from sidecar.doctor.ports import Binding
from sidecar.settings import HostPort, UnixPath

TOTAL_SECONDS: Final = 3.0
"""For everything together that is waited for: on a quarter of a CPU the rest of the command takes two."""

STEP_SECONDS: Final = 1.0
"""For one question to somebody else."""

_LARGEST_PAGE: Final = 4 * 1024 * 1024
_LARGEST_HEAD: Final = 16_384
_LARGEST_TEXT: Final = 16 * 1024 * 1024

_STATUS: Final = re.compile(rb"HTTP/1\.[0-9] ([1-9][0-9]{2})(?: |\r?\n)")
_KEEP_ALIVE: Final = re.compile(rb"^keep-alive:[^\r\n]*\btimeout=([0-9]{1,6})\b", re.IGNORECASE | re.MULTILINE)
_DATE: Final = re.compile(rb"^date:[ \t]*([^\r\n]{1,100})", re.IGNORECASE | re.MULTILINE)

_ANY_ADDRESS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - looked for, not listened on

_TLS_HANDSHAKE, _TLS_ALERT = 0x16, 0x15  # RFC 8446 section 5.1

# What clients and servers begin HTTP/2 with: a preface and SETTINGS of at most 16 KiB (RFC 9113 section 3.4).
_HTTP2_HELLO: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"
_SETTINGS: Final = b"\x04\x00\x00\x00\x00\x00"  # with NUL bytes, which no head of HTTP/1.1 has
_HTTP2_ANSWER: Final = re.compile(rb"\x00[\x00-\x40]." + re.escape(_SETTINGS), re.DOTALL)


@attrs.define
class Machine:
    """
    This machine, as this process sees it.

    Attributes:
        root: What stands for the root directory.
    """

    root: Path = Path("/")
    _until: float = attrs.field(factory=lambda: time.monotonic() + TOTAL_SECONDS)

    # -- files --

    def text(self, path: str) -> str:
        """Return the text of a file below `root`; "" if it cannot be read."""
        try:
            with (self.root / path.lstrip("/")).open("rb") as stream:
                return stream.read(_LARGEST_TEXT).decode("utf-8", "replace")
        except OSError:
            return ""

    def exists(self, path: str) -> bool:
        """Whether there is such a file below `root`."""
        return os.path.exists(self.root / path.lstrip("/"))

    def file(self, path: Path, *, is_named: bool = True, has_key: bool = False) -> File | None:
        """Look at a file or directory, to which `File` says the rest; None if it cannot be looked at."""
        try:
            found = path.stat()
            real = os.path.realpath(path)
        except (OSError, ValueError):
            return None
        directory = path.absolute() if stat.S_ISDIR(found.st_mode) else path.absolute().parent
        return File(
            path=str(path.absolute()),
            real=real,
            is_file=stat.S_ISREG(found.st_mode),
            is_named=is_named,
            has_key=has_key,
            is_swapped=(directory / "..data").is_symlink(),
            mode=stat.S_IMODE(found.st_mode),
            written_at=found.st_mtime,
        )

    # -- sockets --

    def binding(self, address: HostPort) -> Binding:
        """Try whether *address* could be listened on, without listening."""
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_STREAM) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind((address.host, address.port))
        except OSError as problem:
            return _BINDINGS.get(problem.errno or 0, Binding.UNKNOWN)
        return Binding.FREE

    def page(self, address: HostPort, path: str) -> bytes | None:
        """Return the body that our own page at *path* has, whatever its status; None if nobody answers HTTP there."""
        request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
        try:
            with self._connection(address) as sock:
                self._send(sock, request)
                data = self._read(sock, _LARGEST_PAGE)
        except OSError:
            return None
        head, _, body = data.partition(b"\r\n\r\n")
        return body if _STATUS.match(head + b"\r\n") else None

    def ask(self, address: HostPort | UnixPath, first: bytes, wanted: Spoken, *, is_http: bool) -> Answer:
        """
        Ask the app.

        Args:
            address: Where.
            first: What goes ahead: a PROXY header.
            wanted: In what: HTTP, H2C or TLS. With ANYTHING only the connection is made.
            is_http: Whether HTTP is spoken at all, perhaps inside TLS.
        """
        try:
            if wanted is Spoken.ANYTHING:
                with self._connection(address):
                    return Answer(Spoken.ANYTHING)
            answer = self._asked(address, first, wanted)
        except TimeoutError:
            return Answer(Spoken.SILENCE)
        except OSError as problem:
            return Answer(Spoken.NOTHING, why=_why(problem))
        return self._understood(answer, address, first, wanted, is_http=is_http)

    def _understood(
        self, answer: Answer, address: HostPort | UnixPath, first: bytes, wanted: Spoken, *, is_http: bool
    ) -> Answer:
        """
        Find out what it speaks who did not understand us. Servers say in many ways that they wanted TLS, or did not: to
        ask again in the other way is surer than their words.
        """
        others: tuple[Spoken, ...] = ()
        if answer.status == 400:
            others = (Spoken.TLS,)
        elif answer.spoken is Spoken.OTHER:
            others = (Spoken.TLS, Spoken.HTTP, Spoken.H2C) if is_http else (Spoken.TLS,)
        for other in others:
            if other is not wanted:
                with suppress(OSError):
                    found = self._asked(address, first, other)
                    if found.spoken is other:
                        return found
        return answer

    def _asked(self, address: HostPort | UnixPath, first: bytes, wanted: Spoken) -> Answer:
        if wanted is Spoken.TLS:
            return Answer(self._hello(address, first))
        return self._plain(address, first + (_HTTP2_HELLO if wanted is Spoken.H2C else _head(address)))

    def clock(self, address: HostPort) -> datetime | str:
        """Return the time that a web server tells, or why it tells none."""
        request = f"HEAD / HTTP/1.1\r\nHost: {address}\r\nUser-Agent: sidecar-doctor\r\nConnection: close\r\n\r\n"
        try:
            with self._connection(address) as sock:
                self._send(sock, request.encode())
                head = self._read(sock, _LARGEST_HEAD, b"\r\n\r\n")
        except OSError as problem:
            return _why(problem)
        date = _DATE.search(head)
        try:
            told = None if date is None else parsedate_to_datetime(date[1].decode("ascii"))
        except ValueError:
            told = None
        return "it is no web server, or sends no Date" if told is None or told.tzinfo is None else told

    def _plain(self, address: HostPort | UnixPath, data: bytes) -> Answer:
        """Send *data* without TLS, and see what that is answered with."""
        with self._connection(address) as sock:
            try:
                self._send(sock, data)
                head = self._read(sock, _LARGEST_HEAD, b"\r\n\r\n", b"\x15\x03", _SETTINGS)
            except ConnectionError:
                return Answer(Spoken.OTHER)
        if _HTTP2_ANSWER.match(head):
            return Answer(Spoken.H2C)
        status = _STATUS.match(head)
        if status is None:
            return Answer(Spoken.OTHER)
        keep_alive = _KEEP_ALIVE.search(head)
        return Answer(Spoken.HTTP, int(status[1]), None if keep_alive is None else int(keep_alive[1]))

    def _hello(self, address: HostPort | UnixPath, first: bytes) -> Spoken:
        """Begin a TLS handshake, and see what that is answered with."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        try:
            context.wrap_bio(incoming, outgoing).do_handshake()
        except ssl.SSLWantReadError:
            pass
        with self._connection(address) as sock:
            try:
                self._send(sock, first + outgoing.read())
                sock.settimeout(self._left())
                data = sock.recv(_LARGEST_HEAD)
            except ConnectionError:
                return Spoken.OTHER
        if data[:1] and data[0] in (_TLS_HANDSHAKE, _TLS_ALERT) and data[1:2] in (b"", b"\x03"):
            return Spoken.TLS
        return Spoken.HTTP if data.startswith(b"HTTP/") else Spoken.OTHER

    @contextmanager
    def _connection(self, address: HostPort | UnixPath) -> Iterator[socket.socket]:
        """Connect to the first address that takes it; raises OSError."""
        problem = OSError("the name has no address")
        for family, target in self._targets(address):
            with socket.socket(family, socket.SOCK_STREAM) as sock:
                try:
                    sock.settimeout(self._left())
                    sock.connect(target)
                except OSError as error:
                    problem = error
                    continue
                yield sock
                return
        raise problem

    def _targets(self, address: HostPort | UnixPath) -> list[tuple[socket.AddressFamily, Any]]:
        """Families and addresses as each writes them; the resolver, which has no deadline, gets one by a thread."""
        if isinstance(address, UnixPath):
            return [(socket.AF_UNIX, address.path)]
        host = _ANY_ADDRESS.get(address.host, address.host)
        try:
            every = within(self._left(), lambda: socket.getaddrinfo(host, address.port, type=socket.SOCK_STREAM))
        except TimeoutError:
            raise OSError(f"the resolver does not answer for {host}") from None
        except (OSError, UnicodeError) as error:
            raise OSError(f"{host} has no address: {getattr(error, 'strerror', None) or error}") from None
        return [(family, target) for family, _, _, _, target in every]

    def _send(self, sock: socket.socket, data: bytes) -> None:
        sock.settimeout(self._left())
        sock.sendall(data)

    def _read(self, sock: socket.socket, most: int, *ends: bytes) -> bytes:
        """Read until the peer closes, one of *ends* is there, or *most* bytes are; raises OSError."""
        until, data = time.monotonic() + STEP_SECONDS, b""
        while len(data) < most and not any(end in data for end in ends):
            sock.settimeout(max(0.001, min(until - time.monotonic(), self._left())))
            piece = sock.recv(65_536)
            if not piece:
                break
            data += piece
        return data

    def _left(self) -> float:
        """How long the next step may take; never 0, which would make a socket non-blocking."""
        return max(0.001, min(STEP_SECONDS, self._until - time.monotonic()))


_BINDINGS: Final = {
    errno.EADDRINUSE: Binding.TAKEN,
    errno.EACCES: Binding.FORBIDDEN,
    errno.EPERM: Binding.FORBIDDEN,
    errno.EADDRNOTAVAIL: Binding.ABSENT,
}


def _head(address: HostPort | UnixPath) -> bytes:
    host = "localhost" if isinstance(address, UnixPath) else str(address)
    return f"HEAD / HTTP/1.1\r\nHost: {host}\r\nUser-Agent: sidecar-doctor\r\n\r\n".encode()


def inner_files(directory: Path) -> list[Path]:
    """Return the files of *directory* that the program would read, whatever role it is given for."""
    names = dict.fromkeys(name for names in LAYOUT.values() for name in names)
    return [directory / name for name in names if os.path.exists(directory / name)]


def key_file(cert: Path, key: Path | None) -> Path:
    """
    Return the file that the key of *cert* is read from, or would be.

    Args:
        cert: A file or directory.
        key: The same for its key; None: it is looked for beside or inside *cert*.
    """
    given = cert if key is None else key
    if os.path.isdir(given):
        names = LAYOUT["key"]
        return next((given / name for name in names if os.path.exists(given / name)), given / names[0])
    beside = cert.with_suffix(".key")
    return beside if key is None and os.path.isfile(beside) else given


def _why(problem: OSError) -> str:
    if isinstance(problem, TimeoutError):
        return f"nothing came within {STEP_SECONDS:g} s"
    return problem.strerror or str(problem) or type(problem).__name__
