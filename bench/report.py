"""The report of a run: facts, a table per mode, how to read it, what went wrong; as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import attrs

from bench.app import TRANSFER_BYTES
from bench.guard import render_guard
from bench.limits import Limits, Verdict, judge
from bench.peers import InstalledPeer
from bench.table import render_tables
from bench.turns import Run

HOW_TO_READ = """\
CPU is the time of all processes and threads of the proxy, divided by the work done; less is
better. Absolute times are not comparable between machines, nor between runs on a shared one;
ratios are, as far as their spread (min-max over the turns, each ratio taken within a turn) allows.
A ratio below 1 means less than the peer. Latency is that of a saturated proxy (closed loop); at a
fixed rate it counts from when a request was due (open loop).
`alone` counts file pages as if no other program on the machine shared them; PSS does not.
hitch and stunnel move bytes and do not look at HTTP; nor does any proxy in figures called relayed.
HTTP/2 is what the client speaks in figures that name it; the app hears HTTP/1.1, or HTTP/2 with gRPC."""


@attrs.frozen(kw_only=True)
class Report:
    """All that is shown of a run."""

    facts: Mapping[str, str]
    absent: Sequence[str]
    run: Run
    limits: Limits

    @property
    def is_bad(self) -> bool:
        """Return whether something could not be measured, or sidecar exceeds a limit."""
        return bool(self.run.record.failures) or any(verdict.is_exceeded for verdict in self.verdicts())

    def verdicts(self) -> list[Verdict]:
        """Return what became of the limits of the rows that were measured."""
        return judge(self.limits, self.run.plan.rows, self.run.record)

    def as_guard_text(self) -> str:
        """Return only the ratios that have a limit, and what went wrong."""
        record = self.run.record
        sections = [
            render_guard(self.verdicts(), record, self.limits.noise),
            _listed("Warnings", self._warnings()),
            _listed("Failed", record.failures),
        ]
        return "\n\n".join(section for section in sections if section) + "\n"

    def as_text(self) -> str:
        """Return the report as Markdown that is also made for a terminal."""
        record = self.run.record
        sections = [
            "\n".join(f"- {title}: {fact}" for title, fact in self._all_facts().items()),
            *render_tables(self.run.plan.rows, self._names(), record),
            _listed("Limits that sidecar is held to", [str(verdict) for verdict in self.verdicts()]),
            HOW_TO_READ,
            _listed("Left out, as they cannot do what is measured", self._left_out()),
            _listed("Warnings (values marked with `(!)`)", self._warnings()),
            _listed("Failed", record.failures),
        ]
        return "\n\n".join(section for section in sections if section) + "\n"

    def as_json(self) -> str:
        """Return every value of every turn, with the facts."""
        record = self.run.record
        content = {
            "facts": self._all_facts(),
            "turns": self.run.plan.turns,
            "effort": attrs.asdict(self.run.lab.effort),
            "measurements": [
                {"figure": key, "proxy": proxy, "turn": turn, "value": value}
                for (key, proxy), by_turn in record.values.items()
                for turn, value in by_turn.items()
            ],
            "limits": [
                {
                    "figure": verdict.figure.key,
                    "reference": verdict.limit.reference,
                    "measured": verdict.measured.median,
                    "bound": verdict.limit.bound,
                    "is_least": verdict.limit.is_least,
                    "is_exceeded": verdict.is_exceeded,
                }
                for verdict in self.verdicts()
            ],
            "warnings": self._warnings(),
            "failures": record.failures,
        }
        return json.dumps(content, indent=1) + "\n"

    def _warnings(self) -> list[str]:
        """Return the doubts about values; disturbed measurements in one line for all."""
        shares = self.run.record.foreign_shares
        if not shares:
            return self.run.record.warnings
        disturbed = (
            f"{len(shares)} measurements were disturbed by other programs, which used up to "
            f"{max(shares):.0%} of the two cores; run again on a quiet machine"
        )
        return [*self.run.record.warnings, disturbed]

    def _left_out(self) -> list[str]:
        """Return which rows were not measured on which proxies, and why."""
        here = self._names()
        return [
            f"{row.name}: {name} {why}"
            for row in self.run.plan.rows
            for name, why in row.left_out.items()
            if name in here
        ]

    def _names(self) -> list[str]:
        """Return the proxies in the order of the table."""
        return [peer.name for peer in self.run.plan.peers]

    def _all_facts(self) -> dict[str, str]:
        """Return the machine's facts and those of the proxies."""
        facts = dict(self.facts)
        facts["work per turn"] = self._describe_effort()
        for peer in self.run.plan.peers:
            facts[peer.name] = self._describe(peer)
        if self.absent:
            facts["not installed, left out"] = ", ".join(self.absent)
        return facts

    def _describe_effort(self) -> str:
        """Return how much was measured, turn by turn."""
        effort = self.run.lab.effort
        megabytes = TRANSFER_BYTES // 1_000_000
        return (
            f"{effort.wrk_seconds} s of wrk, {effort.connections:,} connections, {effort.requests:,} requests (mtls, "
            f"logged, HTTP/2, gRPC), {effort.transfers} x {megabytes} MB each way, {effort.paced_rate:,} requests/s "
            f"for {effort.paced_seconds} s (fixed rate), {'/'.join(f'{count:,}' for count in effort.open_connections)} "
            f"connections (open), {effort.slow_readers} slow readers; turns: {self.run.plan.turns}"
        )

    def _describe(self, peer: InstalledPeer) -> str:
        """Return a proxy's version and the cipher suite it chose."""
        return f"{peer.version}, {self.run.ciphers.get(peer.name, 'not measured')}"


def _listed(title: str, notes: Sequence[str]) -> str:
    """Return a titled list; empty without notes."""
    return "\n".join([f"{title}:", *(f"- {note}" for note in notes)]) if notes else ""
