"""``python -m tests.fuzz``: fuzz for as long as is asked, or judge one input again."""

from __future__ import annotations

import argparse
import platform
import sys
import time

from tests.fuzz.inputs import AppFrameInput, FrameInput, HeaderInput, RequestInput, ResponseInput
from tests.fuzz.judging import judge
from tests.fuzz.loop import SEEDS, Fuzzer

REPORT_SECONDS = 30.0


def main(arguments: list[str]) -> int:
    """Run; return 1 if something failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long; 60 unless told")
    parser.add_argument("--seed", type=int, default=1, help="of all randomness; 1 unless told")
    parser.add_argument("--judge", metavar="INPUT", help="judge this one input, as a failure is reported")
    asked = parser.parse_args(arguments)
    if asked.judge is not None:
        print(judge(_parse(asked.judge)))
        return 0
    return _fuzz(asked.seconds, asked.seed)


def _parse(text: str) -> RequestInput:
    # It is the reader's own command line, so evaluating it gives nobody anything.
    kinds = (RequestInput, ResponseInput, HeaderInput, FrameInput, AppFrameInput)
    parsed = eval(text, {kind.__name__: kind for kind in kinds})
    assert isinstance(parsed, RequestInput), f"not an input: {text}"
    return parsed


def _fuzz(seconds: float, seed: int) -> int:
    until = time.monotonic() + seconds
    runs = {role: Fuzzer(seeds, seed) for role, seeds in SEEDS.items()}
    report_at = time.monotonic() + REPORT_SECONDS
    while (now := time.monotonic()) < until and not any(run.is_over for run in runs.values()):
        for run in runs.values():
            run.step()
        if now >= report_at:
            report_at += REPORT_SECONDS
            _report(runs)
    for run in runs.values():
        for failure in run.failures:
            print(failure, end="\n\n")
    print(f"{seconds:g} s, seed {seed}, Python {platform.python_version()}")
    _report(runs)
    return int(any(run.failures for run in runs.values()))


def _report(runs: dict[str, Fuzzer]) -> None:
    for name, run in runs.items():
        print(f"{name}: {run.summary()}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
