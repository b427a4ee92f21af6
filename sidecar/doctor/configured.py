"""The settings themselves: what `sidecar check` reports without their files, and where secrets are written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from sidecar.certs.sources import may_be_secret
from sidecar.config import env, flags, hosts
from sidecar.config.check import check, warnings
from sidecar.config.load import Loaded, gather
from sidecar.config.names import DEFAULT, ENVIRONMENT, FLAG, SETTINGS
from sidecar.doctor import patience
from sidecar.doctor.findings import Check, Finding, error, note, ok, warning
from sidecar.errors import Problem
from sidecar.settings import Inline, Settings

JUDGED_HERE = ("admin", "drain_timeout")
"""Settings whose warnings other checks of the doctor give, with more knowledge."""


def written(loaded: Loaded, name: str) -> str:
    """A setting, as messages call it: ``SIDECAR_LISTEN (environment)``; or a place in the file."""
    source = loaded.source_of(name)
    return f"{SETTINGS[name].written_in(source) if name in SETTINGS else name} ({source})"


def gather_in_time(given: Mapping[str, str], environ: Mapping[str, str]) -> tuple[Loaded, list[Problem]]:
    """
    As `gather`; a file of settings that nobody answers for is a problem, and then nothing is known of the settings.

    Args:
        given: Flags.
        environ: The environment.
    """
    file = flags.config_file(given) or env.config_file(environ) or flags.envoy_file(given) or env.envoy_file(environ)
    if file is None:
        return gather(given, environ)
    try:
        return patience.within(patience.FILE_SECONDS, lambda: gather(given, environ))
    except TimeoutError:
        shown = "the file" if may_be_secret(file.text) else file.text
        fact = f"{shown} could not be read within {patience.FILE_SECONDS:g} s"
        fix = "look whether the server behind its volume is alive, or what writes to it if it is a pipe"
        return Loaded(Settings(), {}), [Problem(file.written, file.source, fact, fix)]


def settings(loaded: Loaded, problems: Sequence[Problem], now: datetime, *, knows_balancer: bool) -> list[Finding]:
    """
    Report what is wrong with the settings by themselves.

    Args:
        loaded: What could be read of them.
        problems: What could not.
        now: Aware.
        knows_balancer: `balancer` judges the idle timeout.
    """
    wrong = [*problems, *check(loaded, now, with_material=False)]
    found = [error(Check.SETTINGS, f"{_named(each)} ({each.source}): {each.fact}", each.fix) for each in wrong]
    if not wrong:
        found.append(ok(Check.SETTINGS, "every setting can be read, and they fit each other"))
        left_out = (*JUDGED_HERE, *(["idle_timeout"] if knows_balancer else []))
        beginnings = tuple(f"{written(loaded, name)}: " for name in left_out)
        texts = [text for text in warnings(loaded) if not text.startswith(beginnings)]
        found += [warning(Check.SETTINGS, text, "change it, if it is not meant") for text in texts]
    found += [note(Check.SETTINGS, text) for text in loaded.notes]
    return found


def _named(problem: Problem) -> str:
    return "an argument that may be key material" if may_be_secret(problem.setting) else problem.setting


def admin(loaded: Loaded) -> Iterator[Finding]:
    """Say who can reach the admin listener, which has no authentication."""
    address = loaded.settings.admin
    if address is None or "admin" not in loaded.sources:
        return
    if hosts.is_local(address.host):
        yield ok(Check.ADMIN, f"the admin listener, {address}, is for this machine, pod or task only")
        return
    fact = f"{written(loaded, 'admin')}: {address} has no authentication, and whoever reaches it can stop the program"
    yield warning(Check.ADMIN, fact, "listen on 127.0.0.1, and give probes SIDECAR_HEALTH")


def secrets(loaded: Loaded) -> Iterator[Finding]:
    """Say which secrets stand where others can read them; never what they are."""
    for name in _secret_values(loaded.settings):
        source = loaded.sources.get(name, DEFAULT)
        if source == FLAG:
            fact = f"{written(loaded, name)} is a secret on the command line, where `ps` shows it to every user"
            yield warning(Check.SECRETS, fact, f"give it as the variable {SETTINGS[name].variable}, or as a file")
        elif source == ENVIRONMENT:
            fact = f"{written(loaded, name)} is a secret in a variable: whoever may inspect the container can read it"
            fix = "mount it as a file if that is possible; on ECS give it under `secrets`, never under `environment`"
            yield note(Check.SECRETS, fact, fix)


def _secret_values(settings: Settings) -> Iterator[str]:
    """Settings that hold a secret themselves; a certificate's value does if its key is nowhere else."""
    tls, app = settings.tls, settings.app
    for name, certs, keys in (
        ("tls", tls.cert, tls.key),
        ("upstream", (app.cert,) if app.cert else (), (app.key,) if app.key else ()),
    ):
        if any(isinstance(source, Inline) for source in keys):
            yield f"{name}_key"
        elif not keys and any(isinstance(source, Inline) for source in certs):
            yield f"{name}_cert"
    if tls.key_password is not None and isinstance(tls.key_password.source, Inline):
        yield "tls_key_password"
