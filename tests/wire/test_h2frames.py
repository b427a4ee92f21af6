"""Frames as they lie in the bytes."""

from __future__ import annotations

import pytest

from sidecar.wire import h2frames
from sidecar.wire.h2frames import MAX_FRAME_BYTES, Code, ConnectionFault, FrameReader
from tests.support import frames
from tests.support.frames import PREFACE


def read(reader: FrameReader, data: bytes) -> list[h2frames.Frame]:
    return list(reader.frames(data))


class TestFrameReader:
    def test_bytes_in_any_pieces_make_the_same_frames(self) -> None:
        """Where the bytes are cut makes no difference."""
        data = PREFACE + frames.settings((1, 0)) + frames.ping() + frames.data(1, b"x" * 300) + frames.data(1)
        whole = read(FrameReader(), data)
        assert [found[0] for found in whole] == [frames.SETTINGS, frames.PING, frames.DATA, frames.DATA]
        for size in (1, 2, 7, 9, 10, 100):
            reader = FrameReader()
            pieces = [data[at : at + size] for at in range(0, len(data), size)]
            assert [found for piece in pieces for found in read(reader, piece)] == whole
            assert reader.is_between_frames

    @pytest.mark.parametrize("at", range(len(PREFACE)))
    def test_wrong_byte_in_preface_is_refused_when_it_comes(self, at: int) -> None:
        """Of what is no HTTP/2 not one byte is waited for."""
        reader = FrameReader()
        assert read(reader, PREFACE[:at]) == []
        with pytest.raises(ConnectionFault) as caught:
            read(reader, b"\x7f")
        assert (caught.value.reason, caught.value.code) == ("bad_preface", Code.PROTOCOL_ERROR)
        assert not reader.has_preface

    def test_request_of_http_1_is_refused(self) -> None:
        """Prior knowledge of the client's is checked, not believed."""
        with pytest.raises(ConnectionFault):
            read(FrameReader(), b"GET / HTTP/1.1\r\n")

    def test_server_sends_no_preface(self) -> None:
        """What comes from one begins with a frame, and the preface would be too long a frame."""
        reader = FrameReader(begins_with_preface=False)
        assert read(reader, frames.settings()[:5]) == []
        assert [found[0] for found in read(reader, frames.settings()[5:] + frames.ping())] == [
            frames.SETTINGS,
            frames.PING,
        ]
        with pytest.raises(ConnectionFault):
            read(reader, PREFACE)

    def test_longest_frame_is_read(self) -> None:
        """The limit itself is allowed."""
        reader = FrameReader()
        (found,) = read(reader, PREFACE + frames.data(1, b"x" * MAX_FRAME_BYTES))
        assert len(found[3]) == MAX_FRAME_BYTES

    def test_frame_over_the_limit_is_refused_by_its_head(self) -> None:
        """Nothing of the payload is waited for, and what came before counts."""
        reader = FrameReader()
        found = reader.frames(PREFACE + frames.ping() + frames.frame(0, 0, 1, b"", length=MAX_FRAME_BYTES + 1))
        assert next(found)[0] == frames.PING
        with pytest.raises(ConnectionFault) as caught:
            next(found)
        assert caught.value.code is Code.FRAME_SIZE_ERROR

    def test_reserved_bit_of_stream_is_ignored(self) -> None:
        """RFC 9113 section 4.1: the bit in front of the stream's number means nothing."""
        (found,) = read(FrameReader(), PREFACE + frames.frame(0, 0, 1 | 1 << 31, b"x"))
        assert found == (frames.DATA, 0, 1, b"x")

    def test_one_unfinished_frame_is_all_that_is_held(self) -> None:
        """What is kept between two calls is less than one frame, however much comes."""
        reader = FrameReader()
        data = frames.data(1, b"x" * MAX_FRAME_BYTES)
        assert len(read(reader, PREFACE + data * 5 + data[:-1])) == 5
        assert reader._have + 9 == len(data) - 1


class TestWriting:
    @pytest.mark.parametrize(
        ("made", "by_hand"),
        [
            (h2frames.rst_stream(3, 8), frames.rst_stream(3, 8)),
            (h2frames.window_update(0, 70_000), frames.window_update(0, 70_000)),
            (h2frames.goaway(2**31 - 1, 0), frames.goaway(2**31 - 1)),
            (h2frames.frame(0, 1, 5, b"x" * 16_384), frames.data(5, b"x" * 16_384, 1)),
        ],
        ids=["RST_STREAM", "WINDOW_UPDATE", "GOAWAY", "DATA"],
    )
    def test_frames_are_as_the_rfc_has_them(self, made: bytes, by_hand: bytes) -> None:
        """What is written is what another writer writes."""
        assert made == by_hand


class TestWithoutFrills:
    @pytest.mark.parametrize(
        ("flags", "payload", "content", "depends_on"),
        [
            (frames.PADDED, b"\x02abc\0\0", b"abc", -1),
            (frames.PADDED, b"\x00", b"", -1),
            (frames.PADDED, b"\x05\0\0\0\0\0", b"", -1),
            (frames.HAS_PRIORITY, b"\x80\0\0\x07\x10abc", b"abc", 7),
            (frames.PADDED | frames.HAS_PRIORITY, b"\x01\0\0\0\x07\x10abc\0", b"abc", 7),
        ],
        ids=["padding", "padding of nothing", "padding of all", "priority", "both"],
    )
    def test_what_is_around_content_is_taken_off(
        self, flags: int, payload: bytes, content: bytes, depends_on: int
    ) -> None:
        """Padding and priority are no part of the content."""
        rest, start, found = h2frames.without_frills(flags, payload)
        assert (rest[start:], found) == (content, depends_on)

    @pytest.mark.parametrize(
        ("flags", "payload", "code"),
        [
            (frames.PADDED, b"", Code.FRAME_SIZE_ERROR),
            (frames.HAS_PRIORITY, b"\0\0\0\x07", Code.FRAME_SIZE_ERROR),
            (frames.PADDED, b"\x04abc", Code.PROTOCOL_ERROR),
            (frames.PADDED | frames.HAS_PRIORITY, b"\x02\0\0\0\x07\x10\0", Code.PROTOCOL_ERROR),
        ],
        ids=["no length", "priority cut short", "more padding than payload", "padding over priority"],
    )
    def test_what_does_not_fit_is_refused(self, flags: int, payload: bytes, code: Code) -> None:
        """Padding that would reach beyond its frame is an error of the connection."""
        with pytest.raises(ConnectionFault) as caught:
            h2frames.without_frills(flags, payload)
        assert caught.value.code is code


class TestReadSettings:
    def test_settings_are_given_in_order_known_or_not(self) -> None:
        """What to make of them is for others to say."""
        assert h2frames.read_settings(frames.settings((4, 1), (0xFF, 2), (4, 3))[9:]) == [(4, 1), (0xFF, 2), (4, 3)]

    @pytest.mark.parametrize("pair", [(2, 1), (4, 2**31 - 1), (5, 16_384), (5, 2**24 - 1), (8, 1), (1, 2**32 - 1)])
    def test_limits_themselves_are_allowed(self, pair: tuple[int, int]) -> None:
        """Each is the last value that a setting may have."""
        assert h2frames.read_settings(frames.settings(pair)[9:]) == [pair]

    @pytest.mark.parametrize(
        ("pair", "code"),
        [
            ((2, 2), Code.PROTOCOL_ERROR),
            ((4, 2**31), Code.FLOW_CONTROL_ERROR),
            ((5, 16_383), Code.PROTOCOL_ERROR),
            ((5, 2**24), Code.PROTOCOL_ERROR),
            ((8, 2), Code.PROTOCOL_ERROR),
        ],
    )
    def test_value_beyond_is_refused(self, pair: tuple[int, int], code: Code) -> None:
        """RFC 9113 section 6.5.2 names the error of each."""
        with pytest.raises(ConnectionFault) as caught:
            h2frames.read_settings(frames.settings(pair)[9:])
        assert (caught.value.code, caught.value.reason) == (code, "bad_setting")
