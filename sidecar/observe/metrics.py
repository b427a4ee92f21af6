"""
What is counted. Plain attributes on the hot path; `admin.prometheus` turns them into the exposition format.

Every dictionary is keyed by values of ours (status codes, reason tokens), so its size is bounded.
"""

from __future__ import annotations

import attrs


@attrs.define
class Metrics:
    """
    Counters since start, and a few gauges.

    Attributes:
        connections: Downstream connections accepted.
        connections_active: Open now.
        handshakes: Handshakes completed, by TLS version.
        handshakes_resumed: Those among them that resumed a session.
        handshake_failures: Handshakes that came to nothing, by reason.
        client_rejections: Requests refused for the client's certificate or the lack of one, by reason.
        requests: Requests whose head arrived whole.
        responses: Responses by status; 0 where none was begun.
        reasons: Answers of our own and cut exchanges, by reason.
        upstream_retries: Requests repeated on a fresh connection.
    """

    connections: int = 0
    connections_active: int = 0
    handshakes: dict[str, int] = attrs.Factory(dict)
    handshakes_resumed: int = 0
    handshake_failures: dict[str, int] = attrs.Factory(dict)
    client_rejections: dict[str, int] = attrs.Factory(dict)
    requests: int = 0
    responses: dict[int, int] = attrs.Factory(dict)
    reasons: dict[str, int] = attrs.Factory(dict)
    upstream_retries: int = 0

    def count(self, status: int, reason: str) -> None:
        """Count an exchange that is over; *reason* is "" if the app's response went through."""
        responses = self.responses
        responses[status] = responses.get(status, 0) + 1
        if reason:
            self.reasons[reason] = self.reasons.get(reason, 0) + 1

    def handshake_failed(self, reason: str) -> None:
        self.handshake_failures[reason] = self.handshake_failures.get(reason, 0) + 1

    def client_rejected(self, reason: str) -> None:
        self.client_rejections[reason] = self.client_rejections.get(reason, 0) + 1

    def handshake_done(self, version: str, *, resumed: bool) -> None:
        self.handshakes[version] = self.handshakes.get(version, 0) + 1
        self.handshakes_resumed += resumed
