"""Command-line flags -> what was given for which setting, and the help that lists them. Values stay texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sidecar.config.names import (
    CONFIG_FLAG,
    CONFIG_HELP,
    CONFIG_VARIABLE,
    ENVOY_FLAG,
    ENVOY_HELP,
    ENVOY_VARIABLE,
    FLAG,
    SETTINGS,
    STRICT_FLAG,
    STRICT_HELP,
    Given,
    Setting,
    did_you_mean,
)
from sidecar.errors import Problem

if TYPE_CHECKING:
    import argparse

HELP = "help"
"""In the answer of `parse` if the operator asked for help."""

_HELP_FLAG = "--help"


def make_parser(usage: str, description: str) -> argparse.ArgumentParser:
    """A parser that knows every setting, in groups; it never exits by itself and takes no abbreviations."""
    import argparse  # most runs have no flags

    parser = argparse.ArgumentParser(
        prog="sidecar",
        usage=usage,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
        allow_abbrev=False,
        exit_on_error=False,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("-h", _HELP_FLAG, action="store_true", dest=HELP, help="show this and exit")
    parser.add_argument(CONFIG_FLAG, metavar="FILE", help=f"{CONFIG_HELP} [{CONFIG_VARIABLE}]")
    parser.add_argument(ENVOY_FLAG, metavar="FILE", help=f"{ENVOY_HELP} [{ENVOY_VARIABLE}]")
    parser.add_argument(STRICT_FLAG, action="store_true", help=STRICT_HELP)
    groups: dict[str, argparse._ArgumentGroup] = {}
    for setting in SETTINGS.values():
        if setting.group not in groups:
            groups[setting.group] = parser.add_argument_group(setting.group)
        groups[setting.group].add_argument(setting.flag, dest=setting.name, metavar="VALUE", help=_help(setting))
    return parser


def _help(setting: Setting) -> str:
    default = setting.text(setting.default) or "none"
    return f"{setting.help} [{setting.variable}, default {default}]".replace("%", "%%")


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> tuple[dict[str, str], list[Problem]]:
    """
    Flags given in *arguments*: setting name, ``config`` or ``help`` -> text; and a problem for each that is none.

    A flag given twice counts as given last, as everywhere: wrapper scripts append theirs.
    """
    import argparse

    try:
        namespace, unknown = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        flag = error.argument_name or "flags"
        fact, fix = f"{error.message}", f"write {flag.split('/')[-1]} VALUE, or see sidecar --help"
        return {}, [Problem(flag, FLAG, fact, fix)]
    return {name: str(value) for name, value in vars(namespace).items()}, _problems_of(unknown)


def _problems_of(unknown: Sequence[str]) -> list[Problem]:
    problems: list[Problem] = []
    is_value = False
    options = [setting.flag for setting in SETTINGS.values()] + [CONFIG_FLAG, ENVOY_FLAG, STRICT_FLAG, _HELP_FLAG]
    for argument in unknown:
        flag, has_value, _ = argument.partition("=")
        if argument.startswith("-"):
            fix = did_you_mean(flag, options)
            problems.append(Problem(flag, FLAG, "there is no such flag", fix))
        elif not is_value:
            problems.append(Problem(argument, "arguments", "only flags are expected here", "write --NAME VALUE"))
        is_value = argument.startswith("-") and not has_value
    return problems


def read(flags: Mapping[str, str]) -> dict[str, Given]:
    """Settings given in *flags*, by name; an empty value is as good as none given."""
    return {
        name: Given(flags[name].strip(), setting.flag, FLAG)
        for name, setting in SETTINGS.items()
        if flags.get(name, "").strip()
    }


def envoy_file(flags: Mapping[str, str]) -> Given | None:
    """The file that ``--envoy`` names, if it does."""
    path = flags.get("envoy", "").strip()
    return Given(path, ENVOY_FLAG, FLAG) if path else None


def is_strict(flags: Mapping[str, str]) -> bool:
    """Whether ``--strict`` is given."""
    return "strict" in flags


def config_file(flags: Mapping[str, str]) -> Given | None:
    """The file that ``--config`` names, if it does."""
    path = flags.get("config", "").strip()
    return Given(path, CONFIG_FLAG, FLAG) if path else None
