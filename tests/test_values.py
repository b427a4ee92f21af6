"""`values`: what attrs would have generated."""

from __future__ import annotations

import attrs
import pytest

from sidecar.values import Value


@attrs.frozen(eq=False, repr=False)
class Pair(Value):
    left: int
    right: str = attrs.field(default="", repr=False)
    note: str = attrs.field(default="", eq=False)


@attrs.frozen(eq=False, repr=False)
class Other(Value):
    left: int
    right: str = ""


@attrs.frozen
class Generated:
    left: int
    right: str = attrs.field(default="", repr=False)
    note: str = attrs.field(default="", eq=False)


class TestValue:
    @pytest.mark.parametrize(
        ("other", "is_equal"),
        [
            pytest.param(Pair(1, "a"), True, id="same fields"),
            pytest.param(Pair(1, "a", note="b"), True, id="a field that does not count"),
            pytest.param(Pair(1, "b"), False, id="another field"),
            pytest.param(Other(1, "a"), False, id="another class"),
            pytest.param((1, "a"), False, id="no value at all"),
        ],
    )
    def test_two_values_are_equal_if_class_and_fields_are(self, other: object, is_equal: bool) -> None:
        """Fields are compared that attrs would compare, of one class."""
        assert (Pair(1, "a") == other) is is_equal

    def test_equal_values_are_one_key(self) -> None:
        """What is equal has one hash; the same fields in another class are another key."""
        assert len({Pair(1, "a"), Pair(1, "a", note="b"), Other(1, "a")}) == 2

    def test_text_is_that_of_attrs(self) -> None:
        """Fields that are never shown are not, such as key material."""
        assert repr(Pair(1, "secret", note="b")) == repr(Generated(1, "secret", note="b")).replace("Generated", "Pair")

    def test_values_stay_frozen_and_small(self) -> None:
        """The base takes neither slots nor immutability away."""
        assert not hasattr(Pair(1), "__dict__")
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            Pair(1).left = 2  # type: ignore[misc]
