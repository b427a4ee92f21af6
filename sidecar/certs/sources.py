"""
From a setting to bytes: a file, the file of its role in a directory, or the value of the setting itself.

What cannot be opened may be a key or a password that was taken for a path, so it is shown only if it does not look so.
"""

from __future__ import annotations

import errno
import io
import os
import re
import select
import stat
from itertools import pairwise
from pathlib import Path

import attrs

from sidecar.errors import MaterialError
from sidecar.settings import Inline, Source
from sidecar.values import Value

MAX_FILE_BYTES = 1024 * 1024
"""A bundle is a few KiB, the CA bundle of a Linux distribution about 220 KiB. Of values, too."""

LAYOUT = {
    "cert": ("tls.crt", "keystore.p12", "client.crt"),
    "key": ("tls.key", "keystore.p12", "client.key"),
    "ca": ("ca.crt", "truststore.p12"),
    "crl": ("ca.crl", "crl.pem"),
}
"""
The files of a directory that stand for a role, the first that there is; as Kubernetes, cert-manager and `sidecar certs`
name them.
"""

_WORDS = {"cert": "certificate", "key": "key", "ca": "CA", "crl": "CRL", "passphrase": "passphrase"}

PIPE_SECONDS = 10.0
"""
For all that comes through one pipe: what writes to it may have to ask a vault first, and what says nothing shall keep
nobody from starting or reloading.
"""

_PIECE = 65_536
"""Bytes: what a pipe of Linux holds."""

_MAX_SHOWN = 400
"""Characters of a path in a message. Longer ones are rarely paths, and never read."""

_JSON_MARKS = frozenset('{}"')
_ENCODED = re.compile(r"[A-Za-z0-9+/=]{20,}")


@attrs.frozen(eq=False, repr=False)
class Given(Value):
    """
    What was given for a role.

    Attributes:
        role: ``cert``, ``key``, ``ca``, ``crl`` or ``passphrase``.
        name: How messages call it: its path, or e.g. ``the value given as key``.
        file: The file that was read; None for the value of a setting.
        data: Within the limit, and not only blanks.
    """

    role: str
    name: str
    file: Path | None
    data: bytes = attrs.field(repr=False)


def read(source: Source, role: str, position: int | None = None, *, limit: int = MAX_FILE_BYTES) -> Given:
    """
    Read what *source* stands for.

    Args:
        source: A file, a directory that holds one of the names in `LAYOUT`, or a value.
        role: What it is given as.
        position: Which of several values for this role it is, from 1.
        limit: In bytes.

    Raises:
        MaterialError: With *role*: it cannot be read, is empty, or is over the limit.
    """
    if isinstance(source, Inline):
        name = f"the value given as {_WORDS[role]}" + (f" {position}" if position else "")
        given = Given(role, name, None, _encoded(source.text, role, name))
    else:
        file = _file(source, role)
        given = Given(role, str(file), file, _bytes_of(file, source, role, limit))
    if not given.data.strip():
        raise MaterialError(role, f"{given.name} is empty", "fill it in, or remove the setting if it is not needed")
    if len(given.data) > limit:
        fact = f"{given.name} is over the limit of {limit:,} bytes"
        raise MaterialError(role, fact, "name the right file, or leave out what is not needed")
    return given


class FileKindError(OSError):
    """
    What was named is there, but is nothing to read, or nothing that ends.

    Attributes:
        fact: What it is, to be written after its path.
        fix: What to do about it.
    """

    def __init__(self, fact: str, fix: str = "name a file") -> None:
        super().__init__(errno.EINVAL, fact)
        self.fact = fact
        self.fix = fix


def content_of(file: Path, most: int) -> bytes:
    """
    Return the first *most* bytes of a file, or of what comes through a pipe such as /dev/stdin and ``<(COMMAND)``.

    A pipe is read only while somebody writes to it, and like a device no longer than `PIPE_SECONDS`.

    Raises:
        FileKindError: It is a socket, a pipe from which nothing comes, or does not end in time.
        OSError: It cannot be read.
        ValueError: It is no path.
    """
    with open(file, "rb", buffering=0, opener=_open_without_waiting) as stream:
        mode = os.fstat(stream.fileno()).st_mode
        if stat.S_ISREG(mode):
            return _to_end(stream, most)
        data = _in_time(stream, most, "pipe" if stat.S_ISFIFO(mode) else "device")
    if not data and stat.S_ISFIFO(mode):
        fix = "name a file; a pipe gives what was written once only, while or after its writer runs"
        raise FileKindError("is a pipe from which nothing comes: nobody writes to it", fix)
    return data


def is_exposed(file: Path) -> bool:
    """Whether others than the owner may read *file*, a key."""
    return bool(os.stat(file).st_mode & 0o077)


def may_be_secret(text: str) -> bool:
    """
    Whether *text* could be key material, whole or in part, that was given in place of a path or name.

    Base64 goes from small letters to capitals to digits and back all the time; paths rarely do, and most begin with a
    slash or have something in them that base64 has not.
    """
    if len(text) > _MAX_SHOWN or "-----" in text or not text.isprintable() or not _JSON_MARKS.isdisjoint(text):
        return True
    if _ENCODED.fullmatch(text) and not text.startswith("/"):
        return True
    return any(_changes(run) >= 5 for run in _ENCODED.findall(text))


def _changes(text: str) -> int:
    """How often letters and digits of one class are followed by another."""
    classes = [(character.isupper(), character.isdigit()) for character in text if character.isalnum()]
    return sum(one != other for one, other in pairwise(classes))


def _encoded(text: str, role: str, name: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")  # bytes of the environment that are no UTF-8 come back whole
    except UnicodeEncodeError:
        raise MaterialError(role, f"{name} holds characters that are not text", "copy it again") from None


def _file(path: Path, role: str) -> Path:
    if not os.path.isdir(path) or role not in LAYOUT:
        return path
    names = LAYOUT[role]
    # If there is none, opening the first tells whether it is missing or may not be looked for.
    return path / next((name for name in names if os.path.lexists(path / name)), names[0])


def _open_without_waiting(path: str, flags: int) -> int:
    """The opener of `open`: to open a named pipe would else last until somebody writes to it."""
    try:
        return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise FileKindError("is a socket, or a device that is not there") from None
        raise


def _to_end(stream: io.FileIO, most: int) -> bytes:
    data = bytearray()
    while len(data) < most and (piece := stream.read(min(_PIECE, most - len(data)))):
        data += piece
    return bytes(data)


def _in_time(stream: io.FileIO, most: int, kind: str) -> bytes:
    data, until = bytearray(), os.times().elapsed + PIPE_SECONDS
    while len(data) < most:
        piece = stream.read(min(_PIECE, most - len(data)))
        if piece == b"":
            break
        data += piece or b""
        left = until - os.times().elapsed
        if left <= 0 or (piece is None and not _has_come(stream, left)):
            fact = f"is a {kind}, and has not come to its end within {PIPE_SECONDS:g} s"
            raise FileKindError(fact, "let what writes to it close it, or name a file")
    return bytes(data)


def _has_come(stream: io.FileIO, seconds: float) -> bool:
    """Wait for bytes, or for the end."""
    waiting = select.poll()
    waiting.register(stream, select.POLLIN)
    return bool(waiting.poll(seconds * 1000))


def _bytes_of(file: Path, path: Path, role: str, limit: int) -> bytes:
    try:
        return content_of(file, limit + 1)
    except FileNotFoundError:
        raise _not_found(file, path, role) from None
    except PermissionError:
        who = f"user {os.geteuid()}, who runs this program, may not read {_shown(file, role)}"
        raise MaterialError(role, who, "let that user read it (chown or chmod, and every directory above)") from None
    except IsADirectoryError:
        fix = "name a file (container engines make a directory where the file to mount does not exist)"
        raise MaterialError(role, f"{_shown(file, role)} is a directory", fix) from None
    except FileKindError as error:
        raise MaterialError(role, f"{_shown(file, role)} {error.fact}", error.fix) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the path
        # The text of an OSError repeats the path, that of its number does not.
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "it is no path"
        fact = f"{_shown(file, role)} cannot be read: {reason}"
        raise MaterialError(role, fact, "correct the path, or give the text itself") from None


def _not_found(file: Path, path: Path, role: str) -> MaterialError:
    if file != path:
        names = " or ".join(LAYOUT[role])
        fact = f"{path} is a directory without {LAYOUT[role][0]}"
        return MaterialError(role, fact, f"put {names} there or name a file")
    if may_be_secret(str(file)):
        fix = "if it is the text itself, copy it whole, from its first character to its last"
        return MaterialError(role, f"{_shown(file, role)} does not exist, and may be key material", fix)
    return MaterialError(role, f"{_shown(file, role)} does not exist", "correct the path, or put the file there")


def _shown(file: Path, role: str) -> str:
    """The path, unless it could be a secret: any word could be a passphrase that was taken for a path."""
    text = str(file)
    if may_be_secret(text) or (role == "passphrase" and not os.path.lexists(file)):
        return f"the path given as {_WORDS[role]}"
    return text
