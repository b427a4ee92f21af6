"""
The `h2` library as `wire.h2connection` uses it: for the windows of both sides, and for the states in which frames may
be sent.

It sees no field of a message: of those it would check some, and end the connection over each that is wrong.
"""

from __future__ import annotations

from typing import Final

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import StreamReset
from h2.exceptions import FlowControlError
from h2.settings import SettingCodes, Settings
from hpack import Encoder

from sidecar.wire import h2frames
from sidecar.wire.h2frames import MAX_FRAME_BYTES, PREFACE, Code, ConnectionFault, frame
from sidecar.wire.h2limits import LEAST_WINDOW, Http2Limits


def _configuration(*, is_client: bool) -> H2Configuration:
    return H2Configuration(
        client_side=is_client,
        validate_inbound_headers=False,
        normalize_inbound_headers=False,
        validate_outbound_headers=False,
        normalize_outbound_headers=False,
    )


_OF_SERVER: Final = _configuration(is_client=False)
_OF_CLIENT: Final = _configuration(is_client=True)


class _ReadyBlocks(Encoder):
    """Hands the library the header block that we have made already."""

    block = b""

    def encode(self, headers: object, huffman: bool = True) -> bytes:
        return self.block


class Library(H2Connection):
    """One connection, which begins with our SETTINGS, behind the preface in the client role."""

    # What it remembers of streams that ended would be ten megabytes in the end; nothing is asked of it about those.
    MAX_CLOSED_STREAMS = 1

    def __init__(self, limits: Http2Limits, *, is_client: bool = False) -> None:
        super().__init__(_OF_CLIENT if is_client else _OF_SERVER)
        self._ready = self.encoder = _ReadyBlocks()
        values = {
            SettingCodes.INITIAL_WINDOW_SIZE: limits.stream_window,
            SettingCodes.MAX_HEADER_LIST_SIZE: limits.header_list_bytes,
        }
        if is_client:
            values[SettingCodes.ENABLE_PUSH] = 0
        else:
            values[SettingCodes.MAX_CONCURRENT_STREAMS] = limits.streams
            values[SettingCodes.ENABLE_CONNECT_PROTOCOL] = 1
        self.local_settings = Settings(client=is_client, initial_values=values)
        self.initiate_connection()
        if not is_client:
            self.receive_data(PREFACE)
        if limits.connection_window > LEAST_WINDOW:
            self.increment_flow_control_window(limits.connection_window - LEAST_WINDOW)

    def window(self, stream_id: int) -> int:
        """Return how many bytes the peer takes on an open stream."""
        return max(0, self.local_flow_control_window(stream_id))

    def take(self, kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bool:
        """
        Take a frame that is right where it stands.

        Returns:
            Whether the stream goes on; False if its window grew too large, for which it was reset.

        Raises:
            ConnectionFault: A window of the connection grows too large, or one of ours was exceeded.
        """
        try:
            events = self.receive_data(frame(kind, flags, stream_id, payload))
        except FlowControlError:
            if kind == h2frames.DATA:
                reason, message = "window_exceeded", "the peer sent more than a window allows"
            else:
                reason, message = "window_overflow", "a window of the peer grows over 2^31-1"
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR, reason, message) from None
        return kind != h2frames.WINDOW_UPDATE or not any(isinstance(event, StreamReset) for event in events)

    def send_block(self, stream_id: int, block: bytes, *, is_interim: bool, end: bool) -> None:
        """Send a header block, of a head or of trailers, in as many frames as it takes."""
        self._ready.block = block
        self.send_headers(stream_id, [(b":status", b"100")] if is_interim else [], end_stream=end)

    def send_body(self, stream_id: int, data: bytes, *, end: bool) -> int:
        """Send *data*, for which there is room, in as many frames as it takes; return their number."""
        count, at, size = 0, 0, len(data)
        while size - at > MAX_FRAME_BYTES:
            self.send_data(stream_id, data[at : at + MAX_FRAME_BYTES])
            at += MAX_FRAME_BYTES
            count += 1
        if at < size or end:
            self.send_data(stream_id, data[at:] if at else data, end_stream=end)
            count += 1
        return count
