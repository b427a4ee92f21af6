"""The program as its operator sees it before it serves: waiting for files, and saying for which."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import attrs

from sidecar.admin.operator import Certificates, Check, CheckState, Cluster, Connection, Readiness
from sidecar.config.load import Loaded
from sidecar.config.show import effective
from sidecar.observe import logs
from sidecar.observe.metrics import Dump, Metrics
from sidecar.settings import LogLevel


@attrs.define(kw_only=True, eq=False, repr=False)
class Waiting:
    """
    An `admin.operator.Operator`: alive, not ready, and with nothing else to tell.

    Attributes:
        paths: What is waited for.
        stop: Gives up.
        clock: The time, aware.
    """

    loaded: Loaded
    metrics: Metrics
    stop: Callable[[], None]
    clock: Callable[[], datetime]
    paths: Sequence[Path] = ()

    def readiness(self) -> Readiness:
        return Readiness((Check("start", CheckState.FAIL, self._text),))

    @property
    def _text(self) -> str:
        return f"waiting for {', '.join(map(str, self.paths))}"

    def certificates(self) -> Certificates:
        return Certificates(now=self.clock(), served=(), pem=b"")

    def config_lines(self) -> Sequence[str]:
        return effective(self.loaded.settings, self.loaded.sources)

    def connections(self) -> Iterable[Connection]:
        return ()

    def clusters(self) -> Sequence[Cluster]:
        return ()

    def rejections(self) -> list[dict[str, Any]]:
        return []

    def figures(self) -> Dump:
        return self.metrics.dump()

    def reload(self) -> Sequence[str]:
        return (self._text,)

    def drain(self) -> None:
        self.stop()

    def set_log_level(self, level: LogLevel) -> str:
        logs.set_level(level)
        return f"Logging from {level.value} upwards."
