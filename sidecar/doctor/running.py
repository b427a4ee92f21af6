"""What the running program says of itself on its admin page, and whether that is what the settings and files say."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cryptography.hazmat.primitives import hashes

from sidecar.certs.certificates import called, date
from sidecar.config.load import Loaded
from sidecar.config.show import effective
from sidecar.doctor.findings import Check, Finding, error, note, ok, unchecked, warning
from sidecar.doctor.material import Own

_MOST_NAMED = 8


def is_ours(ready: bytes) -> bool:
    """Whether *ready*, the body of /ready, is an answer of this program."""
    page = _object(ready)
    return isinstance(page.get("ready"), bool) and isinstance(page.get("reasons"), list)


def readiness(ready: bytes) -> Iterator[Finding]:
    """Pass on what /ready?verbose says, of a health page the names of what failed; nothing of an empty one."""
    page = _object(ready)
    if not page:
        return
    reasons = _texts(page.get("reasons"))
    for reason in reasons:
        yield error(Check.RUNNING, f"the running program is not ready: {reason}", "mend that; /ready tells when it is")
    for text in _texts(page.get("warnings")):
        yield warning(Check.RUNNING, f"the running program warns: {text}", "see its log")
    if not reasons:
        yield ok(Check.RUNNING, "the program runs, and is ready")


def served(certs: bytes, servers: Sequence[Own]) -> Iterator[Finding]:
    """
    Compare the certificates that are served with those in the files.

    Args:
        certs: The body of /certs.
        servers: As the settings name them.
    """
    page = _object(certs).get("certificates")
    listed = [each for each in page if isinstance(each, dict)] if isinstance(page, list) else []
    prints = {str(each.get("source")): str(each.get("sha256")) for each in listed}
    ends = {str(each.get("source")): str(each.get("not_after")) for each in listed}
    for own in servers:
        if own.source not in prints:
            yield unchecked(Check.SERVED, f"the running program was not given {own.source}")
        elif prints[own.source] == own.leaf.fingerprint(hashes.SHA256()).hex():
            yield ok(Check.SERVED, f"{own.source} is what is served")
        else:
            fact = f"{own.source} holds {called(own.leaf)}, valid until {date(own.leaf.not_valid_after_utc)}"
            fact += f", and served is another, valid until {ends[own.source]}"
            fix = "see why in the log, or ask for it: curl -X POST http://127.0.0.1:8081/reload; look at subPath mounts"
            yield error(Check.SERVED, fact, fix)


def differing(config: bytes, loaded: Loaded) -> tuple[str, ...]:
    """
    Name the settings that have other values in force than the doctor was given: for those it looks at something else.

    Args:
        config: The body of /config.
        loaded: What the doctor reads.
    """
    theirs, ours = (
        _values(config.decode("utf-8", "replace").splitlines()),
        _values(effective(loaded.settings, loaded.sources)),
    )
    return tuple(name for name in ours if name in theirs and theirs[name] != ours[name])


def same_settings(names: Sequence[str]) -> Finding:
    """Say whether the settings are the same; *names* are those that differ."""
    if not names:
        return ok(Check.SAME_SETTINGS, "the settings here are those of the running program")
    listed = ", ".join(names[:_MOST_NAMED]) + (", …" if names[_MOST_NAMED:] else "")
    fact = f"the running program has other settings than this command: {listed}"
    fix = "give the doctor the flags and variables that `run` has; if they were changed since, reload or restart"
    return note(Check.SAME_SETTINGS, fact, fix)


def _values(lines: Sequence[str]) -> dict[str, str]:
    """Name -> value of lines such as ``name: value  # source``."""
    pairs = (line.rpartition("  # ")[0].partition(": ") for line in lines)
    return {name: value.strip() for name, _, value in pairs if name}


def _object(body: bytes) -> Mapping[str, Any]:
    """Read a JSON object; an empty one if it is none: whatever answers there may be anybody."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _texts(value: object) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else []
