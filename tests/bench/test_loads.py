"""Rules of `bench.loads`: what makes the load of one row different from that of another."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.app import TRANSFER_BYTES
from bench.h2load import CONNECTIONS, STREAMS
from bench.loads import small_load, unary_load, upload_load, varied_loads


class TestVariedLoads:
    """`varied_loads` leaves nothing to be remembered from one request to the next."""

    @pytest.mark.parametrize("requests", [6_000, 1_005], ids=["even", "not-divisible"])
    def test_no_two_requests_are_alike(self, requests: int) -> None:
        """Neither on one connection nor on two, and each list is long enough for its load."""
        loads = varied_loads(requests)
        paths = [path for load in loads for path in load.paths]
        assert len(paths) == len(set(paths)) == requests
        assert [len(load.paths) for load in loads] == [load.requests for load in loads]

    def test_concurrency_is_that_of_the_row_beside_it(self) -> None:
        """As many streams on as many connections are open as with one h2load."""
        loads, alike = varied_loads(1_000), small_load(1_000)
        assert sum(load.connections for load in loads) == alike.connections == CONNECTIONS
        assert {load.streams for load in loads} == {alike.streams} == {STREAMS}


class TestUploadLoad:
    """`upload_load` knows what the app answers when it has read everything."""

    @pytest.mark.parametrize(
        ("read_bytes", "is_right"),
        [(TRANSFER_BYTES + 150, True), (TRANSFER_BYTES - 1, False)],
        ids=["file-and-head", "short-by-a-byte"],
    )
    def test_length_of_the_answer_tells_a_whole_upload(self, read_bytes: int, is_right: bool) -> None:
        """h2load sees the length of an answer only, so that must be enough."""
        answer = f"{read_bytes}\n"
        assert (len(answer) == upload_load(1, Path("file")).answer_bytes) is is_right


class TestUnaryLoad:
    """`unary_load` makes calls that a gRPC server takes for such."""

    def test_call_is_a_post_with_the_fields_of_grpc(self) -> None:
        """Without them a proxy may forward what it would forward of anything, which is less work."""
        load = unary_load(1, Path("call"))
        assert load.body_path == Path("call")
        assert {"content-type: application/grpc", "te: trailers"} == set(load.fields)
