"""What a check has found, in words, and what that comes to as an exit status."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence

import attrs

from sidecar.errors import EXIT_CONFIG

EXIT_OK = 0
EXIT_WARNINGS = 1


class Severity(enum.Enum):
    """How bad a finding is, the worst first."""

    ERROR = "error"  # it does not work, or will not at the next start
    WARNING = "warning"  # it works, and somebody will regret it
    NOTE = "note"  # worth knowing; may be as it should be
    UNCHECKED = "unchecked"  # nobody knows, and the fact says why
    OK = "ok"


class Check(enum.Enum):
    """Every check by the name that output and docs/doctor.md have."""

    SETTINGS = "settings"
    ADMIN = "admin"
    SECRETS = "secrets"
    CERTIFICATE = "certificate"
    KEY = "key"
    PASSWORD = "password"  # noqa: S105 - the name of a check
    CHAIN = "chain"
    NAMES = "names"
    EXPIRY = "expiry"
    CLIENT_CA = "client-ca"
    CLIENT_CRL = "client-crl"
    UPSTREAM_CA = "upstream-ca"
    UPSTREAM_CERTIFICATE = "upstream-certificate"
    CLOCK = "clock"
    KEY_FILE = "key-file"
    MOUNT = "mount"
    PORT = "port"
    APP = "app"
    APP_EXPOSED = "app-exposed"
    BALANCER = "balancer"
    BALANCER_IDLE = "balancer-idle"
    STOP_TIMEOUT = "stop-timeout"
    USER = "user"
    CAPABILITIES = "capabilities"
    NO_NEW_PRIVILEGES = "no-new-privileges"
    SECCOMP = "seccomp"
    ROOT_FILESYSTEM = "root-filesystem"
    DESCRIPTORS = "descriptors"
    MEMORY = "memory"
    CPU = "cpu"
    RUNNING = "running"
    SERVED = "served"
    SAME_SETTINGS = "same-settings"
    MACHINE = "machine"


@attrs.frozen
class Finding:
    """
    One thing that was found.

    Attributes:
        fact: What is so, with value and limit, and what it leads to. May quote certificates and peers: whoever prints
            it has to escape it.
        fix: What to do; "" where there is nothing to do, or `fact` says it.
    """

    severity: Severity
    check: Check
    fact: str
    fix: str = ""


def error(check: Check, fact: str, fix: str) -> Finding:
    """Something that does not work."""
    return Finding(Severity.ERROR, check, fact, fix)


def warning(check: Check, fact: str, fix: str) -> Finding:
    """Something that works and will be regretted."""
    return Finding(Severity.WARNING, check, fact, fix)


def note(check: Check, fact: str, fix: str = "") -> Finding:
    """Something that may be as it should be."""
    return Finding(Severity.NOTE, check, fact, fix)


def unchecked(check: Check, fact: str, fix: str = "") -> Finding:
    """Something that was not looked at; *fact* says why, *fix* how it would be."""
    return Finding(Severity.UNCHECKED, check, fact, fix)


def ok(check: Check, fact: str) -> Finding:
    """Something that is as it should be."""
    return Finding(Severity.OK, check, fact)


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Sort by severity; within one, the order of the checks stays. What was found twice is told once."""
    order = list(Severity)
    return sorted(dict.fromkeys(findings), key=lambda finding: order.index(finding.severity))


def counts(findings: Sequence[Finding]) -> dict[Severity, int]:
    """How many there are of each severity."""
    return {severity: sum(finding.severity is severity for finding in findings) for severity in Severity}


def exit_status(findings: Iterable[Finding]) -> int:
    """Return 78 if there is an error, 1 if there is a warning, else 0."""
    found = {finding.severity for finding in findings}
    if Severity.ERROR in found:
        return EXIT_CONFIG
    return EXIT_WARNINGS if Severity.WARNING in found else EXIT_OK
