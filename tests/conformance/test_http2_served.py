"""
HTTP/2 over the wire: the cases of `test_http2_frames`, sent to the running program over TLS, and what the client hears.

There the codec is alone; here it stands between records of TLS, streams with an app behind them, and a connection that
must end in order.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from typing import Final

import attrs
import pytest

from tests.conformance import test_http2_frames as table
from tests.conformance.test_http2_frames import Ends, Outcome, Resets, Serves
from tests.support import frames
from tests.support.apps import RawApp
from tests.support.frames import DATA, END_STREAM, GOAWAY, HEADERS, PREFACE, RST_STREAM, WINDOW_UPDATE, Frame, headers
from tests.support.h2attack import Http2Client
from tests.support.program import Program

AFTERWARDS: Final = 1001
"""A stream that no case has opened, nor any below it."""

CREDITED: Final = "6.9.1 more DATA than the stream's window"
"""The case whose outcome is another here: its bytes go on to the app meanwhile, and the window opens again."""


class GatedApp(RawApp):
    """Answers each request with 204, once it is whole and the gate is open."""

    def __init__(self) -> None:
        super().__init__(self._answer)

    def _answer(self, sock: socket.socket) -> None:
        received = b""
        while data := sock.recv(65_536):
            received += data
            if _is_whole(received):
                received = b""
                self.gate.wait()
                sock.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")


def _is_whole(request: bytes) -> bool:
    """Whether a *request* that a proxy wrote is complete; none follows it before it is answered."""
    head, end, body = request.partition(b"\r\n\r\n")
    head = head.lower()
    if b"\r\ntransfer-encoding: chunked" in head:
        return body.endswith(b"\r\n\r\n") and (body.startswith(b"0\r\n") or b"\r\n0\r\n" in body)
    _, _, length = head.partition(b"\r\ncontent-length: ")
    return bool(end) and len(body) >= int(length.partition(b"\r\n")[0] or 0)


@attrs.frozen
class Served:
    """What the cases are sent to."""

    app: GatedApp
    program: Program


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A program in front of the app."""
    with GatedApp() as app, Program(tmp_path_factory.mktemp("sidecar"), upstream=app.upstream) as program:
        yield Served(app, program)


WAYS: Final = {
    "TLS 1.3, whole": (ssl.TLSVersion.TLSv1_3, 1 << 20),
    "TLS 1.3, in records of 5 bytes": (ssl.TLSVersion.TLSv1_3, 5),
    "TLS 1.2, whole": (ssl.TLSVersion.TLSv1_2, 1 << 20),
}


def whole_requests(sent: bytes) -> set[int]:
    """Streams which the client has opened and ended itself, and not reset."""
    open_streams: set[int] = set()
    whole: set[int] = set()
    for found in frames.parse(sent.removeprefix(PREFACE)):
        stream_id = found.stream_id
        if found.kind == HEADERS:
            open_streams.add(stream_id)
        if found.kind in (HEADERS, DATA) and found.flags & END_STREAM and stream_id in open_streams:
            whole.add(stream_id)
        if found.kind == RST_STREAM:
            whole.discard(stream_id)
    return whole


def resets_among(heard: list[Frame]) -> list[tuple[int, int]]:
    return [(found.stream_id, found.code) for found in heard if found.kind == RST_STREAM]


def hear_ends(client: Http2Client, streams: set[int], heard: list[Frame]) -> None:
    """Wait until the responses on all *streams* have ended; add what comes to *heard*."""

    def ended() -> set[int]:
        return {found.stream_id for found in heard if found.kind in (HEADERS, DATA) and found.flags & END_STREAM}

    while not streams <= ended():
        found = client.hear()
        assert found is not None, f"closed after {heard}"
        heard.append(found)


ROWS: Final = [row for row in table.ROWS if row[0] != CREDITED]


@pytest.mark.parametrize(("version", "size"), WAYS.values(), ids=WAYS)
@pytest.mark.parametrize(("sent", "outcome"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
class TestServed:
    def test_client_hears_what_the_rfc_says(
        self, served: Served, sent: bytes, outcome: Outcome, version: ssl.TLSVersion, size: int
    ) -> None:
        """
        An error of the connection is told by GOAWAY, then it is closed in order; one of a stream by RST_STREAM, and
        whatever else was asked for is answered.
        """
        served.app.gate.clear()
        with Http2Client(served.program, version=version) as client:
            client.send(sent, size)
            if isinstance(outcome, Ends):
                *heard, last = client.hear_to_end()
                assert (last.kind, last.stream_id, last.code) == (GOAWAY, 0, outcome.code)
                assert GOAWAY not in {found.kind for found in heard}
                return
            heard = client.hear_until_answered()
            assert resets_among(heard) == ([attrs.astuple(outcome)] if isinstance(outcome, Resets) else [])
            served.app.gate.set()
            expected = whole_requests(sent) - {stream_id for stream_id, _ in resets_among(heard)}
            hear_ends(client, expected, heard)
            client.send(headers(AFTERWARDS))
            hear_ends(client, {AFTERWARDS}, heard)

            assert GOAWAY not in {found.kind for found in heard}
            statuses = {found.stream_id: client.status(found.payload) for found in heard if found.kind == HEADERS}
            assert statuses[AFTERWARDS] == 204
            is_forwarded = outcome != Serves(0)
            assert {statuses[stream_id] == 204 for stream_id in expected} <= {is_forwarded}


class TestWindow:
    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
    def test_more_than_it_ends_the_connection_while_nothing_goes_on(
        self, served: Served, version: ssl.TLSVersion
    ) -> None:
        """6.9.1 where no credit is given back: what a client sends into a tunnel that the app has not opened yet."""
        served.app.gate.clear()
        tunnel = headers(1, frames.WEBSOCKET, frames.END_HEADERS)
        with Http2Client(served.program, version=version) as client:
            client.send(table.BEGIN + tunnel + frames.data(1, bytes(2**14)) * 4)
            heard = client.hear_until_answered()
            assert WINDOW_UPDATE not in {found.kind for found in heard if found.stream_id}
            client.send(frames.data(1, b"x"))

            assert client.hear_to_end()[-1].code == frames.FLOW_CONTROL_ERROR


class TestTable:
    def test_case_that_differs_is_in_it(self) -> None:
        """No case is left out but the one that is known to differ."""
        assert len(ROWS) == len(table.ROWS) - 1
