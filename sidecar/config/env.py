"""Environment variables -> what was given for which setting. Handed a mapping; never looks at the process."""

from __future__ import annotations

import re
from collections.abc import Mapping

from sidecar.config.names import CONFIG_VARIABLE, ENVIRONMENT, ENVOY_VARIABLE, PREFIX, SEE_HELP, SETTINGS, Given
from sidecar.config.units import closest
from sidecar.errors import Problem

_NAMES = {setting.variable: setting.name for setting in SETTINGS.values()}

# Kubernetes gives every pod variables about each Service of its namespace ("service links"), and a Service that is
# named `sidecar` or `sidecar-…` makes them look like ours. NAME_PORT is a word people would write themselves, so it
# counts as a service link only with the value that Kubernetes gives it, a URL.
_SERVICE_LINK = re.compile(
    r"SIDECAR_(?:[A-Z0-9_]+_)??(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?|PORT_[0-9]+_[A-Z]+(?:_(?:PROTO|PORT|ADDR))?)"
)
_SERVICE_LINK_URL = re.compile(r"SIDECAR_(?:[A-Z0-9_]+_)??PORT=(?:tcp|udp|sctp)://.*", re.DOTALL)


def read(environ: Mapping[str, str]) -> tuple[dict[str, Given], list[Problem]]:
    """
    Settings given in *environ*, by name; and a problem for each ``SIDECAR_`` variable that is none.

    An empty variable is not set: compose files and task definitions pass those for what their author left out.
    """
    given: dict[str, Given] = {}
    problems: list[Problem] = []
    for variable, value in environ.items():
        if not variable.startswith(PREFIX) or variable in (CONFIG_VARIABLE, ENVOY_VARIABLE):
            continue
        if variable in _NAMES:
            if value.strip():
                given[_NAMES[variable]] = Given(value.strip(), variable, ENVIRONMENT)
        elif not _is_service_link(variable, value):
            problems.append(Problem(variable, ENVIRONMENT, "there is no such setting", _fix(variable)))
    return given, problems


def config_file(environ: Mapping[str, str]) -> Given | None:
    """The file that ``SIDECAR_CONFIG`` names, if it does."""
    path = environ.get(CONFIG_VARIABLE, "").strip()
    return Given(path, CONFIG_VARIABLE, ENVIRONMENT) if path else None


def envoy_file(environ: Mapping[str, str]) -> Given | None:
    """The file that ``SIDECAR_ENVOY`` names, if it does."""
    path = environ.get(ENVOY_VARIABLE, "").strip()
    return Given(path, ENVOY_VARIABLE, ENVIRONMENT) if path else None


def _fix(variable: str) -> str:
    # Compared without the prefix, which alone would make any two variables look alike.
    options = {option.removeprefix(PREFIX): option for option in (*_NAMES, CONFIG_VARIABLE, ENVOY_VARIABLE)}
    meant = closest(variable.removeprefix(PREFIX), options)
    return f"did you mean {options[meant]}?" if meant else SEE_HELP


def _is_service_link(variable: str, value: str) -> bool:
    return bool(_SERVICE_LINK.fullmatch(variable) or _SERVICE_LINK_URL.fullmatch(f"{variable}={value}"))
