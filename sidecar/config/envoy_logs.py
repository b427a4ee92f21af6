"""Access logs of an Envoy bootstrap -> the one access log of ours, on standard output."""

from __future__ import annotations

import json
from typing import Any, Final

from sidecar.config import units
from sidecar.config.envoy_draft import Draft
from sidecar.config.envoy_forms import Extension, extension
from sidecar.config.envoy_nodes import Node

_ONE: Final = "there is one access log, on standard output"

# The paths of files that are standard output or error, as containers write their logs.
_STREAMS: Final = {"/dev/stdout", "/proc/self/fd/1", "/dev/stderr", "/proc/self/fd/2", "/dev/fd/1", "/dev/fd/2"}

ENVOYS_FORMAT: Final = " ".join(
    [
        '[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%"',
        "%RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION%",
        '%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%"',
        '"%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%"',
    ]
)
"""What Envoy's lines look like if the operator does not say: programs that read them expect these columns."""


def access_log(parent: Node, draft: Draft) -> None:
    """Read the ``access_log`` of a listener or of one of its filters."""
    has_log = False
    for node in parent.mappings("access_log"):
        found = extension(node)
        if found.kind not in ("FileAccessLog", "StdoutAccessLog", "StderrAccessLog"):
            node.lose(f"there is no access log like {(found.kind or found.family)[:60]!a}; {_ONE}")
        elif has_log:
            node.lose(_ONE)
        elif found.config.text("path") != "/dev/null":
            has_log = True
            _one(node, found, draft)


def _one(node: Node, found: Extension, draft: Draft) -> None:
    node.leave_out("filter", "every request is logged")
    path = found.config.text("path")
    if found.kind == "FileAccessLog" and path not in _STREAMS:
        found.config.leave_out("path", _ONE)
    elif found.kind == "StderrAccessLog" or path in ("/dev/stderr", "/proc/self/fd/2", "/dev/fd/2"):
        draft.note(f"{node.path}: the access log is on standard output; standard error is for the program's own")
    kind, text = _format(found.config, draft)
    draft.put("access_log", kind, node)
    if text:
        draft.put("access_log_format", text, node)


def _format(config: Node, draft: Draft) -> tuple[str, str]:
    """Which of our logs, and the format of its lines."""
    log_format = config.mapping("log_format")
    holder = log_format or config
    if log_format is not None:
        log_format.ignore("content_type", "omit_empty_values", "json_format_options")
    for name in ("json_format", "typed_json_format"):
        node = holder.mapping(name)
        if node is not None:
            return _of_json(holder, node, name, draft)
    for name, text in _texts(holder):
        return "text", text if _is_format(holder, name, text) else ""
    return "text", ENVOYS_FORMAT


def _texts(holder: Node) -> list[tuple[str, str]]:
    """The format as text, with the field that it is in."""
    found = [(name, holder.text(name)) for name in ("text_format", "format")]
    source = holder.mapping("text_format_source")
    if source is not None and (text := source.text("inline_string")):
        found.append(("text_format_source", text))
    return [(name, text.removesuffix("\n")) for name, text in found if text]


def _of_json(holder: Node, node: Node, name: str, draft: Draft) -> tuple[str, str]:
    text = json.dumps(_with_texts(node.plain()), ensure_ascii=False)
    if not _is_format(holder, name, text):
        return "json", ""
    node.done()
    draft.note(f"{node.path}: all values in it are texts; access_log: json has numbers, under its own names")
    return "text", text


def _with_texts(value: Any) -> Any:  # Any: JSON
    if isinstance(value, dict):
        return {key: _with_texts(inner) for key, inner in value.items()}
    return [_with_texts(item) for item in value] if isinstance(value, list) else value or ""


def _is_format(holder: Node, name: str, text: str) -> bool:
    """Whether *text* is a format for us; if not, the field is left out."""
    try:
        units.parse_log_format(text)
    except units.UnitError as error:
        node = holder.get(name)
        assert node is not None  # the text comes from there
        node.lose(f"{error.fact}; {error.fix}")
        return False
    return True
