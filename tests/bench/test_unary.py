"""Rules of `bench.unary`: what a call is, and which answers to it are whole."""

from __future__ import annotations

import pytest

from bench.errors import StartError
from bench.unary import ANSWER, check_call, framed

OUTPUT = """\
[  0.002] Connected
The negotiated protocol: h2
[  0.002] send HEADERS frame <length=84, flags=0x04, stream_id=1>
          te: trailers
[  0.003] recv (stream_id=1) :status: 200
[  0.003] recv (stream_id=1) content-type: application/grpc
[  0.003] recv HEADERS frame <length=53, flags=0x04, stream_id=1>
[  0.003] recv DATA frame <length=25, flags=0x00, stream_id=1>
[  0.003] recv (stream_id=1) grpc-status: 0
[  0.003] recv HEADERS frame <length=12, flags=0x05, stream_id=1>
"""
STATUS = "[  0.003] recv (stream_id=1) grpc-status: 0\n"
DATA = "[  0.003] recv DATA frame <length=25, flags=0x00, stream_id=1>\n"


class TestFramed:
    """`framed` puts gRPC's prefix before a message."""

    def test_prefix_says_how_long_the_message_is(self) -> None:
        """One byte says that it is not compressed; four have the length, most significant first."""
        encoded = ANSWER.encode()
        assert encoded[0] == 0
        assert int.from_bytes(encoded[1:5], "big") == len(encoded) - 5

    def test_message_has_one_string(self) -> None:
        """Field 1, its length, its text."""
        assert framed("hello").encode()[5:] == b"\x0a\x05hello"


class TestCheckCall:
    """`check_call` accepts nothing but a whole answer over HTTP/2."""

    @pytest.mark.parametrize(
        "output",
        [OUTPUT, OUTPUT.replace(DATA, DATA.replace("=25", "=5") + DATA.replace("=25", "=20"))],
        ids=["in-one-frame", "in-two"],
    )
    def test_whole_answer_passes(self, output: str) -> None:
        """A proxy may cut the message as it likes."""
        check_call("envoy", output)

    @pytest.mark.parametrize(
        ("output", "what"),
        [
            (OUTPUT.replace("protocol: h2", "protocol: http/1.1"), "protocol"),
            (OUTPUT.replace(":status: 200", ":status: 502"), "status"),
            (OUTPUT.replace("application/grpc", "text/plain"), "content type"),
            (OUTPUT.replace("<length=25", "<length=24"), "length"),
            (OUTPUT.replace(STATUS, ""), "grpc-status"),
            (OUTPUT.replace("grpc-status: 0", "grpc-status: 14"), "grpc-status"),
            (OUTPUT.replace(STATUS, "").replace(DATA, STATUS + DATA), "grpc-status"),
            (OUTPUT.replace(DATA, ""), "length"),
            ("", "protocol"),
        ],
        ids=["http/1.1", "502", "type", "cut", "no-trailers", "failed", "status-in-the-head", "no-message", "nothing"],
    )
    def test_any_other_answer_fails(self, output: str, what: str) -> None:
        """A proxy that drops the trailers does less work than one that passes them on."""
        assert output != OUTPUT
        with pytest.raises(StartError, match=f"nginx does not pass on a gRPC call: {what}"):
            check_call("nginx", output)
