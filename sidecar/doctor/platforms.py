"""Where the program runs, as far as its surroundings tell, and what that place does by default."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Final


class Platform(enum.Enum):
    """What started us."""

    ECS = "ECS"
    KUBERNETES = "Kubernetes"
    DOCKER = "Docker"
    PODMAN = "podman"
    CONTAINER = "a container"
    HOST = "no container"


GRACE_SECONDS: Final = {Platform.ECS: 30.0, Platform.KUBERNETES: 30.0, Platform.DOCKER: 10.0, Platform.PODMAN: 10.0}
"""From SIGTERM to SIGKILL unless told otherwise."""

GRACE_SETTING: Final = {
    Platform.ECS: "stopTimeout of the container",
    Platform.KUBERNETES: "terminationGracePeriodSeconds of the pod",
    Platform.DOCKER: "stop_grace_period in compose.yaml, or docker stop -t",
    Platform.PODMAN: "podman stop -t",
}
"""Where that is told."""


def platform_of(environ: Mapping[str, str], exists: Callable[[str], bool]) -> Platform:
    """
    Tell the platform.

    Args:
        environ: Of the container: Kubernetes and ECS leave variables there, podman and others name themselves.
        exists: Whether a file is there: Docker and podman leave one.
    """
    if "ECS_CONTAINER_METADATA_URI_V4" in environ:
        return Platform.ECS
    if "KUBERNETES_SERVICE_HOST" in environ:
        return Platform.KUBERNETES
    if environ.get("container") == "podman" or exists("/run/.containerenv"):
        return Platform.PODMAN
    if exists("/.dockerenv"):
        return Platform.DOCKER
    return Platform.CONTAINER if environ.get("container") else Platform.HOST
