"""`proxy.service`: what is counted and logged of an exchange that is over."""

from __future__ import annotations

from sidecar.errors import RequestError
from tests.support.pump import Ended, Pump


class TestRecord:
    def test_response_of_the_app_counts_by_its_status(self) -> None:
        """An exchange that went through has no reason."""
        pump = Pump()
        pump.start_exchange()
        pump.app_sends(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        assert pump.service.metrics.responses == {404: 1}
        assert pump.service.metrics.reasons == {}

    def test_log_may_be_off(self) -> None:
        """Without an access log everything is still counted."""
        pump = Pump()
        pump.service.access_log = None
        pump.client_sends(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        pump.pool.refuse()
        pump.service.record_refused(pump.downstream, RequestError("bad_host", "no"))
        assert pump.service.metrics.responses == {502: 1, 400: 1}
        assert pump.service.metrics.reasons == {"upstream_connect_refused": 1, "bad_host": 1}

    def test_refused_head_counts_as_a_request(self) -> None:
        """Good or bad, it was one."""
        pump = Pump()
        pump.service.record_refused(pump.downstream, RequestError("bad_host", "no"))
        assert pump.service.metrics.requests == 1
        assert pump.last == Ended(400, "bad_host", "no")
