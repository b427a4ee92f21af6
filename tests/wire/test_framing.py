"""`sidecar.wire.framing`: where a body ends."""

from __future__ import annotations

import pytest

from sidecar.errors import ProtocolError, RequestError, ResponseError
from sidecar.wire import framing
from sidecar.wire.events import BodyKind
from sidecar.wire.fields import Fields
from sidecar.wire.framing import MAX_CHUNK_LINE_BYTES, ChunkedReader, LengthReader, UntilCloseReader
from tests.support.cases import CHUNKED, WAYS, ChunkedCase

NONE, LENGTH, CHUNKS, CLOSE = BodyKind.NONE, BodyKind.LENGTH, BodyKind.CHUNKED, BodyKind.UNTIL_CLOSE
TE = b"Transfer-Encoding: chunked\r\n"


class TestRequestBody:
    @pytest.mark.parametrize(
        ("section", "framed"),
        [
            (b"", (NONE, 0)),
            (b"Content-Length: 0\r\n", (NONE, 0)),
            (b"Content-Length: 7\r\n", (LENGTH, 7)),
            (b"Content-Length: " + b"9" * 18 + b"\r\n", (LENGTH, 10**18 - 1)),
            (TE, (CHUNKS, 0)),
            (b"X-Content-Length: 7\r\nContent_Length: 8\r\n", (NONE, 0)),
        ],
    )
    def test_framing_fields_decide(self, section: bytes, framed: tuple[BodyKind, int]) -> None:
        """A request has a body if, and only if, one of the two framing fields says so."""
        assert framing.request_body(Fields(section), 1) == framed

    @pytest.mark.parametrize(
        ("section", "minor_version", "reason", "status"),
        [
            (TE + b"Content-Length: 5\r\n", 1, "both_framings", 400),
            (TE + b"Content-Length: 5\r\n", 0, "both_framings", 400),
            (TE, 0, "framing_in_1_0", 400),
            (TE + TE, 1, "bad_transfer_encoding", 501),
            (b"Transfer-Encoding: gzip\r\n", 1, "bad_transfer_encoding", 501),
            (b"Transfer-Encoding:\tchunked\r\n", 1, "bad_transfer_encoding", 501),
            (b"Content-Length: 5\r\nContent-Length: 5\r\n", 1, "bad_content_length", 400),
            (b"Content-Length: 5, 5\r\n", 1, "bad_content_length", 400),
            (b"Content-Length:\t5\r\n", 1, "bad_content_length", 400),
        ],
    )
    def test_ambiguous_framing_is_refused(self, section: bytes, minor_version: int, reason: str, status: int) -> None:
        """A request that two readers could take to end in different places is refused."""
        with pytest.raises(RequestError) as caught:
            framing.request_body(Fields(section), minor_version)
        assert (caught.value.reason, caught.value.status) == (reason, status)


class TestResponseBody:
    @pytest.mark.parametrize(
        ("method", "status", "section", "framed"),
        [
            (b"GET", 200, b"", (CLOSE, 0)),
            (b"GET", 200, b"Content-Length: 0\r\n", (NONE, 0)),
            (b"GET", 200, b"Content-Length: 7\r\n", (LENGTH, 7)),
            (b"GET", 200, TE, (CHUNKS, 0)),
            (b"HEAD", 200, b"", (NONE, 0)),
            (b"HEAD", 200, b"Content-Length: 7\r\n", (NONE, 0)),
            (b"HEAD", 200, TE, (NONE, 0)),
            (b"head", 200, b"Content-Length: 7\r\n", (LENGTH, 7)),
            (b"GET", 101, b"Content-Length: 7\r\n", (NONE, 0)),
            (b"GET", 204, b"Content-Length: 7\r\n", (NONE, 0)),
            (b"GET", 204, TE, (NONE, 0)),
            (b"GET", 205, b"", (CLOSE, 0)),
            (b"GET", 304, b"", (NONE, 0)),
            (b"GET", 304, b"Content-Length: 7\r\n", (NONE, 0)),
            (b"GET", 500, b"", (CLOSE, 0)),
        ],
    )
    def test_method_status_and_fields_decide(
        self, method: bytes, status: int, section: bytes, framed: tuple[BodyKind, int]
    ) -> None:
        """HEAD, 1xx, 204 and 304 have no body; else the fields decide, and without any the connection's end does."""
        assert framing.response_body(Fields(section), status, method, 1) == framed

    @pytest.mark.parametrize(("method", "status"), [(b"GET", 200), (b"HEAD", 200), (b"GET", 204), (b"GET", 304)])
    @pytest.mark.parametrize("section", [TE + b"Content-Length: 0\r\n", TE + TE, b"Content-Length: x\r\n"])
    def test_bad_framing_is_refused_also_where_there_is_no_body(
        self, method: bytes, status: int, section: bytes
    ) -> None:
        """Framing that would be ambiguous is refused even if nothing depends on it here: a cache would keep it."""
        with pytest.raises(ResponseError):
            framing.response_body(Fields(section), status, method, 1)


class TestLengthReader:
    def test_body_ends_at_its_length(self) -> None:
        """Not a byte more than the length is body; what follows is returned apart."""
        reader = LengthReader(5)
        assert reader.read(b"he") == (b"he", None)
        assert reader.read(b"lloGET") == (b"llo", b"GET")

    def test_body_that_just_ends_leaves_an_empty_rest(self) -> None:
        """A body that ends where the data does is complete."""
        assert LengthReader(5).read(b"hello") == (b"hello", b"")


class TestUntilCloseReader:
    def test_everything_is_body(self) -> None:
        """A body without framing never ends by itself."""
        assert UntilCloseReader().read(b"0\r\n\r\n") == (b"0\r\n\r\n", None)


def read_chunked(segments: list[bytes], error: type[ProtocolError]) -> tuple[tuple[bytes, bytes] | str, bytes]:
    """Read a chunked body: (payload, trailers) or the reason of the error, and what follows it."""
    reader = ChunkedReader(error)
    payload, rest = b"", None
    try:
        for segment in segments:
            if rest is None:
                piece, rest = reader.read(segment)
                payload += piece
            else:
                rest += segment
    except error as caught:
        return caught.reason, b""
    trailers = reader.trailers.section if reader.trailers is not None else b""
    return (payload, trailers), rest or b""


@pytest.mark.parametrize("error", [RequestError, ResponseError])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CHUNKED, ids=lambda case: case.id)
class TestChunkedReader:
    def test_case_is_read_the_same_however_it_arrives(
        self, case: ChunkedCase, way: str, error: type[ProtocolError]
    ) -> None:
        """A chunked body gives the same payload and trailers, or the same error of whose fault it is."""
        for behind in (b"", b"5\r\nmore!\r\n"):
            for segments in WAYS[way](case.data + behind):
                read, rest = read_chunked(segments, error)
                assert read == case.expected
                assert rest == (b"" if isinstance(read, str) else behind)


class TestChunkedReaderAlone:
    def test_no_bytes_change_nothing(self) -> None:
        """Reading nothing gives nothing, in every step."""
        reader = ChunkedReader(RequestError)
        for byte in b"1;a\r\nx\r\n0\r\nT: 1\r\n":
            assert reader.read(b"") == (b"", None)
            reader.read(bytes([byte]))

    def test_payload_is_not_held_back(self) -> None:
        """What has arrived of a chunk is handed on before the chunk is complete."""
        reader = ChunkedReader(RequestError)
        assert reader.read(b"5\r\nhe") == (b"he", None)

    def test_chunks_of_one_read_come_in_one_piece(self) -> None:
        """However many chunks arrive at once, their payload comes joined."""
        assert ChunkedReader(RequestError).read(b"1\r\na\r\n1\r\nb\r\n") == (b"ab", None)

    def test_unfinished_line_is_bounded(self) -> None:
        """A reader never holds more than one line or trailer section within its limit."""
        reader = ChunkedReader(RequestError)
        with pytest.raises(RequestError):
            reader.read(b"1;" + b"a" * 1_000_000)

    def test_many_whole_chunks_are_taken_without_a_look_at_each_part(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A sender of tiny chunks does not make us take a step for each line, byte and CRLF of them."""

        def step(self: ChunkedReader, data: bytes, position: int, payloads: list[bytes]) -> int:
            raise AssertionError("a whole chunk was taken apart")

        for name in ("_payload", "_after_payload"):
            monkeypatch.setattr(ChunkedReader, name, step)
        payload, rest = ChunkedReader(RequestError).read(b"1;x=y\r\na\r\n" * 10_000 + b"0\r\n\r\nrest")
        assert (payload, rest) == (b"a" * 10_000, b"rest")

    @pytest.mark.parametrize("before", [b"", b"1\r\na\r\n"], ids=["first", "behind a whole chunk"])
    @pytest.mark.parametrize(("size", "is_read"), [(MAX_CHUNK_LINE_BYTES, True), (MAX_CHUNK_LINE_BYTES + 1, False)])
    def test_line_of_a_whole_chunk_has_its_limit(self, before: bytes, size: int, is_read: bool) -> None:
        """A chunk-size line over the limit is refused also where all of its chunk has arrived."""
        data = before + b"1;" + b"x" * (size - 4) + b"\r\nb\r\n0\r\n\r\n"
        if is_read:
            assert ChunkedReader(RequestError).read(data)[0].endswith(b"b")
        else:
            with pytest.raises(RequestError) as caught:
                ChunkedReader(RequestError).read(data)
            assert caught.value.reason == "bad_chunk"


class TestAnnouncesBody:
    @pytest.mark.parametrize(
        ("section", "announced"),
        [
            (b"", False),
            (b"Content-Length: 0\r\n", False),
            (b"content-length:0  \r\n", False),
            (b"Content-Length: 1\r\n", True),
            (b"Content-Length: 00\r\n", True),
            (TE, True),
            (b"X-Content-Length: 5\r\nContent_Length: 5\r\n", False),
        ],
    )
    def test_any_framing_but_a_length_of_zero_does(self, section: bytes, announced: bool) -> None:
        """A response speaks of a body by either framing field, unless by a length of nothing but 0."""
        assert framing.announces_body(Fields(section)) is announced


class TestReaderFor:
    def test_each_kind_has_its_reader(self) -> None:
        """Every framing has a reader; no body has none."""
        assert framing.reader_for(NONE, 0, RequestError) is None
        assert isinstance(framing.reader_for(LENGTH, 1, RequestError), LengthReader)
        assert isinstance(framing.reader_for(CHUNKS, 0, RequestError), ChunkedReader)
        assert isinstance(framing.reader_for(CLOSE, 0, ResponseError), UntilCloseReader)


class TestWriting:
    def test_chunk_has_its_size_in_hexadecimal(self) -> None:
        """A chunk is its size in hexadecimal, its payload, and a CRLF after each."""
        assert framing.chunk(b"a" * 26) == b"1a\r\n" + b"a" * 26 + b"\r\n"

    def test_last_chunk_carries_the_trailers(self) -> None:
        """The last chunk is followed by the trailers, if any, and an empty line."""
        assert framing.last_chunk(b"") == b"0\r\n\r\n"
        assert framing.last_chunk(b"A: b\r\n") == b"0\r\nA: b\r\n\r\n"
