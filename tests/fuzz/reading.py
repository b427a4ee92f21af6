"""What our own codecs and h11 read from bytes, in a form that does not show how the bytes were cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import attrs
import h11

from sidecar.errors import ProtocolError, RequestError, ResponseError
from sidecar.wire.events import Data, End, InterimHead, RequestHead, ResponseHead, Trailers
from sidecar.wire.http1 import ClientCodec, ServerCodec, State
from tests.fuzz.inputs import RequestInput, ResponseInput

_LARGE: Final = 1 << 20

_LOOK_EVERY: Final = 16
"""How many pieces arrive from one look at what is held to the next: looking costs more than all the rest."""


@attrs.define
class Message:
    """
    One message as far as it came.

    Attributes:
        head: None before it came.
        tunnel: What came behind a 101.
    """

    head: RequestHead | ResponseHead | None = None
    interim: list[InterimHead] = attrs.Factory(list)
    payload: bytes = b""
    trailers: bytes = b""
    is_complete: bool = False
    tunnel: bytes = b""

    def add(self, event: object) -> None:
        """Take the next event; fail if it is out of turn."""
        if isinstance(event, InterimHead):
            assert self.head is None, "an interim head after the final one"
            self.interim.append(event)
        elif isinstance(event, RequestHead | ResponseHead):
            assert self.head is None, "two heads"
            self.head = event
        elif isinstance(event, Data):
            assert event.payload, "an empty piece of body"
            if self.is_complete:
                self.tunnel += event.payload
            else:
                assert self.head is not None, "body before head"
                assert not self.trailers, "body behind trailers"
                self.payload += event.payload
        elif isinstance(event, Trailers):
            assert not self.is_complete, "trailers behind the end"
            assert not self.trailers, "trailers twice"
            self.trailers = event.fields.section
        else:
            assert isinstance(event, End), event
            assert self.head is not None, "end before head"
            assert not self.is_complete, "two ends"
            self.is_complete = True


@attrs.define
class Reading:
    """
    What a codec made of a connection.

    Attributes:
        messages: In order; the last one may be unfinished, or lack even its head.
        refusal: The error that ended it.
        state: Of the codec at the end.
        is_reusable: Of a codec in the client's role.
        most_held: Most bytes that the codec was seen to hold between two arrivals.
    """

    messages: list[Message] = attrs.Factory(lambda: [Message()])
    refusal: ProtocolError | None = None
    state: State = State.HEAD
    is_reusable: bool = True
    most_held: int = 0

    @property
    def complete(self) -> list[Message]:
        return [message for message in self.messages if message.is_complete]


def held_bytes(thing: object) -> int:
    """Count the bytes that *thing* leads to over its slots and over lists and tuples."""
    if isinstance(thing, bytes | bytearray):
        return len(thing)
    if isinstance(thing, list | tuple):
        return sum(held_bytes(member) for member in thing)
    names = getattr(type(thing), "__slots__", ())
    return sum(held_bytes(getattr(thing, name, None)) for name in names)


def read_requests(pieces: Sequence[bytes], limits: RequestInput) -> Reading:
    """Read all that a client sends, each request after the one before it was answered."""
    codec = ServerCodec(limits.max_head_bytes, limits.max_headers, limits.max_body_bytes)
    reading = Reading()
    try:
        for number, piece in enumerate(pieces):
            _add_requests(reading, codec.receive(piece))
            while codec.is_complete:
                _add_requests(reading, codec.next_request())
            if number % _LOOK_EVERY == 0:
                reading.most_held = max(reading.most_held, held_bytes(codec))
    except RequestError as error:
        reading.refusal = error
    reading.state = codec.state
    return reading


def _add_requests(reading: Reading, events: Sequence[object]) -> None:
    for event in events:
        reading.messages[-1].add(event)
    if reading.messages[-1].is_complete:
        reading.messages.append(Message())


def read_response(pieces: Sequence[bytes], input: ResponseInput) -> Reading:
    """Read one response as the proxy does, and behind a 101 the tunnel."""
    return _read_response(ClientCodec(input.max_head_bytes, input.max_headers), pieces, input, input.is_closed)


def read_forwarded_response(data: bytes, input: ResponseInput, *, is_closed: bool) -> Reading:
    """
    Read what a client got, with room for the fields that the proxy adds.

    Args:
        is_closed: Whether its connection was closed in order.
    """
    return _read_response(ClientCodec(_LARGE, _LARGE), [data] if data else [], input, is_closed)


def _read_response(codec: ClientCodec, pieces: Sequence[bytes], input: ResponseInput, is_closed: bool) -> Reading:
    reading = Reading()
    codec.expect_response(input.method, input.offered)
    message, has_switched = reading.messages[0], False
    try:
        for number, piece in enumerate(pieces):
            if codec.state is State.COMPLETE:
                codec.is_reusable = False  # as whoever owns a connection that is sent bytes nobody waits for
                break
            for event in codec.receive(piece):
                message.add(event)
            if is_upgrade(message) and not has_switched:
                codec.upgrade()
                has_switched = True
            if number % _LOOK_EVERY == 0:
                reading.most_held = max(reading.most_held, held_bytes(codec))
        if is_closed and not message.is_complete:
            for event in codec.receive_eof():
                message.add(event)
    except ResponseError as error:
        reading.refusal = error
    reading.state, reading.is_reusable = codec.state, codec.is_reusable
    return reading


def is_upgrade(message: Message) -> bool:
    """Whether *message* is a 101."""
    return isinstance(message.head, ResponseHead) and message.head.status == 101


# -- h11 --------------------------------------------------------------------------------------------------------


@attrs.define
class Foreign:
    """What h11 read; *start* is (method, target) or the final status; *rest* is what it left."""

    start: tuple[bytes, bytes] | int | None = None
    interim: list[int] = attrs.Factory(list)
    payload: bytes = b""
    is_complete: bool = False
    rest: bytes = b""


def read_request_by_h11(data: bytes) -> Foreign:
    """
    Read one request as a server that is not ours does.

    Raises:
        h11.RemoteProtocolError: It does not take it for one.
    """
    return _read_by_h11(h11.Connection(h11.SERVER, max_incomplete_event_size=_LARGE), data, is_closed=False)


def read_response_by_h11(data: bytes, method: bytes, *, is_closed: bool) -> Foreign:
    """
    Read one response, and what is before it, as a client that is not ours does.

    Raises:
        h11.RemoteProtocolError: It does not take it for one.
    """
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_LARGE)
    connection.send(h11.Request(method=method, target=b"/x", headers=[(b"Host", b"a")]))
    connection.send(h11.EndOfMessage())
    return _read_by_h11(connection, data, is_closed=is_closed)


def _read_by_h11(connection: h11.Connection, data: bytes, *, is_closed: bool) -> Foreign:
    read = Foreign()
    if data:  # nothing would mean the end
        connection.receive_data(data)
    if is_closed:
        connection.receive_data(b"")
    while not read.is_complete:
        event: Any = connection.next_event()
        if isinstance(event, h11.Request):
            read.start = (event.method, event.target)
        elif isinstance(event, h11.Response):
            read.start = event.status_code
        elif isinstance(event, h11.InformationalResponse):
            read.interim.append(event.status_code)
        elif isinstance(event, h11.Data):
            read.payload += event.data
        elif isinstance(event, h11.EndOfMessage):
            read.is_complete = True
        else:
            break  # it wants more
    read.rest = connection.trailing_data[0]
    return read


# -- what no field may hold -------------------------------------------------------------------------------------

_TOKEN: Final = frozenset(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
_NEVER_IN_VALUES: Final = frozenset(range(0x20)) - {0x09} | {0x7F}


def check_section(section: bytes) -> None:
    """
    Fail unless *section* is field lines of which none can be taken for two, or for the end.

    Written without the patterns of `sidecar.wire.grammar`, which it is to judge.
    """
    if not section:
        return
    lines = section.split(b"\r\n")
    assert lines.pop() == b"", "a section that does not end with a line"
    for line in lines:
        name, colon, value = line.partition(b":")
        assert colon, "a field without a colon"
        assert name, "a field without a name"
        assert _TOKEN.issuperset(name), f"a character in a field name: {name!r}"
        assert _NEVER_IN_VALUES.isdisjoint(value), f"a control character in the value of {name!r}"


def check_start(part: bytes) -> None:
    """Fail unless *part* of a request line is visible ASCII."""
    assert part, "an empty part of the request line"
    assert all(0x21 <= octet <= 0x7E for octet in part), f"not visible ASCII in the request line: {part!r}"
