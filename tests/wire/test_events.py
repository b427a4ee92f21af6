"""`sidecar.wire.events`: the vocabulary that routing and streaming know."""

from __future__ import annotations

import pytest

from sidecar.wire import events
from sidecar.wire.events import END, BodyKind, Data, End, InterimHead, RequestHead, ResponseHead, Trailers
from sidecar.wire.fields import Fields

NO_FIELDS = Fields(b"")


def request(host: bytes = b"a") -> RequestHead:
    return RequestHead(b"GET", b"/", 1, NO_FIELDS, host, BodyKind.NONE, 0, (), True, ())


def response(keep_alive: bool = True) -> ResponseHead:
    return ResponseHead(200, b" OK", 1, NO_FIELDS, BodyKind.NONE, 0, (), keep_alive)


class TestEvents:
    @pytest.mark.parametrize(
        ("event", "same"),
        [
            (request(), request()),
            (response(), response()),
            (InterimHead(100, b"", NO_FIELDS), InterimHead(100, b"", Fields(b""))),
            (Data(b"a"), Data(b"a")),
            (Trailers(NO_FIELDS), Trailers(Fields(b""))),
            (END, End()),
        ],
    )
    def test_events_are_equal_by_value(self, event: object, same: object) -> None:
        """Two events of the same content are equal; nothing else is equal to them."""
        assert event == same
        assert event not in (None, b"a", InterimHead(100, b" OK", NO_FIELDS))

    @pytest.mark.parametrize(
        ("event", "other"),
        [
            (Data(b"a"), Data(b"b")),
            (request(), request(b"b")),
            (response(), response(keep_alive=False)),
            (Trailers(NO_FIELDS), Trailers(Fields(b"A: 1\r\n"))),
            (Data(b"a"), END),
        ],
    )
    def test_events_of_other_content_differ(self, event: object, other: object) -> None:
        """Each part of an event counts in comparing it."""
        assert event != other

    @pytest.mark.parametrize("event", [request(), response(), Data(b"a"), END])
    def test_events_take_nothing_more(self, event: object) -> None:
        """An event has the attributes of its class and no others: events are made per message."""
        with pytest.raises(AttributeError):
            event.more = 1  # type: ignore[attr-defined]

    def test_text_has_all_parts(self) -> None:
        """A test that fails shows what was expected."""
        assert repr(Data(b"a")) == "Data(payload=b'a')"
        assert repr(request()).startswith("RequestHead(method=b'GET', target=b'/', minor_version=1, ")

    def test_end_names_itself(self) -> None:
        """The end of a message is one value, and readable."""
        assert isinstance(END, End)
        assert repr(END) == "END"

    def test_unions_name_every_event_of_their_direction(self) -> None:
        """What a codec of either role may return is listed."""
        assert set(events.RequestEvent.__args__) == {RequestHead, Data, Trailers, End}
        assert set(events.ResponseEvent.__args__) == {InterimHead, ResponseHead, Data, Trailers, End}
