"""`bench.inmemory`: every load is really served, by the program's own parts."""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator

import pytest

from bench import inmemory


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    """The command sets the garbage collector up as the program does."""
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()


class TestMain:
    @pytest.mark.parametrize("load", inmemory.LOADS)
    def test_every_load_is_answered_and_timed(self, load: str, capsys: pytest.CaptureFixture[str]) -> None:
        """A request that is not answered fails the measurement, so a figure means that all were."""
        assert inmemory.main(["--load", load, "--rounds", "2", "--measurements", "1"]) == 0
        shown = re.fullmatch(rf"{load}: ([0-9.]+) us per request\n", capsys.readouterr().out)
        assert shown is not None
        assert float(shown[1]) > 0


class TestWorld:
    def test_logged_load_writes_a_line_for_each(self) -> None:
        """What is called logged is."""
        world = inmemory.World("logged")
        world.measure(2)
        assert len(world._lines) == 2 * inmemory.CONNECTIONS
        assert all('"status":200' in line for line in world._lines)
