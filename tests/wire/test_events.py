"""`sidecar.wire.events`: the vocabulary that routing and streaming know."""

from __future__ import annotations

import attrs
import pytest

from sidecar.wire import events
from sidecar.wire.events import END, BodyKind, Data, End, InterimHead, RequestHead, ResponseHead, Trailers
from sidecar.wire.fields import Fields

NO_FIELDS = Fields(b"")
REQUEST = RequestHead(b"GET", b"/", 1, NO_FIELDS, b"a", BodyKind.NONE, 0, (), True, ())
RESPONSE = ResponseHead(200, b" OK", 1, NO_FIELDS, BodyKind.NONE, 0, (), True)


class TestEvents:
    @pytest.mark.parametrize(
        "event", [REQUEST, RESPONSE, InterimHead(100, b"", NO_FIELDS), Data(b"a"), Trailers(NO_FIELDS)]
    )
    def test_events_are_equal_by_value(self, event: object) -> None:
        """Two events of the same content are equal, those of other content are not."""
        assert event == attrs.evolve(event)  # type: ignore[misc]  # every one is an attrs class
        assert event != END

    @pytest.mark.parametrize(
        ("event", "other"), [(Data(b"a"), Data(b"b")), (REQUEST, attrs.evolve(REQUEST, host=b"b"))]
    )
    def test_events_of_other_content_differ(self, event: object, other: object) -> None:
        """Each part of an event counts in comparing it."""
        assert event != other

    @pytest.mark.parametrize("event", [REQUEST, RESPONSE, Data(b"a"), END])
    def test_events_take_nothing_more(self, event: object) -> None:
        """An event has the attributes of its class and no others: events are made per message."""
        with pytest.raises(AttributeError):
            event.more = 1  # type: ignore[attr-defined]

    def test_end_names_itself(self) -> None:
        """The end of a message is one value, and readable."""
        assert isinstance(END, End)
        assert repr(END) == "END"

    def test_unions_name_every_event_of_their_direction(self) -> None:
        """What a codec of either role may return is listed."""
        assert set(events.RequestEvent.__args__) == {RequestHead, Data, Trailers, End}
        assert set(events.ResponseEvent.__args__) == {InterimHead, ResponseHead, Data, Trailers, End}
