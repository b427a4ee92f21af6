"""What holds for the codecs whatever arrives, in whatever pieces: generated input."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import example, given, settings
from hypothesis import strategies as st

from sidecar.errors import RequestError, ResponseError
from sidecar.wire import framing
from sidecar.wire.events import END, BodyKind, Data, RequestHead, ResponseHead, Trailers
from sidecar.wire.framing import ChunkedReader
from sidecar.wire.http1 import ClientCodec, ServerCodec, State
from tests.support.cases import REQUESTS, RESPONSES

quick = settings(max_examples=250, deadline=None)

FRAGMENTS = (
    *(b"GET ", b"POST ", b"HEAD ", b"/", b"*", b"http://a/", b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b" ", b"\t", b","),
    *(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"POST / HTTP/1.1\r\nHost: a\r\n", b"Host: a\r\n", b"Host: b\r\n"),
    *(
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 101 X\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.0 204 X\r\n",
    ),
    *(b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Content-Length:", b"Transfer-Encoding: chunked\r\n"),
    *(
        b"Transfer-Encoding:",
        b"chunked",
        b"Connection: close\r\n",
        b"Connection: upgrade\r\nUpgrade: x\r\n",
        b"X: y\r\n",
    ),
    *(
        b"\r\n",
        b"\r\n\r\n",
        b"\n",
        b"\r",
        b"\n\n",
        b"\0",
        b"\xa0",
        b":",
        b";",
        b"hello",
        b"5",
        b"+5",
        b"0x5",
        b"ffffffff",
    ),
    *(b"5\r\nhello\r\n", b"0\r\n\r\n", b"0\r\n", b"5;x=y\r\n", b"X-Sum: 1\r\n"),
)

fragments = st.lists(st.sampled_from(FRAGMENTS), max_size=12).map(b"".join) | st.binary(max_size=60)


@st.composite
def damaged(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """A good message with a few bytes changed, taken out or put in."""
    data = draw(whole)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        data = (
            data[:at] + draw(st.sampled_from(FRAGMENTS) | st.binary(max_size=2)) + data[at + draw(st.integers(0, 2)) :]
        )
    return data


SHORT_REQUESTS = [case.data for case in REQUESTS if len(case.data) < 500]
SHORT_RESPONSES = [case.data for case in RESPONSES if len(case.data) < 500]
cuts = st.lists(st.integers(0, 600), max_size=8)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = [*sorted({place for place in places if 0 < place < len(data)}), len(data)]
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False) if start < end]


# -- driving a codec to the end of what there is ----------------------------------------------------------------


def read_requests(segments: list[bytes]) -> tuple[list[object], int]:
    """Read all requests: the events, and the status of the refusal that ended it, or 0."""
    codec = ServerCodec(61_440, 100)
    events: list[object] = []
    try:
        for segment in segments:
            events += codec.receive(segment)
            while codec.is_complete:
                events += codec.next_request()
    except RequestError as error:
        assert codec.state is State.BROKEN
        return events, error.status
    return events, 0


def read_response(segments: list[bytes], method: bytes, offered: tuple[bytes, ...]) -> tuple[list[object], bool]:
    """Read one response to its end or the end of the connection: the events, and whether it was refused."""
    codec = ClientCodec(61_440, 100)
    codec.expect_response(method, offered)
    events: list[object] = []
    try:
        for segment in segments:
            events += codec.receive(segment)
            if END in events:
                return events, False
        events += codec.receive_eof()
    except ResponseError:
        assert codec.state is State.BROKEN
        return events, True
    return events, False


def whole_messages(events: list[object]) -> list[tuple[object, bytes, object]]:
    """Those messages of *events* that ended, as (head, payload, trailers)."""
    messages: list[tuple[object, bytes, object]] = []
    head: object = None
    payload, trailers = b"", None
    for event in events:
        if isinstance(event, RequestHead | ResponseHead):
            head, payload, trailers = event, b"", None
        elif isinstance(event, Data):
            payload += event.payload
        elif isinstance(event, Trailers):
            trailers = event
        elif event is END:
            messages.append((head, payload, trailers))
    return messages


class TestAnyBytes:
    @quick
    @given(fragments | damaged(st.sampled_from(SHORT_REQUESTS)), cuts)
    @example(b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", [1])
    def test_requests_are_events_or_refused_alike_in_all_pieces(self, data: bytes, places: list[int]) -> None:
        """Any bytes give events or a RequestError; in any pieces the same messages, and the same status."""
        whole, status = read_requests([data] if data else [])
        for segments in (cut(data, places), [data[i : i + 1] for i in range(len(data))]):
            events, other_status = read_requests(segments)
            assert whole_messages(events) == whole_messages(whole)
            assert other_status == status

    @quick
    @given(
        fragments | damaged(st.sampled_from(SHORT_RESPONSES)),
        cuts,
        st.sampled_from([b"GET", b"HEAD", b"POST"]),
        st.sampled_from([(), (b"x",), (b"websocket", b"x")]),
    )
    def test_responses_are_events_or_refused_alike_in_all_pieces(
        self, data: bytes, places: list[int], method: bytes, offered: tuple[bytes, ...]
    ) -> None:
        """Any bytes give events or a ResponseError; in any pieces the same response."""
        whole, refused = read_response([data] if data else [], method, offered)
        for segments in (cut(data, places), [data[i : i + 1] for i in range(len(data))]):
            events, other_refused = read_response(segments, method, offered)
            assert whole_messages(events) == whole_messages(whole)
            assert other_refused == refused

    @quick
    @given(fragments | damaged(st.sampled_from(SHORT_RESPONSES)), cuts, fragments)
    def test_remembering_changes_nothing(self, data: bytes, places: list[int], first: bytes) -> None:
        """What was read before on a connection does not change how bytes are read, good or not."""
        for before in (first, data):
            codec = ClientCodec(61_440, 100)
            codec.expect_response(b"GET", ())
            fresh = ClientCodec(61_440, 100)
            try:
                codec.receive(before)
            except ResponseError:
                continue
            if codec.state is not State.COMPLETE or not codec.is_reusable:
                continue
            for each in (codec, fresh):
                each.expect_response(b"GET", (b"x",))
            for segment in cut(data, places):
                assert outcome(codec.receive, segment) == outcome(fresh.receive, segment)
                assert (codec.state, codec.is_reusable) == (fresh.state, fresh.is_reusable)

    @quick
    @given(
        st.lists(st.sampled_from(SHORT_REQUESTS), min_size=2, max_size=5), st.integers(0, 200), st.binary(max_size=1)
    )
    def test_remembering_requests_changes_nothing(self, requests: list[bytes], at: int, byte: bytes) -> None:
        """A request is read as on a new connection, also when it repeats one before it, or nearly so."""
        codec = ServerCodec(61_440, 100)
        changed = requests[0][:at] + byte + requests[0][at + 1 :]
        for data in (*requests, requests[0], requests[0], changed):
            fresh = ServerCodec(61_440, 100)
            assert outcome(codec.receive, data) == outcome(fresh.receive, data)
            assert codec.state is fresh.state
            assert codec.request == fresh.request
            if not codec.is_complete or codec.has_pipelined:
                codec = ServerCodec(61_440, 100)
                continue
            codec.next_request()


def outcome(receive: Callable[[bytes], list[object]], data: bytes) -> object:
    try:
        return list(receive(data))
    except (RequestError, ResponseError) as error:
        return error.reason, error.status


# -- good messages ----------------------------------------------------------------------------------------------

TCHARS = "!#$%&'*+-.^_`|~0123456789ABCXYZabcxyz"
tokens = st.text(TCHARS, min_size=1, max_size=12).map(str.encode)
values = st.lists(st.sampled_from(b'\t !"#:;,=aZ0~\x80\xff'), max_size=12).map(bytes)
DECIDING = frozenset({b"host", b"content-length", b"transfer-encoding", b"connection"})
lines = st.tuples(tokens.filter(lambda name: name.lower() not in DECIDING), values).map(b":".join)
payloads = st.lists(st.binary(min_size=1, max_size=40), max_size=5)
targets = st.text('/?&=%aZ09.;@\\|~"<>', max_size=20).map(lambda text: b"/" + text.encode())


def sections(*framing_lines: bytes) -> st.SearchStrategy[bytes]:
    """Header sections with Host, the lines given and any others, in any order."""
    return (
        st.lists(lines, max_size=6)
        .flatmap(lambda others: st.permutations([*others, b"Host: a", *framing_lines]))
        .map(lambda section: b"".join(line + b"\r\n" for line in section))
    )


def chunked(pieces: list[bytes], extension: bytes, trailers: bytes) -> bytes:
    chunks = b"".join(b"%X%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces)
    return chunks + b"0" + extension + b"\r\n" + trailers + b"\r\n"


@st.composite
def messages(draw: st.DrawFn) -> tuple[bytes, BodyKind, bytes, bytes, bytes]:
    """A good header section with its body: (section, kind, payload, trailers, bytes of the body)."""
    kind = draw(st.sampled_from([BodyKind.NONE, BodyKind.LENGTH, BodyKind.CHUNKED]))
    pieces = draw(payloads)
    payload = b"".join(pieces)
    if kind is BodyKind.CHUNKED:
        extension = draw(st.sampled_from([b"", b";a", b' ;a="b"']))
        trailers = b"".join(line + b"\r\n" for line in draw(st.lists(lines, max_size=2)))
        section = draw(sections(b"Transfer-Encoding: chunked"))
        return section, kind, payload, trailers, chunked(pieces, extension, trailers)
    if kind is BodyKind.LENGTH and payload:
        return draw(sections(b"Content-Length: %d" % len(payload))), kind, payload, b"", payload
    return draw(sections(b"Content-Length: 0")), BodyKind.NONE, b"", b"", b""


class TestGoodMessages:
    @quick
    @given(tokens, targets, messages(), cuts)
    def test_request_is_read_as_it_was_written(
        self, method: bytes, target: bytes, message: tuple[bytes, BodyKind, bytes, bytes, bytes], places: list[int]
    ) -> None:
        """A good request comes out of the codec as it went in, in whatever pieces, and again behind itself."""
        section, kind, payload, trailers, body = message
        data = b"X-%b %b HTTP/1.1\r\n%b\r\n%b" % (method, target, section, body)
        for segments in (cut(data + data, places), [data, data]):
            events, status = read_requests(segments)
            assert status == 0
            read = whole_messages(events)
            assert len(read) == 2
            for head, read_payload, read_trailers in read:
                assert isinstance(head, RequestHead)
                assert (head.method, head.target) == (b"X-" + method, target)
                assert head.fields.section == section
                assert (head.body, head.host) == (kind, b"a")
                assert read_payload == payload
                assert (read_trailers.fields.section if isinstance(read_trailers, Trailers) else b"") == trailers

    @quick
    @given(st.integers(200, 599).filter(lambda status: status not in (204, 304)), messages(), cuts)
    def test_response_is_read_as_it_was_written(
        self, status: int, message: tuple[bytes, BodyKind, bytes, bytes, bytes], places: list[int]
    ) -> None:
        """A good response comes out of the codec as it went in, in whatever pieces."""
        section, kind, payload, trailers, body = message
        data = b"HTTP/1.1 %d Fine\r\n%b\r\n%b" % (status, section, body)
        events, refused = read_response(cut(data, places), b"GET", ())
        assert not refused
        ((head, read_payload, read_trailers),) = whole_messages(events)
        assert isinstance(head, ResponseHead)
        assert (head.status, head.body, head.fields.section) == (status, kind, section)
        assert read_payload == payload
        assert (read_trailers.fields.section if isinstance(read_trailers, Trailers) else b"") == trailers


@st.composite
def make_chunked_body(draw: st.DrawFn) -> bytes:
    """Chunks of many sizes, most of them small, with odd but good lines, mostly with their end, and bytes behind it."""
    pieces = []
    for payload in draw(
        st.lists(st.binary(min_size=1, max_size=3) | st.sampled_from([b"\r\n", b"x" * 300]), max_size=9)
    ):
        size = draw(st.sampled_from([b"%x", b"%X", b"0%x", b"%015x"])) % len(payload)
        extension = draw(st.sampled_from([b"", b"", b";a=b", b' ;"0"', b"\t;", b";" + b"x" * 240]))
        pieces.append(size + extension + b"\r\n" + payload + b"\r\n")
    end = draw(st.sampled_from([b"0\r\n\r\n", b"0\r\n\r\n", b"000;x\r\nT: 1\r\n\r\n", b"0\r\nbad\r\n\r\n", b""]))
    return b"".join(pieces) + end + draw(st.sampled_from([b"", b"1\r\na\r\n", b"\r\n"]))


chunked_bodies = make_chunked_body()


def read_chunks(segments: list[bytes]) -> tuple[bytes, bytes, bytes | None] | str:
    """Read one chunked body: (payload, trailers, rest), rest None while it goes on; or the reason of the error."""
    reader = ChunkedReader(RequestError)
    payload, rest = b"", None
    try:
        for segment in segments:
            if rest is None:
                piece, rest = reader.read(segment)
                payload += piece
            else:
                rest += segment
    except RequestError as error:
        return error.reason
    return payload, reader.trailers.section if reader.trailers else b"", rest


class TestBodies:
    @quick
    @given(payloads, st.lists(lines, max_size=2), cuts, st.binary(max_size=10))
    def test_written_chunks_are_read_back(
        self, pieces: list[bytes], trailer_lines: list[bytes], places: list[int], behind: bytes
    ) -> None:
        """What is written as chunks is read back as it was, and what follows is left."""
        trailers = b"".join(line + b"\r\n" for line in trailer_lines)
        data = b"".join(framing.chunk(piece) for piece in pieces) + framing.last_chunk(trailers)
        reader = ChunkedReader(RequestError)
        payload, rest = b"", None
        for segment in cut(data, places):
            assert rest is None
            piece, rest = reader.read(segment)
            payload += piece
        assert (payload, rest) == (b"".join(pieces), b"")
        assert (reader.trailers.section if reader.trailers else b"") == trailers
        assert ChunkedReader(RequestError).read(data + behind) == (payload, behind)

    @quick
    @given(chunked_bodies | damaged(chunked_bodies), cuts)
    @example(b"1\r\na\r\n1;" + b"x" * 252 + b"\r\nb\r\n0\r\n\r\n", [6])
    @example(b"1\r\na\r\n1;" + b"x" * 253 + b"\r\nb\r\n0\r\n\r\n", [6])
    @example(b"1\r\na\r\n1\r\nbX0\r\n\r\n", [7])
    @example(b"1\r\na\r\n1\r\nb\rX", [])
    @example(b"1\r\na\r\n2\r\nb", [6])
    @example(b"0\r\n\r\n1\r\na\r\n", [5])
    @example(b"00\r\nT: 1\r\n\r\n5\r\nhello\r\n", [2])
    @example(b"FFFFFFFFFFFFFFF\r\na", [])
    @example(b"1000000000000000\r\na", [])
    @example(b"5\r\nhello\r\n\r\n0\r\n\r\n", [])
    @example(b"5\r\n0\r\n\r\n\r\n0\r\n\r\n", [3])
    def test_chunks_are_read_alike_in_all_pieces(self, data: bytes, places: list[int]) -> None:
        """Good or not, chunks give the same payload, trailers and rest, or the same error, as byte by byte."""
        expected = read_chunks([data[i : i + 1] for i in range(len(data))])
        assert read_chunks([data]) == expected
        assert read_chunks(cut(data, places)) == expected
        for place in range(1, min(len(data), 40)):
            assert read_chunks([data[:place], data[place:]]) == expected

    @quick
    @given(st.integers(1, 50), st.lists(fragments, max_size=6))
    def test_no_more_payload_than_the_length_says(self, length: int, pieces: list[bytes]) -> None:
        """Whatever follows a head with a length, the body is the first so many bytes of it."""
        codec = ServerCodec(61_440, 100)
        events: list[object] = list(codec.receive(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % length))
        for piece in pieces:
            events += codec.receive(piece)
        payload = b"".join(event.payload for event in events if isinstance(event, Data))
        assert payload == b"".join(pieces)[:length]
        assert codec.is_complete is (len(payload) == length)

    @quick
    @given(st.lists(fragments, max_size=6))
    def test_no_more_payload_than_the_chunks_say(self, pieces: list[bytes]) -> None:
        """Whatever a chunked body is made of, what comes out is framed by the sizes that were read."""
        reader = ChunkedReader(RequestError)
        data, payload, rest = b"".join(pieces), b"", None
        try:
            payload, rest = reader.read(data)
        except RequestError:
            return
        assert payload == framed_by_hand(data)
        assert rest is None or data.endswith(rest)


def framed_by_hand(data: bytes) -> bytes:
    """Read chunks the plain way, for comparison: no limits, no errors, all there is."""
    payload = b""
    while b"\r\n" in data:
        line, _, data = data.partition(b"\r\n")
        size = int(line.partition(b";")[0].strip(b" \t"), 16)
        if not size:
            break
        payload += data[:size]
        data = data[size + 2 :]
    return payload
