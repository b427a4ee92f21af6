"""The quick profile of the fuzzer, and that it would find what it looks for."""

from __future__ import annotations

import random
import re
import shlex
from collections.abc import Callable, Iterator

import pytest

from sidecar.policy import rewrite
from sidecar.proxy import preface
from sidecar.wire import (
    events,
    framing,
    grammar,
    h2clientfields,
    h2fields,
    h2rules,
    h2streams,
    http1,
    http2,
    http2client,
    proxyproto,
)
from tests.fuzz.__main__ import main
from tests.fuzz.inputs import HEADER_SEEDS, REQUEST_SEEDS, RESPONSE_SEEDS, RequestInput, ResponseInput, segments
from tests.fuzz.judging import judge
from tests.fuzz.loop import SEEDS, Failure, Fuzzer
from tests.fuzz.mutation import MAX_DATA_BYTES, Mutator

SEED = 1
BRED = 3000


class TestQuickProfile:
    @pytest.mark.parametrize("role", SEEDS)
    def test_no_rule_is_broken(self, role: str) -> None:
        """Every rule of `judging` holds for the table's messages and for what is bred from them."""
        run = Fuzzer(SEEDS[role], SEED)
        while run.executions < len(run.seeds) + BRED:
            run.step()

        assert not run.failures, "\n".join(map(str, run.failures))
        assert len(run.corpus) > len(run.seeds) + 20, "it breeds nothing new"


def _any_length(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(grammar, "CONTENT_LENGTH", re.compile(rb"[+]?[0-9_]+"))


def _repeated_length(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(framing, "_content_length", lambda fields, error: int(fields.first(b"content-length")))


def _both_framings(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(framing, "_check_transfer_encoding", lambda fields, minor_version, error: None)


def _control_characters(patch: pytest.MonkeyPatch) -> None:
    for name in ("REQUEST_HEAD", "RESPONSE_HEAD", "FIELD_SECTION"):
        pattern = getattr(grammar, name).pattern.replace(grammar.FIELD_OCTET, rb"[\x00\t\x20-\xff]")
        patch.setattr(grammar, name, re.compile(pattern))


def _end_across_pieces(patch: pytest.MonkeyPatch) -> None:
    def add(self: http1._HeadBuffer, data: bytes) -> int:
        self.data += data
        end = self.data.find(b"\r\n\r\n", self.searched)
        self.searched = len(self.data)
        return end + 4 if end >= 0 else -1

    patch.setattr(http1._HeadBuffer, "add", add)


def _chunk_ends_anyhow(patch: pytest.MonkeyPatch) -> None:
    def after_payload(self: framing.ChunkedReader, data: bytes, position: int, payloads: list[bytes]) -> int:
        self._step = framing.ChunkedReader._size
        return position + 2

    patch.setattr(framing.ChunkedReader, "_after_payload", after_payload)


def _length_off_by_one(patch: pytest.MonkeyPatch) -> None:
    read = framing.LengthReader.read

    def too_far(self: framing.LengthReader, data: bytes) -> tuple[bytes, bytes | None]:
        payload, rest = read(self, data)
        return payload + (rest or b"")[:1], rest

    patch.setattr(framing.LengthReader, "read", too_far)


def _chunk_too_long(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(framing, "chunk", lambda payload: b"%x\r\n%b\r\n" % (len(payload) + 1, payload))


def _bytes_behind_are_forgiven(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(http1.ClientCodec, "_not_reusable", lambda self: None)


def _trailers_without_limit(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(framing, "MAX_TRAILER_BYTES", 1 << 30)


def _hop_by_hop_framing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rewrite, "_NEVER_NOMINATED", frozenset[bytes]())


def _lines_end_in_lf(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(proxyproto, "_UNKNOWN_LINE", re.compile(rb"PROXY UNKNOWN(?: [^\n]*+)?\n"))


def _ports_of_any_size(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(proxyproto, "_PORT_TEXT", re.compile(rb"[0-9]{1,5}"))


def _ipv6_of_any_kind(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(proxyproto, "_IPV6_TEXT", re.compile(rb"[^ ]+"))


def _checksum_is_not_looked_at(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(proxyproto, "_check_checksum", lambda header, start, end: None)


def _datagrams(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(proxyproto, "_DATAGRAMS", frozenset[int]())
    patch.setattr(proxyproto, "_ADDRESS_BYTES", proxyproto._ADDRESS_BYTES | {0x12: 12})


def _tlvs_without_end(patch: pytest.MonkeyPatch) -> None:
    def split(data: bytes, at: int, once: frozenset[int]) -> Iterator[tuple[int, int, int]]:
        while at < len(data):
            end = at + 3 + int.from_bytes(data[at + 1 : at + 3], "big")
            yield data[at], at + 3, end
            at = end

    patch.setattr(proxyproto, "_split", split)


def _verdict_too_soon(patch: pytest.MonkeyPatch) -> None:
    def parse(data: bytes) -> proxyproto.Parsed | proxyproto.Unparsed:
        return proxyproto.parse(data) if len(data) > 5 else proxyproto.Unparsed.ABSENT

    patch.setattr(preface, "parse", parse)


def _untrusted_in_pieces(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(preface, "begins", lambda data: bool(proxyproto.begins(data)))


def _any_value(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(h2fields, "check_field", lambda name, value: None)


def _any_method(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(h2fields, "_METHOD", re.compile(rb".+", re.DOTALL))


def _fields_of_connections(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(h2fields, "_SPECIAL", h2fields._SPECIAL - h2rules.CONNECTION_SPECIFIC)


def _lengths_are_not_summed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(http2.ServerConnection, "_check_missing", lambda self, stream, size, ends_stream: None)


def _credit_at_once(patch: pytest.MonkeyPatch) -> None:
    content = http2.ServerConnection._content

    def too_soon(
        self: http2.ServerConnection, stream_id: int, stream: h2streams.Stream, payload: bytes, size: int
    ) -> None:
        content(self, stream_id, stream, payload, size)
        self._give_back(stream_id, stream, len(payload))

    patch.setattr(http2.ServerConnection, "_content", too_soon)


def _any_value_of_an_app(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(h2clientfields, "check_field", lambda name, value: None)


def _fields_of_the_apps_connection(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(h2clientfields, "CONNECTION_SPECIFIC", frozenset[bytes]())


def _lengths_of_an_app_are_not_summed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(http2client.ClientConnection, "_check_missing", lambda self, stream, size, ends_stream: None)


def _heads_whatever_the_method(patch: pytest.MonkeyPatch) -> None:
    def response(
        self: h2clientfields.ResponseReader, block: bytes, is_whole: bool, method: bytes
    ) -> events.ResponseHead | events.InterimHead:
        return h2clientfields.response_head(self._decode(block), is_whole, b"GET", self._limits)

    patch.setattr(h2clientfields.ResponseReader, "response", response)


def _end_is_not_the_end(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        http2client.ClientConnection,
        "_tell",
        lambda self, stream_id, stream, reset: self._events.append((stream_id, reset)),
    )


def _promises_are_believed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(http2client, "_is_untouched", lambda stream: True)


BUGS: dict[str, tuple[str, Callable[[pytest.MonkeyPatch], None]]] = {
    "a length may have a sign": ("requests", _any_length),
    "a length may stand twice": ("requests", _repeated_length),
    "both framings may stand": ("requests", _both_framings),
    "control characters may stand in a value": ("requests", _control_characters),
    "the end of a head is missed between pieces": ("requests", _end_across_pieces),
    "a chunk may end in anything": ("requests", _chunk_ends_anyhow),
    "a body is one byte too long": ("requests", _length_off_by_one),
    "a chunk is written with a wrong size": ("requests", _chunk_too_long),
    "trailers have no limit": ("requests", _trailers_without_limit),
    "framing fields may be nominated": ("requests", _hop_by_hop_framing),
    "both framings may stand in a response": ("responses", _both_framings),
    "control characters may stand in a response": ("responses", _control_characters),
    "bytes behind a response are forgiven": ("responses", _bytes_behind_are_forgiven),
    "a response body is one byte too long": ("responses", _length_off_by_one),
    "a PROXY line may end in LF alone": ("headers", _lines_end_in_lf),
    "a port may have zeros and be too great": ("headers", _ports_of_any_size),
    "IPv6 may be whatever Python takes": ("headers", _ipv6_of_any_kind),
    "a checksum may be wrong": ("headers", _checksum_is_not_looked_at),
    "datagrams are taken": ("headers", _datagrams),
    "a TLV may be cut short": ("headers", _tlvs_without_end),
    "a header in pieces is none": ("headers", _verdict_too_soon),
    "an untrusted header in pieces slips through": ("headers", _untrusted_in_pieces),
    "a value may hold a line": ("frames", _any_value),
    "a method may be anything": ("frames", _any_method),
    "fields of a connection are passed on": ("frames", _fields_of_connections),
    "Content-Length is not summed up": ("frames", _lengths_are_not_summed),
    "credit is given for what is still held": ("frames", _credit_at_once),
    "a value of an app may hold a line": ("app frames", _any_value_of_an_app),
    "fields of an app's connection are passed on": ("app frames", _fields_of_the_apps_connection),
    "Content-Length of an app is not summed up": ("app frames", _lengths_of_an_app_are_not_summed),
    "an answer to HEAD is read as one to GET": ("app frames", _heads_whatever_the_method),
    "a stream goes on behind its end": ("app frames", _end_is_not_the_end),
    "a request that was answered may be sent again": ("app frames", _promises_are_believed),
}


class TestPlantedBugs:
    @pytest.mark.parametrize(("role", "plant"), BUGS.values(), ids=BUGS.keys())
    def test_planted_bug_is_found(
        self, monkeypatch: pytest.MonkeyPatch, role: str, plant: Callable[[pytest.MonkeyPatch], None]
    ) -> None:
        """A bug of a kind that would let requests be smuggled is found within the quick profile, for the same seed."""
        plant(monkeypatch)
        run = Fuzzer(SEEDS[role], SEED)
        while not run.failures and run.executions < len(run.seeds) + BRED:
            run.step()

        assert run.failures


class TestMutator:
    def test_same_seed_gives_the_same_inputs(self) -> None:
        """A run can be had again from its seed."""

        def breed() -> list[RequestInput]:
            mutator = Mutator(random.Random(5))
            return [mutator.child(mutator.choose(RESPONSE_SEEDS), RESPONSE_SEEDS) for _ in range(200)]

        assert breed() == breed()

    def test_children_are_bounded(self) -> None:
        """However often an input is changed, it stays short enough to be judged in a moment."""
        mutator, child = Mutator(random.Random(2)), REQUEST_SEEDS[0]
        for _ in range(2000):
            child = mutator.child(child, REQUEST_SEEDS)
            assert len(child.data) <= MAX_DATA_BYTES


class TestSegments:
    @pytest.mark.parametrize(
        ("cuts", "expected"),
        [
            pytest.param((), [b"abcd"], id="whole"),
            pytest.param((1, 3), [b"a", b"bc", b"d"], id="two cuts"),
            pytest.param((3, 1, 3, 0, 4, 9), [b"a", b"bc", b"d"], id="cuts out of order, repeated and outside"),
        ],
    )
    def test_cuts_divide_the_data(self, cuts: tuple[int, ...], expected: list[bytes]) -> None:
        """The pieces are the data in order, and none is empty."""
        assert segments(b"abcd", cuts) == expected


class TestFailure:
    @pytest.mark.parametrize(
        "one",
        [
            ResponseInput(data=b"HTTP/1.1 200 OK\r\n\r\n'\"\0", cuts=(2, 5), method=b"HEAD"),
            HEADER_SEEDS[0],
        ],
        ids=["a response", "a header"],
    )
    def test_report_has_the_seed_and_an_input_to_judge_again(
        self, capsys: pytest.CaptureFixture[str], one: RequestInput
    ) -> None:
        """Whoever reads a failure can see it again with the one line that it ends with."""
        text = str(Failure(one, "what", 7, 1234))
        assert "seed 7, execution 1,234" in text
        command = shlex.split(text.rpartition("python -m tests.fuzz ")[2])

        assert main(command) == 0
        assert capsys.readouterr().out == f"{judge(one)}\n"


class TestCommand:
    def test_clean_run_reports_its_figures(self, capsys: pytest.CaptureFixture[str]) -> None:
        """A run without failures exits with 0 and says what it did."""
        assert main(["--seconds", "0.2", "--seed", "3"]) == 0
        printed = capsys.readouterr().out
        for role in SEEDS:
            assert re.search(role + r": [\d,]+ executions, corpus [\d,]+, .* 0 failures\n", printed)

    def test_run_that_fails_says_so(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        """A run with failures prints each once and exits with 1."""
        _chunk_too_long(monkeypatch)

        assert main(["--seconds", "0.2", "--seed", "3"]) == 1
        assert re.search(r"--judge '(Request|Response)Input\(data=", capsys.readouterr().out)
