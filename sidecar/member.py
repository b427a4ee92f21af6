"""
A worker's end of the channel: what it is started with, and what it does when the supervisor says so.

If the channel closes, the supervisor has gone: the worker finishes what is in flight, and ends.
"""

from __future__ import annotations

import enum
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, Self

import attrs
from cryptography.hazmat.primitives import serialization
from cryptography.x509 import load_pem_x509_certificate
from twisted.logger import Logger

from sidecar import settings
from sidecar.admin.operator import Operator
from sidecar.certs.bundle import Bundle
from sidecar.config.load import Loaded
from sidecar.control import Channel, Kind, Message, encode, pack_problems, receive
from sidecar.errors import Problem
from sidecar.merged import Part, answer
from sidecar.observe import logs

START_SECONDS: Final = 10.0
"""How long a worker waits for what it is to serve with."""

FAREWELL_SECONDS: Final = 1.0

_log = Logger()


@attrs.frozen(kw_only=True)
class Start:
    """
    What a worker is started with.

    Attributes:
        loaded: The settings in force. What the operator's file says by now is another matter, until a reload.
        flags, environ: Where it reads its settings from at a reload, as the supervisor does.
        workers: How many share the limits.
        ephemeral: The certificate that is served where none is given, which must be the same in all workers.
        place: What its `tally.Place` is made of; None: it has none.
    """

    loaded: Loaded = attrs.field(repr=False)
    flags: Mapping[str, str] = attrs.field(repr=False)
    environ: Mapping[str, str] = attrs.field(repr=False)
    workers: int
    ephemeral: Bundle | None = None
    place: tuple[int, int] | None = None

    def pack(self) -> Any:
        """Return it as a message carries it."""
        loaded = [_pack(self.loaded.settings), dict(self.loaded.sources), dict(self.loaded.places)]
        return [loaded, dict(self.flags), dict(self.environ), self.workers, _pack_bundle(self.ephemeral), self.place]

    @classmethod
    def unpack(cls, packed: Any) -> Self:
        """Return what `pack` was made of."""
        (values, sources, places), flags, environ, workers, ephemeral, place = packed
        return cls(
            loaded=Loaded(_unpack(values), sources, places),
            flags=flags,
            environ=environ,
            workers=workers,
            ephemeral=_unpack_bundle(ephemeral),
            place=None if place is None else (place[0], place[1]),
        )


_CLASSES: Final[dict[str, Any]] = {
    name: each
    for name, each in vars(settings).items()
    if isinstance(each, type) and (attrs.has(each) or issubclass(each, enum.Enum))
}
"""Those that settings are made of, by name."""


def _pack(value: Any) -> Any:
    """
    Return a value out of settings as a message carries it: what JSON has not as a pair of its class and what is in it.

    The texts that an operator writes would not do: those of secrets are masked.
    """
    name = type(value).__name__
    match value:
        case enum.Enum():
            return [name, value.value]
        case Path():
            return ["Path", str(value)]
        case tuple():
            return ["tuple", [_pack(each) for each in value]]
        case _ if name in _CLASSES:
            return [name, {field.name: _pack(getattr(value, field.name)) for field in attrs.fields(type(value))}]
        case _:
            return value


def _unpack(packed: Any) -> Any:
    match packed:
        case ["Path", text]:
            return Path(text)
        case ["tuple", values]:
            return tuple(_unpack(each) for each in values)
        case [name, dict() as fields]:
            return _CLASSES[name](**{field: _unpack(each) for field, each in fields.items()})
        case [name, word]:
            return _CLASSES[name](word)
        case _:
            return packed


def _pack_bundle(bundle: Bundle | None) -> list[str] | None:
    if bundle is None:
        return None
    key = bundle.private_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return [bundle.leaf.public_bytes(serialization.Encoding.PEM).decode(), key.decode()]


def _unpack_bundle(packed: Any) -> Bundle | None:
    if packed is None:
        return None
    leaf, key = (text.encode() for text in packed)
    private_key: Any = serialization.load_pem_private_key(key, None)  # ours: an elliptic curve's
    return Bundle(leaf=load_pem_x509_certificate(leaf), chain=(), private_key=private_key)


def receive_start(sock: socket.socket) -> Start:
    """
    Wait for the first message.

    Raises:
        OSError: It did not come; the supervisor has ended.
        ValueError: It is none, or another.
    """
    sock.settimeout(START_SECONDS)
    message = receive(sock)
    if message.kind is not Kind.START:
        raise ValueError(f"the first message is {message.kind.value!r}")
    return Start.unpack(message.body)


def share_of(loaded: Loaded, workers: int) -> Loaded:
    """
    Return *loaded* with one worker's share of the limits that are meant for all of them together.

    A full worker lets the others accept, so the sum is the limit; it is less by what does not divide.
    """
    limits = loaded.settings.limits
    share = attrs.evolve(
        limits,
        connections=max(1, limits.connections // workers),
        upstream_connections=max(1, limits.upstream_connections // workers),
    )
    return attrs.evolve(loaded, settings=attrs.evolve(loaded.settings, limits=share))


class Program(Protocol):
    """What `app.App` is to the supervisor."""

    def drain(self, stopped: Callable[[int], None], *, replaced: bool) -> None:
        """
        Accept no more, finish what is in flight, then call *stopped*.

        Args:
            replaced: Others serve on: no balancer needs to take notice, and clients are let go without haste.
        """

    def force(self) -> None: ...


class Member:
    """Does what the supervisor says."""

    def __init__(self, sock: socket.socket, program: Program, reactor: Any) -> None:
        """
        Args:
            sock: The channel, from which the first message has been read.
            program: What is to serve.
            reactor: IReactorFDSet, IReactorCore.
        """
        self._program = program
        self._operator: Operator | None = None  # once it serves
        self._reactor = reactor
        self._is_draining = False
        self._channel = Channel(sock, self._received, self._orphaned, reactor)

    def start(self) -> None:
        """Listen to the supervisor from now on."""
        self._channel.start()

    def serves(self, operator: Operator) -> None:
        """Say that the program serves; *operator* is how it is looked at from now on."""
        self._operator = operator
        self._channel.send(Message(Kind.READY))

    def _received(self, message: Message) -> None:
        match message.kind:
            case Kind.QUESTION:
                self._channel.send(Message(Kind.ANSWER, self._answer(message.body), message.id))
            case Kind.DRAIN:
                self._drain(replaced=bool(message.body))
            case Kind.FORCE:
                self._force()
            case Kind.LOG_LEVEL:
                logs.set_level(settings.LogLevel(message.body))
            case _:
                _log.error("a message that is not for a worker: {kind}", kind=message.kind.value)

    def _answer(self, part: str) -> Any:
        """Return the answer; None if it cannot be made, so that the supervisor can say who has none."""
        try:
            return answer(self._operator, Part(part)) if self._operator is not None else None
        except Exception:
            _log.failure("the question {part} could not be answered", part=part)
            return None

    def _drain(self, *, replaced: bool) -> None:
        if self._is_draining:
            return
        self._is_draining = True
        if self._operator is not None:
            self._program.drain(self._drained, replaced=replaced)
        else:
            self._reactor.stop()

    def _force(self) -> None:
        self._drain(replaced=False)
        if self._operator is not None:
            self._program.force()

    def _drained(self, cut: int) -> None:
        try:
            self._channel.send(Message(Kind.FAREWELL, self._answer(Part.FIGURES.value)))
            self._channel.flush(FAREWELL_SECONDS)
            self._channel.close()
        finally:
            self._reactor.stop()  # whatever else goes wrong: without a supervisor nobody would end it

    def _orphaned(self) -> None:
        _log.error("the supervisor has gone: finishing what is in flight, and ending")
        self._drain(replaced=False)


def tell_failure(sock: socket.socket, problems: Sequence[Problem]) -> None:
    """Say why the worker cannot start; nothing if the supervisor has gone."""
    sock.settimeout(FAREWELL_SECONDS)
    try:
        sock.sendall(encode(Message(Kind.FAILED, pack_problems(problems))))
    except OSError:
        pass  # the exit status says it too
