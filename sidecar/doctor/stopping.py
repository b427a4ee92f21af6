"""Whether the program can finish what is in flight before it is killed."""

from __future__ import annotations

from sidecar.config.load import Loaded
from sidecar.config.units import duration_text
from sidecar.doctor.configured import written
from sidecar.doctor.findings import Check, Finding, note, ok, unchecked, warning
from sidecar.doctor.platforms import GRACE_SECONDS, GRACE_SETTING, Platform
from sidecar.settings import Seconds

CERTAIN = (Platform.ECS, Platform.KUBERNETES)
"""
Where warning on the default is worth it: manifests are written for them, and 30 s are enough for our own default. What
`docker stop` and compose do is decided anew by whoever types it.
"""


def stop_timeout(loaded: Loaded, platform: Platform, told: float | None) -> Finding:
    """
    Compare the time to drain with the time until SIGKILL.

    Args:
        loaded: The settings.
        platform: Whose default holds.
        told: Seconds from SIGTERM to SIGKILL, if the operator says; None: that default.
    """
    drain = loaded.settings.timeouts.drain
    grace = GRACE_SECONDS.get(platform) if told is None else told
    if grace is None:
        fact = "how long after SIGTERM the program is killed is not known here"
        return unchecked(Check.STOP_TIMEOUT, fact, "say so with --stop-timeout 30s")
    who = "as --stop-timeout says" if told is not None else f"the default of {platform.value}"
    ours, theirs = duration_text(drain), duration_text(Seconds(grace))
    what = written(loaded, "drain_timeout")
    fact = f"{what}: {ours} to finish requests, and SIGKILL comes {theirs} after SIGTERM ({who})"
    if drain < grace:
        return ok(Check.STOP_TIMEOUT, fact)
    where = GRACE_SETTING.get(platform, "what stops the program")
    fix = f"set SIDECAR_DRAIN_TIMEOUT below {theirs}, or {where} above {ours}"
    if told is None:
        fix += " (then say --stop-timeout)"
    judge = warning if told is not None or platform in CERTAIN else note
    return judge(Check.STOP_TIMEOUT, fact, fix)
