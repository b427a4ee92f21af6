"""Ensures that bodies of any size pass in both directions, whoever is slow, in memory that does not grow with them."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.scenarios.clients import HttpsClient, in_parallel
from tests.scenarios.conftest import Launch
from tests.support.apps import App, Pace, pattern, pattern_sha256
from tests.support.program import Program

MIB = 1024 * 1024

SAMPLE_SECONDS = 0.05


def download(program: Program, size: int, rate: float) -> None:
    """Take *size* bytes at *rate* bytes a second; check that they are the right ones."""
    pace, digest, received = Pace(rate), hashlib.sha256(), 0
    with HttpsClient(program, timeout_seconds=60) as client:
        client.send(f"GET /bytes?n={size} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        client.read_until(b"\r\n\r\n")
        while received < size:
            piece = client.read(min(65_536, size - received))
            digest.update(piece)
            received += len(piece)
            pace.moved(len(piece))
    assert digest.hexdigest() == pattern_sha256(size)


def upload(program: Program, size: int, rate: int) -> None:
    """Send *size* bytes to an app that takes *rate* bytes a second; check that it got the right ones."""
    with HttpsClient(program, timeout_seconds=60) as client:
        client.send(f"PUT /sink?rate={rate} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n".encode())
        for piece in pattern(size):
            client.send(piece)
        response = client.response()
    assert response.json() == {"bytes": size, "sha256": pattern_sha256(size)}


@contextmanager
def largest_resident_bytes(program: Program) -> Iterator[list[int]]:
    """Look at the resident memory of *program* until the end of the block; then the list has its maximum."""
    largest = [program.resident_bytes()]
    done = threading.Event()

    def sample() -> None:
        while not done.wait(SAMPLE_SECONDS):
            largest[0] = max(largest[0], program.resident_bytes())

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        yield largest
    finally:
        done.set()
        sampler.join()


def transfer(program: Program, size: int, rate: int) -> int:
    """Download and upload *size* bytes at once; return by how much the resident memory exceeded that at start."""
    before = program.resident_bytes()
    with largest_resident_bytes(program) as largest:
        in_parallel([lambda: download(program, size, rate), lambda: upload(program, size, rate)])
    return largest[0] - before


class TestMemory:
    def test_64_mib_both_ways_past_slow_readers(self, launch: Launch, own_app: App) -> None:
        """A download by a client and an upload to an app that take 20 MB/s stay within 32 MiB of the start."""
        program = launch(upstream=own_app.upstream)

        assert transfer(program, 64 * MIB, 20_000_000) < 32 * MIB

    @pytest.mark.slow
    def test_1_gib_both_ways_past_slow_readers(self, launch: Launch, own_app: App) -> None:
        """A download by a client and an upload to an app that take 10 MB/s stay within 32 MiB of the start."""
        program = launch(upstream=own_app.upstream)

        assert transfer(program, 1024 * MIB, 10_000_000) < 32 * MIB

    def test_client_that_does_not_read_stops_the_app(self, launch: Launch, own_app: App) -> None:
        """What a client does not take stays with the app: ten such clients cost less than 32 MiB."""
        program = launch(upstream=own_app.upstream)
        before = program.resident_bytes()
        clients = [HttpsClient(program) for _ in range(10)]
        try:
            for client in clients:
                client.send(f"GET /bytes?n={256 * MIB} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                client.read_until(b"\r\n\r\n")
            with HttpsClient(program) as other:
                statuses = [other.get("/hello").status for _ in range(200)]
            grown = program.resident_bytes() - before
        finally:
            for client in clients:
                client.reset()

        assert statuses == [200] * 200
        assert grown < 32 * MIB


class TestPatience:
    def test_slow_but_steady_reader_is_not_cut(self, launch: Launch, own_app: App) -> None:
        """A client that takes half a megabyte each second is not one that takes nothing for SIDECAR_BODY_TIMEOUT."""
        program = launch(upstream=own_app.upstream, body_timeout="1s")
        pace = Pace(500_000)
        with HttpsClient(program) as client:
            client.send(f"GET /bytes?n={64 * MIB} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            client.read_until(b"\r\n\r\n")
            for _ in range(200):
                pace.moved(len(client.read(10_000)))


class TestSpeed:
    def test_many_transfers_at_once_are_all_whole(self, launch: Launch, own_app: App) -> None:
        """Twenty transfers at full speed, half of them up, do not mix."""
        program = launch(upstream=own_app.upstream)

        in_parallel(
            [lambda: download(program, 3 * MIB + 1, 0) for _ in range(10)]
            + [lambda: upload(program, 3 * MIB + 1, 0) for _ in range(10)]
        )
