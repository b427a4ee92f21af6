"""
What one HTTP/2 peer may cost: sizes, windows, and how often it may send what makes us work and gives us nothing.

Frames that a good peer sends now and then, and a hostile one without end, are paid from an account of their kind. It
holds a `burst` at most and is refilled with time, with every request that was answered and with every DATA frame that
we have sent; whoever overdraws it is told ENHANCE_YOUR_CALM. So a busy peer may do more than an idle one.
"""

from __future__ import annotations

import enum
from typing import Final

import attrs

from sidecar.values import Value
from sidecar.wire.h2frames import Code, ConnectionFault

_BLOCK_BYTES_OF_APPS: Final = 1024 * 1024

LEAST_WINDOW: Final = 65_535
"""RFC 9113 section 6.9.2: what a client may send on a stream before it has seen our SETTINGS."""


class Kind(enum.Enum):
    """What is counted; the value is the reason token of the one who overdraws."""

    RESET = "reset_flood"
    SETTINGS = "settings_flood"
    PING = "ping_flood"
    PRIORITY = "priority_flood"
    WINDOW_UPDATE = "window_update_flood"
    EMPTY_DATA = "empty_data_flood"
    PADDING = "padding_flood"
    UNKNOWN = "unknown_frame_flood"
    LATE = "closed_stream_flood"

    @property
    def noun(self) -> str:
        """What there are too many of, for people."""
        return _NOUNS.get(self.name) or f"{self.name} frames"


_NOUNS: Final = {
    "RESET": "requests taken back",
    "EMPTY_DATA": "DATA frames without content",
    "PADDING": "DATA frames of padding",
    "UNKNOWN": "frames of unknown types",
    "LATE": "frames for requests that are over",
}


@attrs.frozen(eq=False, repr=False)
class Allowance(Value):
    """
    How many frames of a kind a peer may send.

    Attributes:
        burst: At once.
        per_second: More with every second.
        per_answer: More with every request that was answered to its end.
        per_data_frame: More with every DATA frame that we have sent.
        per_data_byte: More with every byte in them.
        saved: What may be left of that over the burst: the peer answers later, and all at once.
    """

    burst: int = attrs.field(validator=attrs.validators.ge(1))
    per_second: float = attrs.field(default=0.0, validator=attrs.validators.ge(0))
    per_answer: float = attrs.field(default=0.0, validator=attrs.validators.ge(0))
    per_data_frame: float = attrs.field(default=0.0, validator=attrs.validators.ge(0))
    per_data_byte: float = attrs.field(default=0.0, validator=attrs.validators.ge(0))
    saved: int = attrs.field(default=0, validator=attrs.validators.ge(0))


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Http2Limits(Value):
    """
    The limits of one connection, in the words of one with a client; `for_app` makes those of one with an app.

    Attributes:
        streams: Requests at a time; further ones are told REFUSED_STREAM, and may be sent again.
        stream_window: Bytes of a request body that may be under way, not yet acknowledged by the caller.
        window_growth: How many times as much it may become, while all that comes is acknowledged at once.
        connection_window: The same for all streams together: what the caller may have to hold.
        header_list_bytes: Names, values and 32 bytes per field (RFC 9113 section 6.5.2); of more the answer is 431.
        fields: Most fields, crumbs of a cookie counted as one; more is answered with 431.
        hard_factor: How many times the size of a list, and half the number of its fields, are not even read to the end.
        block_bytes: Longest header block as it is sent, all its frames together (CVE-2024-27316). Twice the list, so
            that too large a cookie is answered with 431, and does not end all that is under way beside it.
        continuations: Most CONTINUATION frames of a block, empty ones too (CVE-2024-27316).
        settings: Most settings in one frame.
        control_bytes: Most bytes of our replies to control frames that the client has not taken (CVE-2019-9512, -9515).
        resets: Requests that the client takes back before their answer begins (CVE-2023-44487), or that it makes us
            reset at any time (CVE-2025-8671).
        settings_frames: SETTINGS, with ACK too (CVE-2019-9515).
        pings: PING, with ACK too (CVE-2019-9512). Some gRPC clients send one for much of the data that they get.
        priorities: PRIORITY, which we do not heed (CVE-2019-9513).
        window_updates: WINDOW_UPDATE, of which a client needs few for each DATA frame (CVE-2019-9511, -9517). gRPC
            clients send two for each message that they read, of five bytes or more, and a frame may have thousands.
        empty_data: DATA without content that does not end its stream (CVE-2019-9518).
        padded: DATA with more padding than content.
        unknown: Frames of types that we do not know, such as PRIORITY_UPDATE.
        late: Frames on streams that are over, and requests behind our last GOAWAY. Of a stream of small messages that
            we have reset, a window full is under way, which may be 13,000 frames.
    """

    streams: int = attrs.field(default=100, validator=attrs.validators.in_(range(1, 1001)))
    stream_window: int = attrs.field(
        default=64 * 1024, validator=[attrs.validators.ge(LEAST_WINDOW), attrs.validators.lt(2**31)]
    )
    window_growth: int = attrs.field(default=4, validator=attrs.validators.in_(range(1, 17)))
    connection_window: int = attrs.field(
        default=1024 * 1024, validator=[attrs.validators.ge(LEAST_WINDOW), attrs.validators.lt(2**31)]
    )
    header_list_bytes: int = attrs.field(default=60 * 1024, validator=attrs.validators.ge(1024))
    fields: int = attrs.field(default=100, validator=attrs.validators.ge(1))
    hard_factor: int = attrs.field(default=2, validator=attrs.validators.ge(2))
    block_bytes: int = attrs.field(default=120 * 1024, validator=attrs.validators.ge(1024))
    continuations: int = attrs.field(default=16, validator=attrs.validators.ge(0))
    settings: int = attrs.field(default=32, validator=attrs.validators.ge(1))
    control_bytes: int = attrs.field(default=16 * 1024, validator=attrs.validators.ge(256))
    resets: Allowance = Allowance(200, per_second=10, per_answer=1)
    settings_frames: Allowance = Allowance(20, per_second=1)
    pings: Allowance = Allowance(100, per_second=10, per_answer=1, per_data_frame=1)
    priorities: Allowance = Allowance(200, per_second=1, per_answer=10)
    window_updates: Allowance = Allowance(
        1000, per_second=10, per_answer=5, per_data_frame=10, per_data_byte=0.5, saved=100_000
    )
    empty_data: Allowance = Allowance(100, per_second=10, per_answer=1)
    padded: Allowance = Allowance(200, per_second=20, per_answer=2)
    unknown: Allowance = Allowance(100, per_second=10, per_answer=5)
    late: Allowance = Allowance(20_000, per_second=200, per_answer=200)

    def for_app(self) -> Http2Limits:
        """
        Return these limits for a connection that the requests of many clients share.

        - What one client does not read must not stop the others: the connection's window has room for all streams.
        - A head that is too large, even by far, must cost its own request alone.
        - An app that streams small messages has thousands under way when their client takes its request back, or many
          do. They are bounded by the windows in bytes; what they may be in number would be the end of all streams.
        """
        return attrs.evolve(
            self,
            connection_window=max(self.connection_window, min(self.streams * self.stream_window, 2**31 - 1)),
            window_growth=1,
            block_bytes=_BLOCK_BYTES_OF_APPS,
            continuations=_BLOCK_BYTES_OF_APPS // 16_384,
            hard_factor=max(2, _BLOCK_BYTES_OF_APPS // self.header_list_bytes),
            late=Allowance(100_000, per_second=10_000, per_answer=100),
        )

    @property
    def largest_stream_window(self) -> int:
        """What a stream's window may become."""
        return max(self.stream_window, min(self.window_growth * self.stream_window, self.connection_window))

    @property
    def hard_header_list_bytes(self) -> int:
        """
        Size at which a header list is not even read to its end, which ends the connection.

        Below it, the list must be read although it is refused: the compression of all that follows depends on it.
        """
        return self.hard_factor * self.header_list_bytes

    @property
    def hard_fields(self) -> int:
        """The same for the number of fields, with every crumb counted."""
        return 2 * self.hard_factor * self.fields


@attrs.define(eq=False, repr=False)
class _Account:
    """What is left of an allowance, as of a moment and two counts."""

    allowance: Allowance
    left: float
    at: float
    answers: int
    data_frames: int
    data_bytes: int


class Accounts:
    """
    The accounts of one connection.

    Attributes:
        counts: Frames so far, by kind; for logs and metrics.
        answers: Requests answered to their end.
        data_frames: DATA frames sent.
        data_bytes: Bytes in them.
    """

    __slots__ = ("_accounts", "_allowances", "answers", "counts", "data_bytes", "data_frames")

    def __init__(self, limits: Http2Limits) -> None:
        self._allowances = {
            Kind.RESET: limits.resets,
            Kind.SETTINGS: limits.settings_frames,
            Kind.PING: limits.pings,
            Kind.PRIORITY: limits.priorities,
            Kind.WINDOW_UPDATE: limits.window_updates,
            Kind.EMPTY_DATA: limits.empty_data,
            Kind.PADDING: limits.padded,
            Kind.UNKNOWN: limits.unknown,
            Kind.LATE: limits.late,
        }
        self._accounts: dict[Kind, _Account] = {}  # opened by the first charge: most clients need three
        self.counts: dict[Kind, int] = {}
        self.answers = 0
        self.data_frames = 0
        self.data_bytes = 0

    def sent_data(self, frames: int, size: int) -> None:
        """Count DATA that we send."""
        self.data_frames += frames
        self.data_bytes += size

    def charge(self, kind: Kind, now: float) -> None:
        """
        Count a frame of *kind*.

        Raises:
            ConnectionFault: There have been too many.
        """
        self.counts[kind] = self.counts.get(kind, 0) + 1
        account = self._accounts.get(kind)
        if account is None:
            allowance = self._allowances[kind]
            burst = float(allowance.burst)
            account = _Account(allowance, burst, now, self.answers, self.data_frames, self.data_bytes)
            self._accounts[kind] = account
        self._refill(account, now)
        account.left -= 1
        if account.left < 0:
            raise ConnectionFault(
                Code.ENHANCE_YOUR_CALM,
                kind.value,
                f"{self.counts[kind]:,} {kind.noun} for {self.answers:,} answered requests; limit "
                f"{account.allowance.burst:,} at once",
            )

    def _refill(self, account: _Account, now: float) -> None:
        allowance = account.allowance
        burst = float(allowance.burst)
        if account.left < burst:
            with_time = max(0.0, now - account.at) * allowance.per_second
            with_answers = (self.answers - account.answers) * allowance.per_answer
            account.left = min(burst, account.left + with_time + with_answers)
        with_frames = (self.data_frames - account.data_frames) * allowance.per_data_frame
        with_bytes = (self.data_bytes - account.data_bytes) * allowance.per_data_byte
        account.left = min(burst + allowance.saved, account.left + with_frames + with_bytes)
        account.at, account.answers = now, self.answers
        account.data_frames, account.data_bytes = self.data_frames, self.data_bytes
