"""`sidecar.topology`: values that are complete by themselves."""

from __future__ import annotations

import attrs
import pytest

from sidecar import topology
from sidecar.settings import HostPort
from sidecar.topology import ClusterSpec, Endpoint, OutlierDetection, Route, RouteMatch, ToCluster

VALUES = [each for each in vars(topology).values() if isinstance(each, type) and attrs.has(each)]


class TestValues:
    @pytest.mark.parametrize("value", VALUES, ids=lambda value: value.__name__)
    def test_they_cannot_change(self, value: type) -> None:
        """What is served must not change under those who serve it."""
        assert value.__setattr__ is not object.__setattr__

    def test_equal_ones_are_equal(self) -> None:
        """A reload can tell what has changed."""
        cluster = ClusterSpec(name="app", endpoints=(Endpoint(address=HostPort("127.0.0.1", 8080)),))
        assert cluster == attrs.evolve(cluster)
        assert cluster != attrs.evolve(cluster, panic_threshold=0)

    def test_small_form_needs_nothing_but_names(self) -> None:
        """A route to a cluster takes every request, and a single failure speaks against nobody."""
        route = Route(name="all", match=RouteMatch(), action=ToCluster(cluster="app"))
        assert (route.match.path, route.match.methods, route.match.headers) == ("/", (), ())
        assert OutlierDetection().consecutive_failures > 1
