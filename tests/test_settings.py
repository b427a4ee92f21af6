"""`settings`: every setting is declared once, with all that is derived from it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
import pytest

from sidecar.settings import HostPort, Settings, Switch, UnixPath, Upstream


def all_fields(settings: Any) -> Iterator[tuple[attrs.Attribute[Any], Any]]:
    for field in attrs.fields(type(settings)):
        value = getattr(settings, field.name)
        if "name" in field.metadata:
            yield field, value
        else:
            yield from all_fields(value)


FIELDS = list(all_fields(Settings()))


class TestDeclarations:
    def test_names_are_unique(self) -> None:
        """Flags, variables and keys derive from them."""
        names = [field.metadata["name"] for field, _ in FIELDS]
        assert len(names) == len(set(names))
        assert all(name.isascii() and name == name.lower() and "-" not in name for name in names)

    @pytest.mark.parametrize(("field", "value"), FIELDS, ids=[field.metadata["name"] for field, _ in FIELDS])
    def test_each_has_help_and_a_default_within_its_bounds(self, field: attrs.Attribute[Any], value: Any) -> None:
        """A setting that is not given is valid, and says what it is for."""
        assert field.metadata["help"]
        bounds = field.metadata["bounds"]
        if bounds is not None:
            is_off = value is None or (value == 0 and field.metadata["zero_is_off"])
            assert is_off or bounds[0] <= value <= bounds[1]

    def test_documented_defaults_stay(self) -> None:
        """The public defaults are a promise."""
        defaults = {field.metadata["name"]: value for field, value in FIELDS}
        assert defaults["listen"] == HostPort("0.0.0.0", 443)
        assert defaults["upstream"] == Upstream((HostPort("127.0.0.1", 8080),))
        assert defaults["admin"] == HostPort("127.0.0.1", 8081)
        assert (defaults["handshake_timeout"], defaults["header_timeout"], defaults["idle_timeout"]) == (10, 10, 75)
        assert (defaults["connect_timeout"], defaults["upstream_timeout"], defaults["drain_timeout"]) == (2, 60, 20)
        assert (defaults["max_connections"], defaults["max_header_bytes"], defaults["max_headers"]) == (
            10_000,
            60 * 1024,
            100,
        )
        assert (defaults["http2"], defaults["http2_max_streams"]) == (Switch.ON, 100)
        assert (defaults["http2_stream_window"], defaults["http2_connection_window"]) == (64 * 1024, 1024 * 1024)

    def test_settings_are_immutable(self) -> None:
        """A reload makes new ones."""
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            Settings().listen = HostPort("127.0.0.1", 1)  # type: ignore[misc]


class TestAddresses:
    @pytest.mark.parametrize(
        ("address", "text"),
        [
            (HostPort("127.0.0.1", 80), "127.0.0.1:80"),
            (HostPort("::1", 80), "[::1]:80"),
            (HostPort("app.example", 80), "app.example:80"),
            (UnixPath("/run/app.sock"), "unix:/run/app.sock"),
            (Upstream((HostPort("a", 1), UnixPath("/b"))), "a:1,unix:/b"),
        ],
        ids=str,
    )
    def test_text_is_what_an_operator_writes(self, address: HostPort | UnixPath | Upstream, text: str) -> None:
        """So that it can be copied from the log."""
        assert str(address) == text
