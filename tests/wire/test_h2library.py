"""The `h2` library as we use it."""

from __future__ import annotations

import pytest

from sidecar.wire import h2frames
from sidecar.wire.h2frames import Code, ConnectionFault
from sidecar.wire.h2library import Library
from sidecar.wire.h2limits import LEAST_WINDOW, Http2Limits
from tests.support import frames
from tests.support.frames import DATA, END_HEADERS, END_STREAM, HEADERS, SETTINGS, WHOLE, WINDOW_UPDATE, Frame


def opened(limits: Http2Limits | None = None) -> Library:
    """A connection with one request that has arrived whole, and of which nothing was sent."""
    library = Library(limits or Http2Limits())
    library.data_to_send()
    assert library.take(HEADERS, WHOLE, 1)
    return library


class TestLibrary:
    def test_least_window_needs_no_update(self) -> None:
        """A client knows the window that every connection begins with."""
        library = Library(Http2Limits(connection_window=LEAST_WINDOW))
        assert [found.kind for found in frames.parse(library.data_to_send())] == [SETTINGS]

    def test_client_begins_with_the_preface(self) -> None:
        """Then come its SETTINGS, which allow no push and say nothing that is for servers to say."""
        library = Library(Http2Limits(connection_window=LEAST_WINDOW), is_client=True)
        (first,) = frames.parse(library.data_to_send().removeprefix(frames.PREFACE))
        pairs = dict(h2frames.read_settings(first.payload))
        assert pairs[frames.ENABLE_PUSH] == 0
        assert frames.MAX_CONCURRENT_STREAMS not in pairs

    def test_response_without_fields_is_one(self) -> None:
        """What it sends is a request and its end; what it takes is a response."""
        library = Library(Http2Limits(), is_client=True)
        library.data_to_send()
        library.send_block(1, b"\x82", is_interim=False, end=True)
        assert frames.parse(library.data_to_send()) == [Frame(HEADERS, WHOLE, 1, b"\x82")]
        assert library.take(HEADERS, END_HEADERS, 1)
        assert library.take(DATA, END_STREAM, 1, b"x")
        assert library.open_outbound_streams == 0

    def test_request_without_fields_is_one(self) -> None:
        """What it is not given it cannot refuse."""
        library = opened()
        library.send_block(1, b"\x88", is_interim=False, end=True)
        assert frames.parse(library.data_to_send()) == [Frame(HEADERS, WHOLE, 1, b"\x88")]

    def test_blocks_are_sent_as_they_are(self) -> None:
        """It compresses nothing; an interim head is followed by another, trailers by nothing."""
        library = opened()
        library.send_block(1, b"\x08\x03103", is_interim=True, end=False)
        library.send_block(1, b"\x88", is_interim=False, end=False)
        library.send_block(1, b"\x00\x01a\x01b", is_interim=False, end=True)
        sent = frames.parse(library.data_to_send())
        assert [found.payload for found in sent] == [b"\x08\x03103", b"\x88", b"\x00\x01a\x01b"]
        assert [found.flags for found in sent] == [END_HEADERS, END_HEADERS, WHOLE]

    @pytest.mark.parametrize(
        ("size", "end", "sizes"),
        [
            (0, False, []),
            (0, True, [0]),
            (16_384, False, [16_384]),
            (16_384, True, [16_384]),
            (16_385, True, [16_384, 1]),
            (49_152, False, [16_384] * 3),
        ],
    )
    def test_body_is_cut_into_frames(self, size: int, end: bool, sizes: list[int]) -> None:
        """The end is on the last frame, and there is no empty one but for it."""
        library = opened()
        library.send_block(1, b"\x88", is_interim=False, end=False)
        library.data_to_send()
        assert library.send_body(1, b"x" * size, end=end) == len(sizes)
        sent = frames.parse(library.data_to_send())
        assert [(found.kind, len(found.payload)) for found in sent] == [(DATA, one) for one in sizes]
        assert [found.flags for found in sent] == [0] * (len(sizes) - 1) + [END_STREAM if end else 0] * bool(sizes)

    def test_window_of_a_stream_that_grows_too_large_ends_the_stream(self) -> None:
        """RFC 9113 section 6.9.1: of the two windows only the connection's is an error of the connection."""
        library = opened()
        assert not library.take(WINDOW_UPDATE, 0, 1, (2**31 - 1).to_bytes(4, "big"))
        with pytest.raises(ConnectionFault) as caught:
            library.take(WINDOW_UPDATE, 0, 0, (2**31 - 1).to_bytes(4, "big"))
        assert (caught.value.code, caught.value.reason) == (Code.FLOW_CONTROL_ERROR, "window_overflow")

    def test_window_that_is_exceeded_ends_the_connection(self) -> None:
        """What a client may not send it does not send by accident."""
        library = Library(Http2Limits())
        library.take(HEADERS, END_HEADERS, 1)
        for _ in range(4):
            assert library.take(DATA, 0, 1, bytes(16_384))
        with pytest.raises(ConnectionFault) as caught:
            library.take(DATA, 0, 1, b"x")
        assert (caught.value.code, caught.value.reason) == (Code.FLOW_CONTROL_ERROR, "window_exceeded")

    def test_reset_by_the_client_is_no_fault_of_a_window(self) -> None:
        """A stream that the client ends goes the way it said."""
        assert opened().take(frames.RST_STREAM, 0, 1, bytes(4))
