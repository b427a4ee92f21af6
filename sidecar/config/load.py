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
from sidecar.values import Value


@attrs.frozen(eq=False, repr=False)
class Loaded(Value):
    """
    Settings, and where each comes from.

    Attributes:
        settings: The effective values.
        sources: Setting name -> ``flag``, ``environment``, ``FILE:LINE`` or ``default``. From `gather`, a setting
            whose value was refused is missing here and has its default in `settings`.
        places: What stands where inside the structured settings of a file: place, such as
            ``clusters[0].endpoints[1]`` -> ``FILE:LINE``.
        notes: What an Envoy bootstrap file has that is not carried over, or means something else here, a line each.
    """

    settings: Settings
    sources: Mapping[str, str]
    places: Mapping[str, str] = attrs.field(factory=dict)
    notes: tuple[str, ...] = ()

    def source_of(self, place: str) -> str:
        """Where *place* stands, or what it would be in; a place begins with the name of a structured setting."""
        while place not in self.places:
            outer = max(place.rfind("."), place.rfind("["))
            if outer < 0:
                return self.sources.get(place, DEFAULT)
            place = place[:outer]
        return self.places[place]


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
    from_file, notes, file_problems = _read_file(
        flags_.config_file(flags) or env.config_file(environ),
        flags_.envoy_file(flags) or env.envoy_file(environ),
        strict=flags_.is_strict(flags),
    )
    problems += file_problems
    settings, sources = Settings(), dict.fromkeys(SETTINGS, DEFAULT)
    places: dict[str, str] = {}
    for name, given in {**from_file, **from_environment, **flags_.read(flags)}.items():
        try:
            settings = SETTINGS[name].put(settings, SETTINGS[name].parse(given.text))
            sources[name] = given.source
            places.update(given.places)
        except UnitError as error:
            problems.append(Problem(given.written, given.source, error.fact, error.fix))
            del sources[name]
    return Loaded(settings, sources, places, notes), problems


def _read_file(
    file: Given | None, envoy: Given | None, *, strict: bool
) -> tuple[dict[str, Given], tuple[str, ...], list[Problem]]:
    if file is not None and envoy is not None:
        fact = f"{file.written} names a file of settings too, {file.text}"
        return {}, (), [Problem(envoy.written, envoy.source, fact, "give one of the two; other settings as variables")]
    if file is not None:
        from sidecar.config import yamlfile  # yaml costs time and memory at start

        found, problems = yamlfile.read(file)
        return found, (), problems
    if envoy is None:
        return {}, (), []
    return _read_envoy(envoy, strict)


def _read_envoy(file: Given, strict: bool) -> tuple[dict[str, Given], tuple[str, ...], list[Problem]]:
    from sidecar.config import yamlfile
    from sidecar.config.envoy import given, import_bootstrap

    try:
        content = yamlfile.content_of(file.text)
        imported = import_bootstrap(content, file.text, strict=strict)
    except UnitError as error:
        return {}, (), [Problem(file.written, file.source, error.fact, error.fix)]
    except ConfigError as error:
        return {}, (), list(error.problems)
    left_out = (f"{file.text}: not carried over: {item}" for item in imported.left_out)
    notes = (f"{file.text}: {note}" for note in imported.notes)
    return given(imported, file.text), (*left_out, *notes), []
