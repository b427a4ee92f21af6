"""`sidecar.doctor.platforms`: which platform it is, by what that leaves behind."""

from __future__ import annotations

import pytest

from sidecar.doctor.platforms import GRACE_SECONDS, GRACE_SETTING, Platform, platform_of


class TestPlatformOf:
    @pytest.mark.parametrize(
        ("environ", "files", "platform"),
        [
            pytest.param({"ECS_CONTAINER_METADATA_URI_V4": "http://x"}, ["/.dockerenv"], Platform.ECS, id="ecs"),
            pytest.param({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, [], Platform.KUBERNETES, id="kubernetes"),
            pytest.param({"container": "podman"}, [], Platform.PODMAN, id="podman"),
            pytest.param({}, ["/run/.containerenv"], Platform.PODMAN, id="podman-file"),
            pytest.param({}, ["/.dockerenv"], Platform.DOCKER, id="docker"),
            pytest.param({"container": "lxc"}, [], Platform.CONTAINER, id="another"),
            pytest.param({"container": ""}, [], Platform.HOST, id="none"),
        ],
    )
    def test_platform_is_told_by_its_marks(self, environ: dict[str, str], files: list[str], platform: Platform) -> None:
        """ECS and Kubernetes go before the engine that they use."""
        assert platform_of(environ, files.__contains__) is platform


class TestGrace:
    def test_each_default_can_be_changed_somewhere(self) -> None:
        """Whoever is told of a default is told where it is set."""
        assert set(GRACE_SECONDS) == set(GRACE_SETTING)
