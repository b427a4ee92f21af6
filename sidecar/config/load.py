"""Flags over environment over file over defaults: the texts an operator gave -> `Settings` and their sources."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from sidecar.config import env
from sidecar.config import flags as flags_
from sidecar.config.names import DEFAULT, SETTINGS, Given
from sidecar.config.units import UnitError
from sidecar.errors import ConfigError, Problem
from sidecar.settings import Settings


@attrs.frozen
class Loaded:
    """
    Settings, and where each comes from.

    Attributes:
        settings: The effective values.
        sources: Setting name -> ``flag``, ``environment``, ``FILE:LINE`` or ``default``. From `gather`, a setting
            whose value was refused is missing here and has its default in `settings`.
    """

    settings: Settings
    sources: Mapping[str, str]


def load(flags: Mapping[str, str], environ: Mapping[str, str]) -> Loaded:
    """
    Read the settings.

    Args:
        flags: Setting name (or ``config``) -> text, as `sidecar.config.flags.parse` gives them.
        environ: The environment; only ``SIDECAR_`` variables are looked at.

    Raises:
        ConfigError: With everything that is wrong in the three places.
    """
    loaded, problems = gather(flags, environ)
    if problems:
        raise ConfigError(problems)
    return loaded


def gather(flags: Mapping[str, str], environ: Mapping[str, str]) -> tuple[Loaded, list[Problem]]:
    """As `load`, but returns what could be read beside the problems, so that the cross-field checks can follow."""
    from_environment, problems = env.read(environ)
    from_file, file_problems = _read_file(flags_.config_file(flags) or env.config_file(environ))
    problems += file_problems
    settings, sources = Settings(), dict.fromkeys(SETTINGS, DEFAULT)
    for name, given in {**from_file, **from_environment, **flags_.read(flags)}.items():
        try:
            settings = SETTINGS[name].put(settings, SETTINGS[name].parse(given.text))
            sources[name] = given.source
        except UnitError as error:
            problems.append(Problem(given.written, given.source, error.fact, error.fix))
            del sources[name]
    return Loaded(settings, sources), problems


def _read_file(file: Given | None) -> tuple[dict[str, Given], list[Problem]]:
    if file is None:
        return {}, []
    from sidecar.config import yamlfile  # yaml costs time and memory at start

    return yamlfile.read(file)
