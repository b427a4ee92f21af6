"""`observe.histogram`: which bucket a duration falls into."""

from __future__ import annotations

import pytest

from sidecar.observe.histogram import BOUNDS, Histogram


class TestHistogram:
    @pytest.mark.parametrize("index", range(len(BOUNDS)), ids=[str(bound) for bound in BOUNDS])
    def test_bound_belongs_to_its_bucket(self, index: int) -> None:
        """Buckets say «less or equal»: a duration at the bound is in, one above it is in the next."""
        histogram = Histogram()
        histogram.add(BOUNDS[index])
        histogram.add(BOUNDS[index] * 1.0001)
        assert [at for at, count in enumerate(histogram.counts) if count] == [index, index + 1]

    @pytest.mark.parametrize("seconds", [0.0, -0.001], ids=["nothing", "a clock set back"])
    def test_least_is_in_the_first(self, seconds: float) -> None:
        """Whatever the clock says, a duration has a bucket."""
        histogram = Histogram()
        histogram.add(seconds)
        assert histogram.counts[0] == 1

    def test_longest_is_in_the_last(self) -> None:
        """Above all bounds there is one more."""
        histogram = Histogram()
        histogram.add(86_400.0)
        assert (histogram.counts[-1], histogram.sum) == (1, 86_400.0)

    def test_equal_by_what_was_added(self) -> None:
        """Metrics of two processes are compared, and a test that fails shows them."""
        one, other = Histogram(), Histogram()
        one.add(0.25)
        assert one not in (other, None)
        other.add(0.25)
        assert one == other == Histogram(list(one.counts), one.sum)
        assert repr(one) == f"Histogram({one.counts}, 0.25)"
