"""What holds for the HTTP/2 codec whatever requests a good client sends, in whatever pieces: generated input."""

from __future__ import annotations

from hpack import Encoder
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.wire.events import END, Data, RequestHead, Trailers
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
