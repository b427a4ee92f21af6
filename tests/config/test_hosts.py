"""`sidecar.config.hosts`: which addresses are the same."""

from __future__ import annotations

import pytest

from sidecar.config.hosts import collide, is_local, reaches


class TestCollide:
    @pytest.mark.parametrize(
        ("one", "other", "expected"),
        [
            ("0.0.0.0", "127.0.0.1", True),
            ("::", "10.0.0.1", True),
            ("::", "0.0.0.0", True),
            ("localhost", "::1", True),
            ("NAME", "name", True),
            ("0.0.0.0", "::1", False),
            ("10.0.0.1", "127.0.0.1", False),
        ],
    )
    def test_two_listeners_need_hosts_that_do_not_overlap(self, one: str, other: str, expected: bool) -> None:
        """Wildcards take every address of their kind, whichever of the two is asked about first."""
        assert collide(one, other) is expected
        assert collide(other, one) is expected


class TestReaches:
    @pytest.mark.parametrize(
        ("target", "listener", "expected"),
        [
            ("127.9.9.9", "0.0.0.0", True),
            ("0.0.0.0", "127.0.0.1", True),
            ("::", "::1", True),
            ("localhost", "127.0.0.1", True),
            ("app", "app", True),
            ("10.0.0.2", "0.0.0.0", False),
            ("127.0.0.2", "127.0.0.1", False),
            ("::1", "0.0.0.0", False),
        ],
    )
    def test_only_what_is_sure_to_end_there_counts(self, target: str, listener: str, expected: bool) -> None:
        """An address that may be another machine's is not taken for ours."""
        assert reaches(target, listener) is expected


class TestIsLocal:
    @pytest.mark.parametrize(
        ("host", "expected"),
        [("127.0.0.2", True), ("::1", True), ("LocalHost", True), ("0.0.0.0", False), ("::", False), ("name", False)],
    )
    def test_loopback_is_local(self, host: str, expected: bool) -> None:
        """A name may be anything."""
        assert is_local(host) is expected
