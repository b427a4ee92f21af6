"""
``python -m tests.conformance``: print what each proxy does with every input.

With ids as arguments («*» stands for anything) it prints those, byte for byte: what was sent, and what reached the
origin.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.conformance import differences, matrix, proxies
from tests.conformance.corpus import INPUTS
from tests.conformance.lab import Verdict

_SHOWN_BYTES = 400


def main(patterns: list[str]) -> int:
    """Print the matrix, or all about the inputs that *patterns* name; return the exit status."""
    ids = [
        input_id for input_id in INPUTS if any(differences.matches(pattern, input_id) for pattern in patterns or ["*"])
    ]
    if not ids:
        print("no input has such an id", file=sys.stderr)
        return 2
    found = {name: proxies.find(name) for name in proxies.PEER_NAMES}
    for name, peer in found.items():
        print(f"{name} {peer.version}" if peer else f"{name} is not installed")
    programs = {"sidecar": ""} | {name: peer.program for name, peer in found.items() if peer}
    with tempfile.TemporaryDirectory() as directory:
        results = matrix.run(programs, {input_id: matrix.whole(INPUTS[input_id]) for input_id in ids}, Path(directory))
    if patterns:
        _print_details(ids, results)
    else:
        _print_matrix(ids, results)
    return 0


def _print_matrix(ids: list[str], results: matrix.Matrix) -> None:
    """One line per input; a star where the proxies differ, two where `differences.md` has no row for it."""
    table = differences.read(differences.FILE.read_text())
    widest = max(map(len, ids))
    print(f"\n   {'':{widest}}" + "".join(f"  {name:28}" for name in results))
    for input_id in ids:
        words = {name: matrix.word(results[name][input_id], INPUTS[input_id]) for name in results}
        is_alike = len(set(words.values())) == 1
        star = "" if is_alike else "*" if table.rows_for(input_id) else "**"
        cells = (f"  {_with_status(words[name], results[name][input_id]):28}" for name in results)
        print(f"{star:2} {input_id:{widest}}" + "".join(cells).rstrip())


def _with_status(word: str, verdict: Verdict) -> str:
    """Add the status of a refusal; a reset may have swallowed it."""
    refusal = next((status for status in verdict.statuses if status >= 400), None)
    return word if refusal is None else f"{word} {refusal}"


def _print_details(ids: list[str], results: Mapping[str, Mapping[str, Verdict]]) -> None:
    for input_id in ids:
        print(f"\n{input_id}\n    {'sent':12}{_shown(INPUTS[input_id])}")
        for name in results:
            verdict = results[name][input_id]
            closed = ", then it closed" if verdict.is_closed else ""
            print(f"  {name}: {matrix.word(verdict, INPUTS[input_id])}; answers {list(verdict.statuses)}{closed}")
            for request in verdict.seen.requests:
                print(f"    {'request':12}{_shown(request.raw)}")
            for data in verdict.seen.unfinished:
                print(f"    {'unfinished':12}{_shown(data)}")
            for data in verdict.seen.malformed:
                print(f"    {'malformed':12}{_shown(data)}")


def _shown(data: bytes) -> str:
    rest = f" … {len(data):,} bytes" if len(data) > _SHOWN_BYTES else ""
    return f"{data[:_SHOWN_BYTES]!r}{rest}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
