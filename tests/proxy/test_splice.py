"""`proxy.splice`: what an upgraded connection becomes."""

from __future__ import annotations

import pytest

from sidecar.proxy.deadlines import NEVER
from sidecar.settings import Seconds, Timeouts
from tests.support.pump import Pump

REQUEST = b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
ANSWER = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
TIMEOUTS = Timeouts(body=Seconds(3.0), stream=Seconds(5.0))


def make_tunnel(timeouts: Timeouts = TIMEOUTS) -> Pump:
    pump = Pump(timeouts=timeouts)
    pump.start_exchange(REQUEST)
    pump.app_sends(ANSWER)
    pump.received()
    pump.app_receives()
    return pump


@pytest.fixture
def pump() -> Pump:
    return make_tunnel()


class TestBackpressure:
    def test_app_that_does_not_read_pauses_the_client(self, pump: Pump) -> None:
        """A side is paused while the other does not take what it sent."""
        pump.app.stop_taking()
        pump.client_sends(b"a")
        assert not pump.peer.is_reading
        pump.app.take()
        assert pump.peer.is_reading

    def test_client_that_does_not_read_pauses_the_app(self, pump: Pump) -> None:
        """The same the other way round."""
        pump.tls.stop_taking()
        pump.app_sends(b"a")
        assert not pump.app.is_reading
        pump.tls.take()
        assert pump.app.is_reading

    def test_stuck_client_is_aborted_at_the_body_timeout(self, pump: Pump) -> None:
        """A client that takes nothing is cut, and the app with it."""
        pump.tls.stop_taking()
        pump.app_sends(b"a")
        pump.pass_time(3.1)
        assert pump.tls.ending == "abort"
        assert pump.app.is_closed

    def test_http_is_not_looked_for(self, pump: Pump) -> None:
        """What looks like a request is relayed like anything else."""
        pump.client_sends(b"GET / HTTP/1.1\r\n\r\n")
        assert pump.app_receives() == b"GET / HTTP/1.1\r\n\r\n"
        pump.app_sends(b"HTTP/1.1 200 OK\r\n\r\n")
        assert pump.received() == b"HTTP/1.1 200 OK\r\n\r\n"
        assert len(pump.log.ended) == 1


class TestSilence:
    def test_silence_of_both_ends_the_tunnel(self, pump: Pump) -> None:
        """After the stream timeout without a byte both sides are closed."""
        pump.pass_time(5.1)
        assert pump.tls.ending == "abort"
        assert pump.app.is_closed

    @pytest.mark.parametrize("side", ["client_sends", "app_sends"])
    def test_bytes_of_one_side_keep_it(self, pump: Pump, side: str) -> None:
        """One side may be silent for as long as the other talks."""
        for _ in range(4):
            pump.pass_time(4.0)
            getattr(pump, side)(b"ping")
        assert not pump.tls.ending

    def test_zero_is_off(self) -> None:
        """A stream timeout of 0 lets a tunnel be silent for ever."""
        pump = make_tunnel(Timeouts(stream=Seconds(0.0)))
        assert pump.peer.deadline.at == NEVER


class TestEnds:
    def test_client_that_says_so_lets_the_app_finish(self, pump: Pump) -> None:
        """close_notify is a half-close: the app hears it, and may still send."""
        pump.client_half_closes()
        assert pump.app.calls == ["shut_down_writing"]
        pump.app_sends(b"bye")
        assert pump.received() == b"bye"
        pump.app_closes()
        assert pump.tls.ending == "linger"

    def test_client_that_is_cut_cuts_the_app(self, pump: Pump) -> None:
        """The app must not take what it has for all there was."""
        pump.client_cuts()
        assert pump.tls.ending == "abort"
        assert pump.app.calls == ["abortConnection"]

    def test_client_that_vanishes_cuts_the_app(self, pump: Pump) -> None:
        """Nobody is there to talk to."""
        pump.client_vanishes()
        assert pump.app.is_closed

    def test_app_that_ends_closes_the_client_after_what_is_under_way(self, pump: Pump) -> None:
        """The client gets everything, then close_notify, and two seconds to go."""
        pump.app_sends(b"bye")
        pump.app_closes()
        assert pump.received() == b"bye"
        assert pump.tls.ending == "linger"
        pump.pass_time(2.1)
        assert pump.tls.ending == "abort"

    def test_slow_client_has_the_body_timeout_for_the_rest(self, pump: Pump) -> None:
        """What is under way when the app ends is not cut after two seconds."""
        pump.tls.stop_taking()
        pump.app_sends(b"bye")
        pump.app.is_reading = True  # as if its end came with its last bytes
        pump.app_closes()
        pump.pass_time(2.9)
        assert pump.tls.ending == "linger"
        pump.pass_time(0.2)
        assert pump.tls.ending == "abort"

    def test_app_that_resets_aborts_the_client(self, pump: Pump) -> None:
        """What the client has may not be all there was."""
        pump.app_resets()
        assert pump.tls.ending == "abort"

    def test_bytes_after_the_apps_end_are_dropped(self, pump: Pump) -> None:
        """The client may still be sending when the app has gone."""
        pump.app_closes()
        pump.downstream.dataReceived(b"late")
        pump.downstream.eofReceived(True)
        pump.downstream.pauseProducing()
        pump.downstream.resumeProducing()
        pump.settle()
        assert pump.app_receives() == b""

    def test_drain_leaves_it_to_the_deadline(self, pump: Pump) -> None:
        """A tunnel is in flight: it may finish until the drain is over."""
        pump.downstream.drain()
        assert not pump.tls.ending
        assert not pump.downstream.is_idle
        pump.client_sends(b"a")
        assert pump.app_receives() == b"a"
