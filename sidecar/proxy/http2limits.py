"""Settings -> what one HTTP/2 client may cost, as the codec takes it."""

from __future__ import annotations

from sidecar.settings import Http2Settings, Limits
from sidecar.wire.h2limits import Allowance, Http2Limits


def limits_of(limits: Limits, http2: Http2Settings) -> Http2Limits:
    """
    Return the limits of a connection: of heads those that HTTP/1.1 has, else those of *http2*.

    Args:
        limits: Its fields for heads count.
        http2: Where it says a number of frames at once, the rates at which more are allowed change in proportion.
    """
    usual = Http2Limits()
    return Http2Limits(
        streams=http2.streams,
        stream_window=http2.stream_window,
        connection_window=http2.connection_window,
        header_list_bytes=limits.header_bytes,
        fields=limits.headers,
        block_bytes=2 * limits.header_bytes,
        continuations=http2.continuations,
        control_bytes=http2.control_bytes,
        resets=_scaled(usual.resets, http2.resets),
        settings_frames=_scaled(usual.settings_frames, http2.settings_frames),
        pings=_scaled(usual.pings, http2.pings),
        priorities=_scaled(usual.priorities, http2.priorities),
        window_updates=_scaled(usual.window_updates, http2.window_updates),
        empty_data=_scaled(usual.empty_data, http2.empty_data),
        padded=_scaled(usual.padded, http2.padded),
        unknown=_scaled(usual.unknown, http2.unknown),
        late=_scaled(usual.late, http2.late),
    )


def _scaled(usual: Allowance, burst: int) -> Allowance:
    """*usual* for another number of frames at once."""
    share = burst / usual.burst
    return Allowance(
        burst,
        per_second=usual.per_second * share,
        per_answer=usual.per_answer * share,
        per_data_frame=usual.per_data_frame * share,
        per_data_byte=usual.per_data_byte * share,
        saved=int(usual.saved * share),
    )
