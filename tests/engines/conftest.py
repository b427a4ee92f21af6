"""What the tests with container engines share: the engine, and the images that the checkout's files make."""

from __future__ import annotations

import pytest

from tests.support.engines import APP_IMAGE, IMAGE, docker, require_docker
from tests.support.program import ROOT


@pytest.fixture(scope="session")
def engine() -> None:
    """A Docker engine that runs."""
    require_docker()


@pytest.fixture(scope="session")
def image(engine: None) -> str:
    """The image, built from this checkout as a user builds it."""
    docker("build", "--quiet", "--tag", IMAGE, ROOT)
    return IMAGE


@pytest.fixture(scope="session")
def app_image(engine: None) -> str:
    """An app in an image: plain HTTP on 127.0.0.1:8080."""
    docker("build", "--quiet", "--tag", APP_IMAGE, ROOT / "examples" / "hello")
    return APP_IMAGE
