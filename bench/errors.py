"""What can go wrong in a benchmark run; each message is shown to the person who started it."""

from __future__ import annotations


class BenchError(Exception):
    """Base of all errors of the benchmark; its text is a complete sentence for the report."""


class CannotRunError(BenchError):
    """The benchmark itself cannot run here: a tool is missing, or there are too few cores."""


class StartError(BenchError):
    """A process did not start, did not listen in time, or answered wrongly; ends with its log."""


class MeasurementError(BenchError):
    """A figure could not be taken: errors under load, wrong answers, or no answer in time."""
