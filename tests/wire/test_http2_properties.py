"""What holds for the HTTP/2 codec whatever good peers send, in whatever pieces: generated input."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import attrs
from hpack import Encoder
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.wire.events import END, Data, InterimHead, RequestHead, ResponseHead, Trailers
from sidecar.wire.h2connection import Connection
from sidecar.wire.h2limits import Http2Limits
from sidecar.wire.h2streams import WRITABLE
from sidecar.wire.head import parse_request_head
from tests.support import frames
from tests.support.frames import Field

quick = settings(max_examples=100, deadline=None)

tokens = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_.", min_size=1, max_size=12).map(str.encode)
visible = st.sampled_from([bytes((octet,)) for octet in (*range(0x21, 0x7F), *range(0x80, 0x100))])
values = st.lists(visible | st.sampled_from([b"a b", b"a\tb"]), max_size=20).map(b"".join)

SPECIAL = {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade", b"te", b"host"} | {
    b"content-length"
}

fields = st.lists(
    st.tuples(tokens.filter(lambda name: name not in SPECIAL), values)
    | st.tuples(st.just(b"cookie"), values)
    | st.just((b"te", b"trailers")),
    max_size=8,
)


@st.composite
def requests(draw: st.DrawFn) -> tuple[list[Field], list[bytes], list[Field]]:
    """The fields of a request, the pieces of its body, and its trailers."""
    path = b"/" + draw(tokens)
    body = draw(st.lists(st.binary(min_size=1, max_size=50), max_size=4))
    head = [(b":method", draw(st.sampled_from([b"GET", b"POST", b"PATCH"]))), (b":path", path)]
    head += [(b":scheme", b"https"), (b":authority", draw(st.sampled_from([b"a", b"b.example:8443"])))]
    head += draw(fields)
    if body and draw(st.booleans()):
        head.append((b"content-length", b"%d" % sum(map(len, body))))
    return head, body, draw(fields) if body else []


@st.composite
def conversations(draw: st.DrawFn) -> tuple[list[tuple[list[Field], list[bytes], list[Field]]], bytes, list[bytes]]:
    """Requests one after the other, their bytes as a client with a table sends them, and these in pieces."""
    sent = draw(st.lists(requests(), min_size=1, max_size=4))
    encoder, data = Encoder(), frames.PREFACE + frames.settings()
    for index, (head, body, trailers) in enumerate(sent):
        stream_id = 2 * index + 1
        huffman = draw(st.booleans())
        block = encoder.encode(head, huffman=huffman)
        cut = draw(st.integers(0, len(block)))
        end = 0 if body else frames.END_STREAM
        data += frames.frame(frames.HEADERS, end, stream_id, block[:cut])
        data += frames.frame(frames.CONTINUATION, frames.END_HEADERS, stream_id, block[cut:])
        for number, piece in enumerate(body, 1):
            is_last = number == len(body) and not trailers
            data += frames.data(stream_id, piece, frames.END_STREAM if is_last else 0)
        if trailers:
            data += frames.frame(frames.HEADERS, frames.WHOLE, stream_id, encoder.encode(trailers))
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=8)))
    pieces = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    return sent, data, pieces


class TestGoodClient:
    @quick
    @given(conversations())
    def test_what_was_sent_is_told(
        self, said: tuple[list[tuple[list[Field], list[bytes], list[Field]]], bytes, list[bytes]]
    ) -> None:
        """Every request comes out as it went in, however it was compressed, cut into frames and into pieces."""
        sent, _, pieces = said
        connection = frames.new()
        events = [event for piece in pieces for event in connection.receive(piece, 0.0)]
        for index, (head, body, trailers) in enumerate(sent):
            told = [event for stream_id, event in events if stream_id == 2 * index + 1]
            first, *rest = told
            assert isinstance(first, RequestHead)
            pseudo = dict(head[:4])
            assert (first.method, first.target, first.host) == (
                pseudo[b":method"],
                pseudo[b":path"],
                pseudo[b":authority"],
            )
            regular = [(name, value) for name, value in head[4:] if name != b"cookie"]
            found = [
                (name, value)
                for name, value in _lines(first.fields.section)
                if name not in (b"host", b"cookie", b"transfer-encoding")
            ]
            assert found == regular
            crumbs = [value for name, value in head if name == b"cookie"]
            assert first.fields.values(b"cookie") == ([b"; ".join(filter(None, crumbs))] if crumbs else [])
            assert [event.payload for event in rest if isinstance(event, Data)] == body
            sections = [event.fields.section for event in rest if isinstance(event, Trailers)]
            assert [field for section in sections for field in _lines(section)] == trailers
            assert rest[-1] is END

    @quick
    @given(requests())
    def test_head_is_that_of_the_same_request_in_http_1(
        self, said: tuple[list[Field], list[bytes], list[Field]]
    ) -> None:
        """Written as HTTP/1.1 it is read as an equal head: nobody behind the codec can tell the difference."""
        head, body, _ = said
        connection = frames.begun()
        ((_, made), *_) = connection.receive(frames.headers(1, head, frames.END_HEADERS if body else frames.WHOLE), 0.0)
        assert isinstance(made, RequestHead)
        data = b"%b %b HTTP/1.1\r\n%b\r\n" % (made.method, made.target, made.fields.section)
        assert parse_request_head(data, 100) == made


def _lines(section: bytes) -> list[Field]:
    """The fields in a section."""
    pairs = [line.split(b": ", 1) for line in section.split(b"\r\n")[:-1]]
    return [(name, value) for name, value in pairs]


plain_fields = st.lists(st.tuples(tokens.filter(lambda name: name not in SPECIAL | {b"cookie"}), values), max_size=4)
bodies = st.lists(st.binary(min_size=1, max_size=20) | st.sampled_from([b"x" * 16_385, b"y" * 100_000]), max_size=3)


@attrs.frozen
class Said:
    """One half of an exchange: field lines, body and trailer lines, and interim heads before a response."""

    section: bytes
    body: bytes
    trailers: bytes
    interims: int = 0


def section_of(fields: list[Field]) -> bytes:
    return b"".join([b"%b: %b\r\n" % field for field in fields])


said = st.builds(
    Said,
    section=plain_fields.map(section_of),
    body=bodies.map(b"".join),
    trailers=plain_fields.map(section_of),
    interims=st.integers(0, 2),
)


@attrs.define
class Side:
    """
    One of two connections that talk to each other over memory, with what it is to say on each stream.

    Attributes:
        left: What is unsent of the bodies.
        heard: What came on each stream, pieces of a body put together.
    """

    connection: Connection[Any]
    left: dict[int, Said] = attrs.field(factory=dict)
    heard: defaultdict[int, list[object]] = attrs.field(factory=lambda: defaultdict(list))

    def say(self, stream_id: int) -> None:
        """Send as much as may be sent of a body, and behind it the trailers."""
        rest = self.left[stream_id]
        ends = not rest.trailers
        taken = self.connection.send_data(stream_id, rest.body, end=ends)
        self.left[stream_id] = attrs.evolve(rest, body=rest.body[taken:])
        if taken == len(rest.body):
            del self.left[stream_id]
            if not ends:
                self.connection.send_trailers(stream_id, rest.trailers)

    def hear(self, piece: bytes) -> list[int]:
        """Take bytes; return the streams that have ended."""
        ended = []
        for stream_id, event in self.connection.receive(piece, 0.0):
            heard = self.heard[stream_id]
            if isinstance(event, Data):
                self.connection.acknowledge(stream_id, len(event.payload))
                if isinstance(heard[-1], Data):
                    heard[-1] = Data(heard[-1].payload + event.payload)
                    continue
            if event is WRITABLE:
                self.say(stream_id)
                continue
            heard.append(event)
            if event is END:
                ended.append(stream_id)
        return ended


class TestBothRoles:
    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.tuples(said, said), min_size=1, max_size=4), st.lists(st.integers(1, 40_000), min_size=1))
    def test_what_one_side_says_the_other_hears(self, exchanges: list[tuple[Said, Said]], sizes: list[int]) -> None:
        """Several exchanges at once, with bodies larger than the windows and any cut of the bytes, come out whole."""
        limits = Http2Limits(stream_window=65_535, connection_window=65_535)
        client, server = Side(frames.client(limits)), Side(frames.new(limits))
        for request, _ in exchanges:
            stream_id = client.connection.open(b"POST", b"/x", b"Host: a\r\n" + request.section, end=False)  # type: ignore[attr-defined]
            client.left[stream_id] = request
            client.say(stream_id)
        turn = 0
        while to_server := client.connection.data_to_send():
            for piece in _cut(to_server, sizes[turn % len(sizes)]):
                for stream_id in server.hear(piece):
                    self.answer(server, stream_id, exchanges[stream_id // 2][1])
            for piece in _cut(server.connection.data_to_send(), sizes[turn % len(sizes)]):
                client.hear(piece)
            client.connection.sent(0)
            server.connection.sent(0)
            turn += 1
        for index, (request, response) in enumerate(exchanges):
            head, *rest = server.heard[2 * index + 1]
            assert isinstance(head, RequestHead)
            chunked = b"transfer-encoding: chunked\r\n"
            assert head.fields.section == b"host: a\r\n" + request.section + chunked
            assert _shown(rest) == (request.body, request.trailers)
            heard = client.heard[2 * index + 1]
            interims, final, rest = heard[: response.interims], heard[response.interims], heard[response.interims + 1 :]
            assert [type(interim) for interim in interims] == [InterimHead] * response.interims
            assert isinstance(final, ResponseHead)
            assert final.fields.section == response.section + chunked
            assert _shown(rest) == (response.body, response.trailers)
        assert client.connection.open_streams == server.connection.open_streams == 0

    @staticmethod
    def answer(server: Side, stream_id: int, response: Said) -> None:
        for _ in range(response.interims):
            server.connection.send_head(stream_id, 103, b"Link: a\r\n")  # type: ignore[attr-defined]
        server.connection.send_head(stream_id, 200, response.section)  # type: ignore[attr-defined]
        server.left[stream_id] = response
        server.say(stream_id)


def _cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def _shown(events: list[object]) -> tuple[bytes, bytes]:
    """The body and trailer lines in what was heard, which is in order and has an end."""
    assert events[-1] is END
    assert [type(event) for event in events[:-1]] in ([], [Data], [Trailers], [Data, Trailers])
    body = b"".join(event.payload for event in events if isinstance(event, Data))
    return body, b"".join(event.fields.section for event in events if isinstance(event, Trailers))
