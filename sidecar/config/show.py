"""Settings as text: the effective ones with their sources, and the table for the README."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from sidecar.config.names import CONFIG_HELP, CONFIG_VARIABLE, SETTINGS, Setting

# What YAML reads as the text that stands there: no indicator, no blank, no colon at the end, no null.
_PLAIN = re.compile(r"(?!null$)[A-Za-z0-9/.][A-Za-z0-9/._:,+-]*(?<!:)", re.ASCII | re.IGNORECASE)


def effective(root: Any, sources: Mapping[str, str], settings: Mapping[str, Setting] = SETTINGS) -> list[str]:
    """
    One aligned line ``name: value  # source`` per setting, secrets masked.

    The lines are a YAML file that means the same settings, as long as none is secret.

    Args:
        root: The settings object that *settings* was derived from.
        sources: Setting name -> source.
        settings: The registry.
    """
    pairs = [
        (f"{name}: {_scalar(setting.text(setting.of(root)))}", sources[name]) for name, setting in settings.items()
    ]
    width = max(len(pair) for pair, _ in pairs)
    return [f"{pair:<{width}}  # {_comment(source)}" for pair, source in pairs]


def markdown_table() -> str:
    """The table of settings for the README: variable, default, meaning; ends with a newline."""
    rows = [(setting.variable, setting.text(setting.default) or "none", setting.help) for setting in SETTINGS.values()]
    rows.append((CONFIG_VARIABLE, "none", CONFIG_HELP))
    lines = ["| Variable | Default | Meaning |", "|---|---|---|"]
    lines += [f"| `{variable}` | {_cell(default)} | {_cell(meaning)} |" for variable, default, meaning in rows]
    return "\n".join(lines) + "\n"


def _scalar(text: str) -> str:
    # json.dumps writes what YAML calls a double-quoted scalar.
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


def _comment(source: str) -> str:
    return source if source.isprintable() else ascii(source)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
