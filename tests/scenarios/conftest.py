"""
What the scenarios share: an app, a sidecar in front of it, and a way to start further ones.

Everything that is started is ended here, also when a test fails.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.apps import App
from tests.support.program import Program

TOOLS = frozenset({"certutil", "chromium", "curl", "openssl", "pk12util"})
"""Programs of the machine that scenarios use as clients."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, object, object]:
    """Skip a test that needs a program which is missing, unless TESTS_REQUIRE_TOOLS is set: then it fails."""
    try:
        return (yield)
    except FileNotFoundError as error:
        if error.filename in TOOLS and not os.environ.get("TESTS_REQUIRE_TOOLS"):
            pytest.skip(f"the program {error.filename} is not installed")
        raise


pytest_runtest_setup = pytest_runtest_call  # a fixture may need it too


@pytest.fixture(scope="module")
def app() -> Iterator[App]:
    """The app of the module."""
    with App() as running:
        yield running


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    """The settings of the module's sidecar; modules override this."""
    return {}


@pytest.fixture(scope="module")
def program(app: App, settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """The sidecar of the module, in front of its app. At its end it must have logged no traceback, and exit with 0."""
    with Program(tmp_path_factory.mktemp("sidecar"), **{"upstream": app.upstream, **settings}) as running:
        yield running


Launch = Callable[..., Program]


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    """Start a sidecar for one test, wait until it is ready, and judge it at the end; arguments as of `Program`."""
    with ExitStack() as stack:
        count = 0

        def start(**settings: Any) -> Program:
            nonlocal count
            count += 1
            return stack.enter_context(Program(tmp_path / f"sidecar-{count}", **settings))

        yield start


@pytest.fixture
def own_app() -> Iterator[App]:
    """An app for one test, whose counts start at zero and whose gate is shut."""
    with App() as running:
        yield running
