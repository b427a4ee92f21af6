"""The loop: breed an input, judge it, keep it if it did something new."""

from __future__ import annotations

import random
import shlex
import time
import traceback
from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from tests.fuzz.inputs import APP_FRAME_SEEDS, FRAME_SEEDS, HEADER_SEEDS, REQUEST_SEEDS, RESPONSE_SEEDS, RequestInput
from tests.fuzz.judging import Signature, judge
from tests.fuzz.mutation import Mutator

SEEDS: Final[Mapping[str, Sequence[RequestInput]]] = {
    "requests": REQUEST_SEEDS,
    "responses": RESPONSE_SEEDS,
    "headers": HEADER_SEEDS,
    "frames": FRAME_SEEDS,
    "app frames": APP_FRAME_SEEDS,
}
"""What can be fuzzed, and what it starts from."""

SLOW_SECONDS: Final = 2.0
"""CPU time after which an input is a failure: the longest that are bred take a quarter of a second."""

MAX_FAILURES: Final = 20
"""Different ones; then the reader has enough to do."""


@attrs.frozen
class Failure:
    """
    An input for which a rule does not hold.

    Attributes:
        what: The rule, or the exception, and where.
        seed, execution: Of the run that found it.
    """

    input: RequestInput
    what: str
    seed: int
    execution: int

    def __str__(self) -> str:
        return (
            f"{self.what}\n  seed {self.seed}, execution {self.execution:,}; to see it again:\n"
            f"  python -m tests.fuzz --judge {shlex.quote(str(self.input))}"
        )


@attrs.define
class Fuzzer:
    """
    One run.

    Attributes:
        corpus: The seeds, and what was kept.
        executions: Inputs judged so far.
        failures: One of each kind, the shortest that was met.
        slowest_seconds: CPU time that the slowest input took.
    """

    seeds: Sequence[RequestInput]
    seed: int
    corpus: list[RequestInput] = attrs.field(init=False)
    executions: int = attrs.field(init=False, default=0)
    slowest_seconds: float = attrs.field(init=False, default=0.0)
    _signatures: set[Signature] = attrs.field(init=False, factory=set)
    _failures: dict[str, Failure] = attrs.field(init=False, factory=dict)
    _mutator: Mutator = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._mutator = Mutator(random.Random(self.seed))
        self.corpus = list(self.seeds)

    def step(self) -> None:
        """Judge the next seed, or, after the last one, breed an input and judge that."""
        if self.executions < len(self.seeds):
            self._judge(self.seeds[self.executions])
            return
        child = self._mutator.child(self._mutator.choose(self.corpus), self.corpus)
        if self._judge(child):
            self.corpus.append(child)

    @property
    def failures(self) -> list[Failure]:
        return list(self._failures.values())

    @property
    def is_over(self) -> bool:
        """Whether it has failed in so many ways that there is no point in going on."""
        return len(self._failures) >= MAX_FAILURES

    def summary(self) -> str:
        """The figures of the run so far, in one line."""
        return (
            f"{self.executions:,} executions, corpus {len(self.corpus):,}, {len(self._signatures):,} signatures, "
            f"slowest {self.slowest_seconds * 1000:.0f} ms, {len(self._failures)} failures"
        )

    def _judge(self, input: RequestInput) -> bool:
        """Judge *input*; return whether it did something new, and nothing wrong."""
        self.executions += 1
        started_at = time.process_time()
        try:
            signature = judge(input)
        except Exception as error:
            self._failed(input, _describe(error))
            return False
        took = time.process_time() - started_at
        self.slowest_seconds = max(self.slowest_seconds, took)
        if took > SLOW_SECONDS:
            self._failed(input, f"it takes over {SLOW_SECONDS:g} s")
        is_new = signature not in self._signatures
        self._signatures.add(signature)
        return is_new

    def _failed(self, input: RequestInput, what: str) -> None:
        known = self._failures.get(what)
        if known is None or len(input.data) < len(known.input.data):
            self._failures[what] = Failure(input, what, self.seed, self.executions)


def _describe(error: Exception) -> str:
    """Name an exception and the line that raised it: failures of one kind are reported once."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    text = str(error).partition("\n")[0].partition(":")[0]
    return f"{type(error).__name__}: {text} ({last.name}, line {last.lineno})"
