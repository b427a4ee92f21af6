"""`observe.metrics`: plain counters."""

from __future__ import annotations

from sidecar.observe.metrics import Metrics


class TestMetrics:
    def test_own_answers_are_counted_twice_over(self) -> None:
        """By status like any other, and by reason."""
        metrics = Metrics()
        metrics.count(502, "upstream_reset")
        metrics.count(502, "upstream_connect_refused")
        metrics.count(200, "")
        assert metrics.responses == {502: 2, 200: 1}
        assert metrics.reasons == {"upstream_reset": 1, "upstream_connect_refused": 1}

    def test_handshakes_are_counted_by_version_and_reason(self) -> None:
        """Resumed ones are a part of all."""
        metrics = Metrics()
        metrics.handshake_done("TLSv1.3", resumed=True)
        metrics.handshake_done("TLSv1.3", resumed=False)
        metrics.handshake_failed("plain_http")
        assert metrics.handshakes == {"TLSv1.3": 2}
        assert metrics.handshakes_resumed == 1
        assert metrics.handshake_failures == {"plain_http": 1}

    def test_two_processes_do_not_share(self) -> None:
        """Each has its own dictionaries."""
        Metrics().count(200, "")
        assert Metrics() == Metrics()
