"""
Envoy's bootstrap files -> our settings, for people who come from Envoy.

Files for its API v3 are read, and those for v2 that older tutorials show. Whatever is not carried over is listed with
its path (`Imported.left_out`); what would let somebody in, or something through, if it were left out, is refused.
Nothing is read but the text itself, not the files that it names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import attrs

from sidecar.config import envoy_clusters, envoy_draft, envoy_listeners, units
from sidecar.config.envoy_draft import Draft
from sidecar.config.envoy_forms import address, host_of
from sidecar.config.envoy_nodes import Findings, LeftOut, Node, parse
from sidecar.config.hosts import is_local
from sidecar.config.names import SETTINGS, Given
from sidecar.errors import ConfigError, Problem
from sidecar.settings import Inline

__all__ = ["Imported", "LeftOut", "import_bootstrap", "given", "to_yaml"]


@attrs.frozen
class Imported:
    """
    What became of a bootstrap file.

    Attributes:
        values: Our settings, as a YAML file of ours would give them: texts, lists and mappings. They may hold keys.
        lines: Place, such as ``clusters[0].tls.ca`` -> line of what it was made from.
        left_out: What was not carried over, in the order of the file.
        notes: What is carried over and means something else here, or may surprise.
    """

    values: Mapping[str, Any] = attrs.field(repr=False)
    lines: Mapping[str, int]
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]


def import_bootstrap(content: str, source: str, *, strict: bool = False) -> Imported:
    """
    Read a bootstrap file.

    Args:
        content: YAML or JSON, without aliases, up to `envoy_nodes.LARGEST_FILE`.
        source: Name of the file, for problems.
        strict: Whether nothing may be left out.

    Raises:
        ConfigError: With everything that cannot be carried over and must not be left out.
    """
    findings = Findings(source)
    root = parse(content, findings)
    draft = Draft(findings)
    values = _read(root, draft)
    root.report()
    problems = [*findings.problems]
    if strict:
        problems += [
            Problem(item.path, f"{source}:{item.line}", f"{item.value} is not carried over: {item.reason}", "remove it")
            for item in findings.left_out
        ]
    if problems:
        raise ConfigError(problems)
    lines = {
        place: line for name, (value, line) in values.items() for place, line in envoy_draft.lines(value, name, line)
    }
    plain = {name: envoy_draft.plain(value) for name, (value, _) in values.items()}
    return Imported(plain, lines, tuple(findings.left_out), tuple(findings.notes))


# Fields of a bootstrap that change nothing about what is served.
_SILENT: Final = ("node", "stats_flush_interval", "enable_dispatcher_stats", "flags_path", "default_config_source")


def _read(root: Node, draft: Draft) -> dict[str, tuple[Any, int]]:
    """Settings with their lines, in the order in which people look for them."""
    root.ignore(*_SILENT)
    root.leave_out("overload_manager", "SIDECAR_MAX_CONNECTIONS bounds what clients can use")
    root.leave_out("layered_runtime", "settings do not change while it runs; for connections, SIDECAR_MAX_CONNECTIONS")
    for name in ("stats_sinks", "stats_config"):
        root.leave_out(name, "metrics are at /metrics of the admin listener")
    dynamic = root.get("dynamic_resources")
    if dynamic is not None and not dynamic.is_empty:
        dynamic.refuse("nothing is fetched from a control plane", "write listeners and clusters as static_resources")
    resources = root.mapping("static_resources")
    if resources is None or not resources.has("listeners"):
        root.refuse("there are no listeners", "write static_resources: {listeners: …, clusters: …}")
        return {}
    envoy_clusters.add_names(resources, draft)
    listeners = envoy_listeners.listeners(resources, draft)
    clusters = envoy_clusters.clusters(resources, draft)
    _admin(root, draft)
    if any("virtual_hosts" in listener.values for listener in listeners):
        _note_defaults(draft)
    settings = {name: (chosen.value, chosen.node.line) for name, chosen in draft.settings.items()}
    settings.setdefault("access_log", ("off", resources.line))
    structures = {"listeners": (listeners, resources.line), "clusters": (clusters, resources.line)}
    return {name: found for name, found in structures.items() if found[0]} | settings


_ENVOYS: Final = {"idle_timeout": "1h", "header_timeout": "none", "underscore_headers": "allow"}
"""What Envoy does if it is not told, where following it would open a door."""


def _note_defaults(draft: Draft) -> None:
    ours = [(name, SETTINGS[name].text(SETTINGS[name].default)) for name in _ENVOYS if not draft.has(name)]
    if ours:
        listed = ", ".join(f"{name} is {value} (Envoy: {_ENVOYS[name]})" for name, value in ours)
        draft.note(f"not in the file, and stricter here than in Envoy: {listed}")


def _admin(root: Node, draft: Draft) -> None:
    admin = root.mapping("admin")
    if admin is None or not admin.has("address"):
        draft.note(
            f"there is no admin listener in the file; here it is {SETTINGS['admin'].text(SETTINGS['admin'].default)}"
        )
        return
    log = admin.text("access_log_path")
    if admin.items("access_log") or log not in ("", "/dev/null"):
        draft.note("requests to the admin listener are not logged")
    admin.ignore("access_log", "access_log_path", "profile_path", "socket_options", "ignore_global_conn_limit")
    text = address(admin)
    if text.startswith("unix:"):
        admin.leave_out("address", "the admin listener has a TCP address")
    elif text:
        draft.put("admin", text, admin.get("address") or admin)
        if not is_local(host_of(text)):
            draft.note(f"admin: {text} can be reached from other machines, as in Envoy; it has no authentication")


# -- in place of a file of ours ------------------------------------------------------------------------------------


def given(imported: Imported, source: str) -> dict[str, Given]:
    """What is given for each setting, as `yamlfile.read` gives it; the lines are those of the file *source*."""
    places: dict[str, dict[str, str]] = {name: {} for name in imported.values}
    for place, line in imported.lines.items():
        name = re.split(r"[.\[]", place, maxsplit=1)[0]
        places[name][place] = f"{source}:{line}"
    return {
        name: Given(_text(name, value), name, places[name].pop(name), places[name])
        for name, value in imported.values.items()
    }


def _text(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value.strip()
    return json.dumps(value) if SETTINGS[name].is_structured else ",".join(value)


# -- as a file of ours -----------------------------------------------------------------------------------------------


def to_yaml(imported: Imported) -> str:
    """
    A file of ours that means the same; what was left out, and what to know, stands in comments at its top.

    Keys and passwords that were given as values are left out of it, since such a file is printed and passed on; a
    comment says where they belong.
    """
    values, secrets = _without_secrets(imported.values, "")
    head = ["Made from an Envoy bootstrap file."]
    if imported.left_out:
        head += ["", "Not carried over:", *(f"- {item}" for item in imported.left_out)]
    if secrets:
        head += ["", "Given as values there, and not repeated here; write the paths of files:"]
        head += [f"- {place}" for place in secrets]
    if imported.notes:
        head += ["", "To know:", *(f"- {note}" for note in imported.notes)]
    comments = [f"# {line if line.isprintable() else ascii(line)}".rstrip() for line in head]
    return "\n".join([*comments, "", *_block(values, "")]) + "\n"


def _without_secrets(value: Any, place: str) -> tuple[Any, list[str]]:
    """*value* without secret texts, and the places of those."""
    if isinstance(value, Mapping):
        kept, secrets = {}, []
        for name, inner in value.items():
            below = f"{place}.{name}" if place else name
            if _is_secret(name, inner):
                secrets.append(below)
            else:
                kept[name], found = _without_secrets(inner, below)
                secrets += found
        return kept, secrets
    if isinstance(value, list):
        pairs = [_without_secrets(item, f"{place}[{index}]") for index, item in enumerate(value)]
        return [item for item, _ in pairs], [secret for _, found in pairs for secret in found]
    return value, []


def _is_secret(name: str, value: Any) -> bool:
    if not isinstance(value, str):
        return False
    if name == "tls_key_password":
        return not value.startswith(("/", "./", "../"))
    return "PRIVATE KEY" in value or (name in ("tls_key", "key") and isinstance(units.parse_source(value), Inline))


def _block(value: Any, indent: str) -> Iterator[str]:
    """The lines of a mapping or list, block style."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if _is_short(inner):
                yield f"{indent}{_scalar(name)}: {_flow(inner)}"
            else:
                yield f"{indent}{_scalar(name)}:"
                yield from _block(inner, f"{indent}  ")
        return
    for item in value:
        if _is_short(item):
            yield f"{indent}- {_flow(item)}"
        else:
            first, *rest = _block(item, f"{indent}  ")
            yield f"{indent}- {first.lstrip()}"
            yield from rest


_LONGEST_FLOW: Final = 100


def _is_short(value: Any) -> bool:
    """Whether a value has a place on the line of its name."""
    if isinstance(value, str) or not value:
        return True
    inner = value.values() if isinstance(value, Mapping) else value
    return all(isinstance(item, str) for item in inner) and len(_flow(value)) <= _LONGEST_FLOW


def _flow(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_scalar(name)}: {_flow(inner)}" for name, inner in value.items()) + "}"
    return f"[{', '.join(map(_flow, value))}]" if isinstance(value, list) else _scalar(value)


# What YAML reads as the text that stands there, in flow style too; `show` takes more, which stands on its own lines.
_PLAIN: Final = re.compile(r"(?!(?:null|~)$)[A-Za-z0-9/.][A-Za-z0-9/._:+-]*(?<!:)", re.ASCII | re.IGNORECASE)


def _scalar(text: str) -> str:
    """A text as YAML reads it; every character that might not be printable is escaped."""
    if _PLAIN.fullmatch(text):
        return text
    if '"' in text and text.isprintable():
        return "'" + text.replace("'", "''") + "'"
    return '"' + "".join(_escaped(character) for character in text) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    if character == "\n":
        return "\\n"
    return character if character.isprintable() else f"\\U{ord(character):08x}"
