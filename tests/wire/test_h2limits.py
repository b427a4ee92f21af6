"""What one HTTP/2 peer may cost."""

from __future__ import annotations

import attrs
import pytest

from sidecar.wire.h2frames import Code, ConnectionFault
from sidecar.wire.h2limits import Accounts, Allowance, Http2Limits, Kind

LIMITS = Http2Limits(pings=Allowance(2, per_second=1, per_answer=3, per_data_frame=0.5))


def charges(accounts: Accounts, now: float, kind: Kind = Kind.PING) -> int:
    """How many frames may come at *now*."""
    for count in range(30_000):
        try:
            accounts.charge(kind, now)
        except ConnectionFault:
            return count
    raise AssertionError("without end")


class TestAccounts:
    def test_more_than_the_burst_is_too_much(self) -> None:
        """Whoever overdraws is told to calm down, with the kind as the reason."""
        accounts = Accounts(LIMITS)
        accounts.charge(Kind.PING, 0.0)
        accounts.charge(Kind.PING, 0.0)
        with pytest.raises(ConnectionFault) as caught:
            accounts.charge(Kind.PING, 0.0)
        assert (caught.value.code, caught.value.reason) == (Code.ENHANCE_YOUR_CALM, "ping_flood")
        assert "3 PING frames" in str(caught.value)

    def test_time_refills_up_to_the_burst(self) -> None:
        """A second brings one more; an hour no more than the burst."""
        accounts = Accounts(LIMITS)
        accounts.charge(Kind.PING, 0.0)
        accounts.charge(Kind.PING, 0.0)
        accounts.charge(Kind.PING, 1.0)
        assert charges(accounts, 3600.0) == 2

    def test_clock_that_stands_still_gives_nothing(self) -> None:
        """What has been used up is used up until time passes."""
        accounts = Accounts(LIMITS)
        assert charges(accounts, 100.0) == 2
        assert charges(accounts, 100.0) == 0

    @pytest.mark.parametrize(("answers", "data_frames", "more"), [(1, 0, 2), (0, 3, 1), (0, 1, 0)])
    def test_work_done_refills(self, answers: int, data_frames: int, more: int) -> None:
        """A client that we have served may do more than one that asks for nothing, up to the burst."""
        accounts = Accounts(LIMITS)
        accounts.charge(Kind.PING, 0.0)
        accounts.charge(Kind.PING, 0.0)
        accounts.answers += answers
        accounts.data_frames += data_frames
        assert charges(accounts, 0.0) == more

    def test_kinds_are_counted_apart(self) -> None:
        """One kind's frames are not paid from the account of another."""
        accounts = Accounts(LIMITS)
        accounts.charge(Kind.PING, 0.0)
        accounts.charge(Kind.SETTINGS, 0.0)
        accounts.charge(Kind.SETTINGS, 0.0)
        assert accounts.counts == {Kind.PING: 1, Kind.SETTINGS: 2}

    @pytest.mark.parametrize("kind", Kind)
    def test_every_kind_has_an_end(self, kind: Kind) -> None:
        """By default there is no kind of which a client may send any number at once."""
        assert charges(Accounts(Http2Limits()), 0.0, kind) <= 20_000


class TestHttp2Limits:
    @pytest.mark.parametrize(
        "wrong",
        [{"stream_window": 65_534}, {"connection_window": 65_534}, {"streams": 0}, {"stream_window": 2**31}],
        ids=str,
    )
    def test_what_cannot_be_held_is_refused(self, wrong: dict[str, int]) -> None:
        """A window below 65,535 would end connections of clients that have not seen it yet."""
        with pytest.raises(ValueError, match=r"must be|in"):
            Http2Limits(**wrong)


class TestForApp:
    @pytest.mark.parametrize(
        ("limits", "window"),
        [
            (Http2Limits(), 100 * 64 * 1024),
            (Http2Limits(streams=2), 1024 * 1024),
            (Http2Limits(streams=1000, stream_window=2**30), 2**31 - 1),
        ],
        ids=["default", "few streams", "large windows"],
    )
    def test_connection_has_room_for_all_streams(self, limits: Http2Limits, window: int) -> None:
        """What one client does not read stops nobody else, as far as windows go; no other limit of size changes."""
        made = limits.for_app()
        assert made.connection_window == window
        assert made.largest_stream_window == made.stream_window
        changed = ("connection_window", "late", "window_growth", "block_bytes", "continuations", "hard_factor")
        assert attrs.evolve(made, **{name: getattr(limits, name) for name in changed}) == limits
        assert made.hard_header_list_bytes > 900 * 1024 > made.header_list_bytes
