"""`sidecar.inject.mark`: how we know what is ours."""

from __future__ import annotations

import pytest

from sidecar.inject import mark
from sidecar.inject.prior import Prior
from sidecar.inject.tree import Branch, InjectError


class TestAnnotation:
    @pytest.mark.parametrize(
        "holder",
        [
            pytest.param({"spec": {}}, id="no-metadata"),
            pytest.param({"metadata": {"name": "a"}}, id="no-annotations"),
            pytest.param({"metadata": {"annotations": {"their": "x"}}}, id="annotations"),
            pytest.param({"metadata": {"annotations": {}}}, id="empty-annotations"),
        ],
    )
    def test_it_goes_without_a_trace(self, holder: Branch) -> None:
        """What is noted can be read, and then everything is as before."""
        before = repr(holder)
        mark.annotate(holder, {"port": 1}, Prior())
        noted = mark.annotation_of(holder)
        assert noted is not None
        assert noted["port"] == 1
        mark.take_annotation(holder, mark.prior_of(noted))
        assert repr(holder) == before

    def test_what_has_none_has_none(self) -> None:
        """An object of somebody else is not ours."""
        assert mark.annotation_of({"metadata": {"annotations": {"their": "x"}}}) is None

    @pytest.mark.parametrize("text", ["", "x", "[]", "1", "[" * 100_000])
    def test_changed_mark_is_refused(self, text: str) -> None:
        """A mark that was edited is not guessed at."""
        with pytest.raises(InjectError, match="its mark is not as it was written"):
            mark.read(text)
