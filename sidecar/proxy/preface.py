"""
What stands before everything else on a fresh downstream connection: perhaps a header of the PROXY protocol.

A `Preface` is the first protocol of such a connection's transport. Once it knows, it says so and is done: its owner
puts the next protocol in its place, or refuses. It never touches the transport, and sets no deadline.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.python import failure

from sidecar.errors import ProxyHeaderError
from sidecar.wire.proxyproto import Parsed, ProxyHeader, Unparsed, begins, parse

_TLS_HANDSHAKE: Final = b"\x16"


class Preface:
    """
    Finds out what one connection begins with.

    Exactly one of the three call-backs is made, and exactly once.
    """

    __slots__ = ("_data", "_gone", "_is_done", "_is_required", "_may_have", "_received", "_refused")

    def __init__(
        self,
        *,
        is_required: bool,
        may_have: bool,
        received: Callable[[ProxyHeader | None, bytes], None],
        refused: Callable[[str, str], None],
        gone: Callable[[int], None],
    ) -> None:
        """
        Args:
            is_required: Whether a connection without a header is refused.
            may_have: Whether this peer's header is believed; if not, one that has a header is refused.
            received: Called with the header, None if there is none, and with the bytes behind it.
            refused: Called with a token for logs and metrics, and a text for the operator.
            gone: Called if the peer goes before anything was decided, with the bytes that it has sent. Balancers open
                and close a connection to see whether anybody listens: 0 bytes are no news.
        """
        self._is_required = is_required
        self._may_have = may_have
        self._received = received
        self._refused = refused
        self._gone = gone
        self._data = b""
        self._is_done = False

    # -- called by the transport --

    def dataReceived(self, data: bytes) -> None:
        if self._is_done:
            return
        # Bounded: `parse` gives a verdict at proxyproto.MAX_HEADER_BYTES, `begins` at 12.
        self._data += data
        if self._may_have:
            self._parse()
        elif begins(self._data):
            self._refuse(
                "proxy_header_untrusted",
                "the connection begins with a PROXY header, and its peer is not one that may send it; if it is a "
                "balancer of yours, add its addresses to SIDECAR_TRUSTED_PROXIES",
            )
        elif begins(self._data) is False:
            self._has_none()

    def eofReceived(self) -> None:
        self._go()

    def connectionLost(self, reason: failure.Failure) -> None:
        self._go()

    def pauseProducing(self) -> None:
        """Nothing: nothing is written here."""

    def resumeProducing(self) -> None:
        """Nothing: nothing is written here."""

    # -- called by the owner --

    def deadline_passed(self) -> None:
        """It has taken too long to find out: refuse a peer that sent something, forget one that did not."""
        if self._data:
            self._refuse(
                "proxy_header_timeout",
                f"the connection began with {len(self._data):,} bytes of what may be a PROXY header, and the rest did "
                "not come in time; see what the peer sends, and whether packets are lost on the way",
            )
        else:
            self._go()

    # -- what it comes to --

    def _parse(self) -> None:
        try:
            found = parse(self._data)
        except ProxyHeaderError as error:
            self._refuse(
                "proxy_header_invalid",
                f"the PROXY header is not valid ({error.reason}): {error}; see what the peer is set to send",
            )
            return
        if isinstance(found, Parsed):
            rest = self._finish()[found.size :]
            self._received(found.header, rest)
        elif found is Unparsed.ABSENT:
            self._has_none()

    def _has_none(self) -> None:
        if not self._is_required:
            self._received(None, self._finish())
            return
        what = "a TLS handshake" if self._data.startswith(_TLS_HANDSHAKE) else "something else"
        self._refuse(
            "proxy_header_missing",
            f"the connection begins with {what} and not with a PROXY header; switch the PROXY protocol on in what is "
            "in front (for a Network Load Balancer: proxy_protocol_v2.enabled of the target group), or do not require "
            "it (SIDECAR_PROXY_PROTOCOL, SIDECAR_PROXY_PROTOCOL_MISSING)",
        )

    def _refuse(self, reason: str, text: str) -> None:
        self._finish()
        self._refused(reason, text)

    def _go(self) -> None:
        if not self._is_done:
            self._gone(len(self._finish()))

    def _finish(self) -> bytes:
        """Return what has arrived, and hold it no longer; the state is final before anybody is called."""
        data, self._data = self._data, b""
        self._is_done = True
        return data
