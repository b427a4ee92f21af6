"""Header blocks to fields and back."""

from __future__ import annotations

import pytest
from hpack import Decoder, Encoder, HPACKError
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.wire.h2frames import Code, ConnectionFault
from sidecar.wire.h2hpack import MAX_REMEMBERED_STRINGS, MAX_SIZE_UPDATES, BlockDecoder, FieldEncoder
from sidecar.wire.h2limits import Http2Limits
from tests.support.frames import Field, block, decoded, integer, literal

LIMITS = Http2Limits(header_list_bytes=1024, fields=10)

MANY = block([(b"n", b"x" * 100)] * 2)
"""Fields that are good, before something that is not."""


def refused(data: bytes, decoder: BlockDecoder | None = None) -> ConnectionFault:
    with pytest.raises(ConnectionFault) as caught:
        (decoder or BlockDecoder(LIMITS)).decode(data)
    return caught.value


class TestBlockDecoder:
    BROKEN = (
        (b"\x80", "index 0"),
        (b"\xbe", "index of an entry that is not there"),
        (b"\xff\x80\x80\x80\x80\x80\x80\x00", "integer too long"),
        (b"\xff", "integer cut short"),
        (b"\x00", "no name"),
        (b"\x00\x01", "name cut short"),
        (b"\x00\x01a", "no value"),
        (b"\x00\x01a\x05b", "value cut short"),
        (b"\x00\x01a\x7f\xff\xff\xff\xff\x07b", "value of two gigabytes"),
        (b"\x00\x01a\x81\xfe", "Huffman padding that is not ones"),
        (b"\x00\x01a\x82\x1f\xff", "Huffman padding of more than seven bits"),
        (b"\x00\x01a\x84\xff\xff\xff\xff", "Huffman end of string"),
        (b"\x3f\xe2\x1f", "table larger than allowed"),
        (b"\x82\x20", "size update behind a field"),
    )

    @pytest.mark.parametrize("data", [data for data, _ in BROKEN], ids=[name for _, name in BROKEN])
    @pytest.mark.parametrize("before", [b"", MANY], ids=["alone", "behind much"])
    def test_broken_block_is_an_error_of_compression(self, data: bytes, before: bytes) -> None:
        """RFC 7541: whatever cannot be decoded ends the connection, as nothing behind it can be either."""
        if before and data.startswith(b"\x3f"):
            before = b""  # it may stand at the beginning only
        fault = refused(before + data)
        assert (fault.code, fault.reason) == (Code.COMPRESSION_ERROR, "bad_header_block")

    def test_list_that_expands_over_the_hard_limit_is_not_expanded(self) -> None:
        """A bomb: one long entry in the table, named over and over by one byte each."""
        decoder = BlockDecoder(Http2Limits())
        decoder.decode(literal(b"n", b"x" * 4000, 0x40))
        fault = refused(b"\xbe" * 100, decoder)
        assert (fault.code, fault.reason) == (Code.ENHANCE_YOUR_CALM, "header_bomb")

    def test_list_up_to_the_hard_limit_is_read(self) -> None:
        """Between the two limits a list is read, so that its request can be answered."""
        fields = [(b"n", b"x" * 980)] * 2  # with the overhead, 2,026 bytes of 2,048
        assert BlockDecoder(LIMITS).decode(block(fields)) == fields
        assert refused(block([(b"n", b"x" * 1000)] * 2)).reason == "header_bomb"

    @pytest.mark.parametrize(
        "one", [b"\x82", literal(b"a", b""), literal(b"a", b"", 0x40), b"\x04\x00"], ids=lambda one: one.hex()
    )
    def test_fields_over_the_hard_limit_are_not_decoded(self, one: bytes) -> None:
        """A long block of many short fields is refused by their number, before the decoder has seen it."""
        decoder = BlockDecoder(Http2Limits(fields=40))
        assert refused(one * 161, decoder).reason == "header_bomb"
        assert decoder.changes == 0

    def test_two_size_updates_are_read_and_more_refused(self) -> None:
        """RFC 7541 section 4.2: more than the smallest and the last size has nothing to say."""
        updates = b"\x20\x3f\xe1\x1f"  # 0, then 4,096
        assert len(BlockDecoder(LIMITS).decode(updates + MANY)) == 2
        fault = refused(updates + b"\x20" + MANY)
        assert (fault.code, fault.reason) == (Code.ENHANCE_YOUR_CALM, "table_size_flood")

    def test_changes_of_the_table_are_counted(self) -> None:
        """A block is remembered only if equal bytes would mean the same again."""
        decoder = BlockDecoder(LIMITS)
        for data, changes in (
            (b"\x82\x84", 0),
            (literal(b"a", b"1"), 0),
            (literal(b"a", b"1", 0x40), 1),
            (b"\xbe", 1),
            (literal(b"a", b"1", 0x40), 2),  # the same entry once more moves the first
            (literal(b"b", b"2", 0x10), 2),
            (b"\x20", 3),
            (b"\x20", 4),  # it is empty already, which nobody looks at
            (b"\x3f\xe1\x1f", 5),
        ):
            decoder.decode(data)
            assert decoder.changes == changes, data

    def test_equal_entry_in_a_full_table_is_a_change(self) -> None:
        """One comes and one goes: as many entries, and the first is equal, yet all indices have moved."""
        decoder = BlockDecoder(Http2Limits())
        for count in range(1, 6):
            decoder.decode(literal(b"n", b"x" * 2000, 0x40))
            assert decoder.changes == count


def write(encoder: FieldEncoder, fields: list[Field], status: int = 200) -> bytes:
    return encoder.status(status) + encoder.fields(fields)


class TestLikeTheLibrary:
    """`hpack` reads the same, whoever has written it."""

    WIDE = Http2Limits()

    FIELDS = st.lists(
        st.tuples(
            st.sampled_from([b":path", b"cookie", b"x-a", b"x-long-name-of-a-field", b"te"]),
            st.sampled_from([b"", b"/", b"1", b"trailers", b"v" * 90]) | st.binary(max_size=80),
        ),
        max_size=12,
    )

    @settings(deadline=None)
    @given(st.lists(st.tuples(FIELDS, st.booleans(), st.sampled_from([None, 0, 100, 4096])), max_size=8))
    def test_blocks_of_the_library(self, blocks: list[tuple[list[Field], bool, int | None]]) -> None:
        """With and without Huffman codes, and with tables that shrink and grow."""
        encoder, ours = Encoder(), BlockDecoder(self.WIDE)
        for fields, huffman, size in blocks:
            if size is not None:
                encoder.header_table_size = size
            assert ours.decode(encoder.encode(fields, huffman=huffman)) == fields

    @settings(max_examples=300, deadline=None)
    @given(st.lists(st.binary(max_size=12) | st.sampled_from([b"\x82", b"\x40\x01a\x01b", b"\xbe", b"\x3f\xe1\x1f"])))
    def test_any_bytes(self, pieces: list[bytes]) -> None:
        """What one takes for a broken block, so does the other."""
        library, ours = Decoder(2**20), BlockDecoder(self.WIDE)
        for piece in pieces:
            try:
                expected = [tuple(field) for field in library.decode(piece, raw=True)]
            except (HPACKError, IndexError):
                with pytest.raises(ConnectionFault):
                    ours.decode(piece)
                return
            if sum(octet & 0xE0 == 0x20 for octet in piece) > MAX_SIZE_UPDATES:
                return  # of which the library takes any number
            assert ours.decode(piece) == expected

    def test_strings_that_are_remembered_are_few_and_short(self) -> None:
        """A peer that sends another string each time, or long ones, makes us keep no more."""
        encoder, ours = Encoder(), BlockDecoder(self.WIDE)
        for n in range(100):
            ours.decode(encoder.encode([(b"x-%d" % n, b"value %d" % n), (b"long", b"%d" % n * 90)]))
        assert len(ours._strings) == MAX_REMEMBERED_STRINGS
        assert sum(map(len, ours._strings)) < 2048


class TestFieldEncoder:
    PLAIN: tuple[Field, ...] = ((b"content-type", b"text/html"), (b"x-app", b"1"))

    def test_line_that_comes_again_is_an_index_the_third_time(self) -> None:
        """The first time nobody knows that it will, the second time it enters the table."""
        encoder, decoder = FieldEncoder(), Decoder()
        blocks = [write(encoder, list(self.PLAIN)) for _ in range(3)]
        assert [decoded(decoder, made)[1:] for made in blocks] == [list(self.PLAIN)] * 3
        assert blocks[2] == b"\x88\xbf\xbe"

    @pytest.mark.parametrize("name", [b"set-cookie", b"www-authenticate"])
    def test_secret_is_never_indexed(self, name: bytes) -> None:
        """Nobody can find out what a cookie is by the size of what holds it (RFC 7541 section 7.1.3)."""
        encoder, decoder = FieldEncoder(), Decoder()
        for _ in range(3):
            made = write(encoder, [(name, b"secret")])
            assert made[1] & 0xF0 == 0x10
            assert decoded(decoder, made)[1:] == [(name, b"secret")]

    def test_what_differs_each_time_never_enters_the_table(self) -> None:
        """Neither dates and lengths nor values that come once push out anything."""
        encoder = FieldEncoder()
        for count in range(300):
            write(encoder, [(b"date", b"now"), (b"content-length", b"5"), (b"x-id", b"%d" % count)])
        assert not encoder._entries

    def test_full_table_is_left_as_it_is(self) -> None:
        """Entries are never evicted: what does not fit goes as it is, and all can be read for ever."""
        encoder, decoder = FieldEncoder(), Decoder()
        for _ in range(4):
            for count in range(100):
                fields = [(b"x-%d" % count, b"v" * 50)]
                assert decoded(decoder, write(encoder, fields))[1:] == fields
        assert 30 < len(encoder._entries) < 100
        assert encoder._left >= 0

    @pytest.mark.parametrize("size", [0, 10, 100, 4096, 2**32 - 1])
    def test_client_sets_the_size_of_its_table(self, size: int) -> None:
        """A smaller table is heeded and told; of a larger one no more than 4,096 bytes are used."""
        encoder, decoder = FieldEncoder(), Decoder()
        for _ in range(3):
            decoded(decoder, write(encoder, list(self.PLAIN)))
        encoder.set_table_bytes(size)
        decoder.max_allowed_table_size = size
        for _ in range(4):
            assert decoded(decoder, write(encoder, list(self.PLAIN)))[1:] == list(self.PLAIN)
        assert decoder.header_table_size == min(size, 4096)

    @pytest.mark.parametrize("status", [100, 103, 200, 204, 304, 404, 418, 500, 599])
    def test_status_is_read_as_it_was(self, status: int) -> None:
        """The common ones are a byte, the others as good."""
        assert decoded(Decoder(), FieldEncoder().status(status)) == [(b":status", b"%d" % status)]

    @pytest.mark.parametrize(
        ("method", "authority", "path", "size"),
        [
            (b"GET", b"", b"/", 3),
            (b"POST", b"a.example", b"/", 3 + 2 + 9),
            (b"DELETE", b"a", b"/x", 2 + 6 + 1 + 3 + 4),
            (b"GET", b"", b"/x?y=z", 2 + 2 + 6),
        ],
        ids=["least", "authority", "other", "query"],
    )
    def test_request_begins_with_its_pseudo_fields(
        self, method: bytes, authority: bytes, path: bytes, size: int
    ) -> None:
        """What the static table has is a byte; there is no empty :authority."""
        made = FieldEncoder().request(method, authority, path)
        expected = [(b":method", method), (b":scheme", b"http"), (b":authority", authority), (b":path", path)]
        assert decoded(Decoder(), made) == [field for field in expected if field[1]]
        assert len(made) == size

    def test_pseudo_fields_that_come_again_are_indices(self) -> None:
        """As those of a gRPC client do; but a query never enters the table, and another size of it is told first."""
        encoder, decoder = FieldEncoder(), Decoder()
        for path, size in ((b"/p.S/Call", 4), (b"/p.S/Call?x", 3 + 2 + 11)):
            for _ in range(4):
                made = encoder.request(b"POST", b"a.example", path)
                assert (b":path", path) in decoded(decoder, made)
            assert len(made) == size
        encoder.set_table_bytes(0)
        decoder.max_allowed_table_size = 0
        assert (b":authority", b"a.example") in decoded(decoder, encoder.request(b"GET", b"a.example", b"/"))

    @given(
        st.lists(
            st.one_of(
                st.integers(0, 5000),
                st.lists(
                    st.tuples(
                        st.sampled_from([b"a", b"set-cookie", b"content-type", b"date", b"x-long"]),
                        st.sampled_from([b"", b"1", b"text/html", b"v" * 126, b"v" * 127, b"w" * 200, b"w" * 5000]),
                    ),
                    max_size=8,
                ),
            ),
            max_size=30,
        )
    )
    @settings(max_examples=100, deadline=None)
    def test_any_sequence_is_read_as_it_was_written(self, steps: list[int | list[Field]]) -> None:
        """Whatever is sent and however the table is resized meanwhile, a client reads what was meant."""
        encoder, decoder = FieldEncoder(), Decoder()
        for step in steps:
            if isinstance(step, int):
                encoder.set_table_bytes(step)
                decoder.max_allowed_table_size = step
            else:
                made = write(encoder, step)
                assert decoded(decoder, made) == [(b":status", b"200"), *step]


class TestInteger:
    @pytest.mark.parametrize("value", [0, 126, 127, 128, 254, 255, 16_383, 16_384, 100_000])
    def test_length_of_any_size_is_written(self, value: int) -> None:
        """Lengths around the edges of their octets are as the RFC has them."""
        made = FieldEncoder().fields([(b"n", b"x" * value)])
        assert made == b"\x00\x01n" + integer(value, 7) + b"x" * value
