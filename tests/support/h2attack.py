"""
An HTTP/2 client that sends whatever it is told to, over TLS to the running program, and hears what comes, by frames.

It keeps no rule of the protocol: windows, states and settings are the test's business. What it sends is made by
`tests.support.frames`.
"""

from __future__ import annotations

import socket
import ssl
from typing import Self

from hpack import Decoder

from tests.support import frames
from tests.support.certs import authority
from tests.support.frames import Frame
from tests.support.program import WAIT_SECONDS, Program

_MARK = b"heard it"


class Http2Client:
    """
    One connection that agreed on HTTP/2, for ``with``; nothing has been sent on it.

    An end without close_notify raises ssl.SSLEOFError or ConnectionResetError, silence TimeoutError: neither may pass
    for an end in order.

    Attributes:
        socket: Blocking, with a timeout.
    """

    def __init__(
        self,
        program: Program,
        *,
        version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
        timeout_seconds: float = WAIT_SECONDS,
        receive_buffer: int | None = None,
    ) -> None:
        """
        Args:
            version: The one version of TLS to speak.
            receive_buffer: Bytes that the kernel is to hold for it, about.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=authority().cert_pem.decode())
        context.minimum_version = context.maximum_version = version
        context.set_alpn_protocols(["h2"])
        raw = socket.socket()
        try:
            raw.settimeout(timeout_seconds)
            if receive_buffer is not None:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            raw.connect((program.host, program.port))
            self.socket = context.wrap_socket(raw, server_hostname="localhost", suppress_ragged_eofs=False)
        except BaseException:
            raw.close()
            raise
        assert self.socket.selected_alpn_protocol() == "h2"
        self._buffer = b""
        self._decoder = Decoder()
        self._last_stream_id = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.socket.close()

    # -- frames --

    def send(self, data: bytes, size: int = 1 << 20) -> None:
        """Send *data*, in records of at most *size* bytes."""
        for at in range(0, len(data), size):
            self.socket.sendall(data[at : at + size])

    def begin(self, *pairs: tuple[int, int]) -> None:
        """Send the preface and SETTINGS of *pairs*, and acknowledge the program's."""
        self.send(frames.PREFACE + frames.settings(*pairs) + frames.frame(frames.SETTINGS, frames.ACK))

    def hear(self) -> Frame | None:
        """Wait for the next frame; None if the program closes in order, which it may only do between two."""
        while len(self._buffer) < 9 or len(self._buffer) < 9 + int.from_bytes(self._buffer[:3], "big"):
            data = self.socket.recv(65_536)
            if not data:
                assert not self._buffer, "a frame is cut short"
                return None
            self._buffer += data
        end = 9 + int.from_bytes(self._buffer[:3], "big")
        (heard,) = frames.parse(self._buffer[:end])
        self._buffer = self._buffer[end:]
        return heard

    def hear_to_end(self) -> list[Frame]:
        """Every frame until the program closes."""
        heard = []
        while (found := self.hear()) is not None:
            heard.append(found)
        return heard

    def hear_until_answered(self) -> list[Frame]:
        """What the program has said to all that was sent until now: every frame up to the second answer to a PING."""
        heard: list[Frame] = []
        for _ in range(2):  # the first answer may overtake what was to be said before it
            self.send(frames.ping(_MARK))
            while not heard or heard[-1] != Frame(frames.PING, frames.ACK, 0, _MARK):
                found = self.hear()
                assert found is not None, f"closed after {heard}"
                heard.append(found)
            heard.pop()
        return heard

    # -- requests, of those who do as they should --

    def status(self, block: bytes) -> int:
        """Decode the next header block of a response; return its status."""
        return int(dict(frames.decoded(self._decoder, block))[b":status"])

    def get(self, path: str) -> int:
        """Send a request on the next stream, and wait for the whole of a small response; return its status."""
        self._last_stream_id += 2
        fields = (*frames.GET[:2], (b":authority", b"localhost"), (b":path", path.encode()))
        self.send(frames.headers(self._last_stream_id, fields))
        status = 0
        while True:
            found = self.hear()
            assert found is not None, "closed instead of an answer"
            if found.stream_id == self._last_stream_id:
                assert found.kind in (frames.HEADERS, frames.DATA), found
                status = self.status(found.payload) if found.kind == frames.HEADERS else status
                if found.flags & frames.END_STREAM:
                    return status
