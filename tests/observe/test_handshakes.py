"""`observe.handshakes`: who was turned away, remembered within bounds."""

from __future__ import annotations

import json

import attrs
import pytest

from sidecar.observe.handshakes import HINTS, MOST_EVENTS, Rejection, Rejections, ShownCertificate

CERTIFICATE = ShownCertificate("CN=ci", "CN=Test CA", ("DNS:ci.example",), "0a", "2026-01-01T00:00:00Z")
EVENT = Rejection(
    client="192.0.2.1",
    reason="expired",
    message="the client certificate has expired",
    answer="403",
    server_name="app.example",
    versions=("TLSv1.3",),
    certificate=CERTIFICATE,
)


class TestRejections:
    def test_event_is_shown_with_its_hint(self) -> None:
        """One entry holds all that there is to know."""
        rejections = Rejections()
        assert rejections.add(EVENT, "1") == 1
        (shown,) = json.loads(json.dumps(rejections.as_json()))
        assert shown["reason"] == "expired"
        assert shown["certificate"]["sans"] == ["DNS:ci.example"]
        assert shown["hint"] == "renew the client's certificate"
        assert (shown["first"], shown["last"], shown["count"]) == ("1", "1", 1)

    def test_repeats_are_counted(self) -> None:
        """The same client with the same trouble is one entry, however often it tries."""
        rejections = Rejections()
        counts = [rejections.add(attrs.evolve(EVENT), str(number)) for number in range(5)]
        assert counts == [1, 2, 3, 4, 5]
        (shown,) = rejections.as_json()
        assert (shown["first"], shown["last"], shown["count"]) == ("0", "4", 5)

    @pytest.mark.parametrize(
        "change", [{"client": "192.0.2.2"}, {"reason": "unknown_ca"}, {"server_name": None}, {"certificate": None}]
    )
    def test_other_events_are_others(self, change: dict[str, object]) -> None:
        """What differs in anything but time stands by itself, the last first."""
        rejections = Rejections()
        rejections.add(EVENT, "1")
        other = attrs.evolve(EVENT, **change)  # type: ignore[arg-type]
        assert rejections.add(other, "2") == 1
        assert [shown["last"] for shown in rejections.as_json()] == ["2", "1"]

    def test_oldest_is_forgotten(self) -> None:
        """A flood of clients takes no more memory than a hundred; the ones that come again stay."""
        rejections = Rejections()
        for number in range(MOST_EVENTS + 10):
            rejections.add(attrs.evolve(EVENT, client=str(number)), "1")
            rejections.add(EVENT, "2")
        shown = rejections.as_json()
        assert len(shown) == MOST_EVENTS
        assert [entry["client"] for entry in shown][:2] == ["192.0.2.1", str(MOST_EVENTS + 9)]

    def test_values_of_a_client_are_cut(self) -> None:
        """Nobody fills the memory with one long name, or many."""
        certificate = ShownCertificate("s" * 999, "i" * 999, ("n" * 999,) * 50, "f" * 999, "")
        event = attrs.evolve(EVENT, server_name="x" * 999, certificate=certificate)
        rejections = Rejections()
        rejections.add(event, "1")
        assert len(json.dumps(rejections.as_json())) < 6000


class TestHints:
    def test_unknown_reason_has_no_hint(self) -> None:
        """Not every event calls for action."""
        assert attrs.evolve(EVENT, reason="closed_by_peer").hint == ""

    @pytest.mark.parametrize("reason", HINTS)
    def test_hint_is_one_line(self, reason: str) -> None:
        """It stands at the end of a log line."""
        assert HINTS[reason].isprintable()
        assert not HINTS[reason].endswith(".")
