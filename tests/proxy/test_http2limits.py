"""`proxy.http2limits`: what one HTTP/2 client may cost, by the settings."""

from __future__ import annotations

from typing import Any, TypeVar

import attrs
import pytest

from sidecar.config.names import SETTINGS, Setting
from sidecar.proxy.http2limits import limits_of
from sidecar.settings import ByteCount, Http2Settings, Limits, Settings
from sidecar.wire.h2limits import Allowance, Http2Limits

T = TypeVar("T")

ALLOWANCES = [
    field.name for field in attrs.fields(Http2Limits) if isinstance(getattr(Http2Limits(), field.name), Allowance)
]
OTHERS = ["streams", "stream_window", "connection_window", "continuations", "control_bytes"]
BOUNDED = [setting for setting in SETTINGS.values() if setting.path[0] == "http2" and setting.bounds is not None]


def changed(value: T, name: str, new: object) -> T:
    """*value* with another value in one of its fields."""
    fields: dict[str, Any] = {name: new}
    return attrs.evolve(value, **fields)  # type: ignore[misc]


class TestLimitsOf:
    def test_defaults_are_those_of_the_codec(self) -> None:
        """What the codec is tested with is what is served."""
        assert limits_of(Limits(), Http2Settings()) == Http2Limits()

    @pytest.mark.parametrize("name", ALLOWANCES)
    def test_half_the_frames_come_again_half_as_fast(self, name: str) -> None:
        """The rates of one kind follow its setting, and nothing else does."""
        usual = getattr(Http2Limits(), name)
        got = limits_of(Limits(), changed(Http2Settings(), name, usual.burst // 2))

        rates = (usual.per_second / 2, usual.per_answer / 2, usual.per_data_frame / 2, usual.per_data_byte / 2)
        assert got == changed(Http2Limits(), name, Allowance(usual.burst // 2, *rates, usual.saved // 2))

    @pytest.mark.parametrize("name", OTHERS)
    def test_other_limit_is_that_of_its_setting(self, name: str) -> None:
        """And nothing else changes."""
        value = getattr(Http2Limits(), name) * 2
        got = limits_of(Limits(), changed(Http2Settings(), name, value))

        assert got == changed(Http2Limits(), name, value)

    def test_heads_have_the_limits_of_http1(self) -> None:
        """A block as it is sent may be twice as long as its list."""
        got = limits_of(Limits(header_bytes=ByteCount(2000), headers=7), Http2Settings())

        assert got == attrs.evolve(Http2Limits(), header_list_bytes=2000, fields=7, block_bytes=4000)

    @pytest.mark.parametrize("end", [0, 1], ids=["least", "greatest"])
    @pytest.mark.parametrize("setting", BOUNDED, ids=lambda setting: setting.name)
    def test_bounds_of_each_setting_are_accepted(self, setting: Setting, end: int) -> None:
        """Nothing that may be set is refused by the codec, when a client comes."""
        assert setting.bounds is not None
        value = int(setting.bounds[end])
        got = getattr(limits_of(Limits(), setting.put(Settings(), value).http2), setting.path[-1])

        assert (got.burst if isinstance(got, Allowance) else got) == value
