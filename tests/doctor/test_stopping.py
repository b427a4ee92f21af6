"""`sidecar.doctor.stopping`: time to finish requests before SIGKILL."""

from __future__ import annotations

import pytest

from sidecar.doctor.findings import Check, Severity
from sidecar.doctor.platforms import Platform
from sidecar.doctor.stopping import stop_timeout
from tests.doctor.settled import only, settled


class TestStopTimeout:
    @pytest.mark.parametrize(
        ("platform", "told", "drain", "severity"),
        [
            pytest.param(Platform.ECS, None, "20s", Severity.OK, id="ecs"),
            pytest.param(Platform.ECS, None, "30s", Severity.WARNING, id="ecs-as-long"),
            pytest.param(Platform.KUBERNETES, None, "29s", Severity.OK, id="kubernetes"),
            pytest.param(Platform.DOCKER, None, "20s", Severity.NOTE, id="docker"),
            pytest.param(Platform.DOCKER, None, "9s", Severity.OK, id="docker-shorter"),
            pytest.param(Platform.DOCKER, 20.0, "20s", Severity.WARNING, id="docker-told"),
            pytest.param(Platform.KUBERNETES, 60.0, "50s", Severity.OK, id="kubernetes-told"),
            pytest.param(Platform.HOST, None, "20s", Severity.UNCHECKED, id="nobody-knows"),
            pytest.param(Platform.HOST, 90.0, "20s", Severity.OK, id="host-told"),
        ],
    )
    def test_drain_must_end_before_sigkill(
        self, platform: Platform, told: float | None, drain: str, severity: Severity
    ) -> None:
        """What is only the default of `docker stop` is no reason for a warning."""
        only([stop_timeout(settled(drain_timeout=drain), platform, told)], severity, Check.STOP_TIMEOUT)

    def test_text_says_whose_time_it_is(self) -> None:
        """A default can be changed elsewhere, so it is named, and where."""
        finding = stop_timeout(settled(drain_timeout="1m"), Platform.ECS, None)
        assert "the default of ECS" in finding.fact
        assert "stopTimeout" in finding.fix
        assert "--stop-timeout" in finding.fix
