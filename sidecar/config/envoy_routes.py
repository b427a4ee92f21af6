"""
A RouteConfiguration of an Envoy bootstrap -> our virtual hosts.

In a match nothing may be left out: without one of its conditions, a route would be about requests that it is not for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import unquote

import attrs

from sidecar.config import units
from sidecar.config.envoy_draft import Block, Draft, is_name, plain
from sidecar.config.envoy_forms import duration
from sidecar.config.envoy_nodes import Node

_LOSS: Final = "the route would be about other requests"

_STATUSES: Final = {
    "MOVED_PERMANENTLY": "301",
    "FOUND": "302",
    "SEE_OTHER": "303",
    "TEMPORARY_REDIRECT": "307",
    "PERMANENT_REDIRECT": "308",
}

ENVOYS_TIMEOUT: Final = "15s"
"""Of routes that give none."""


def virtual_hosts(config: Node, draft: Draft) -> list[Block]:
    """Read a RouteConfiguration."""
    config.ignore("name", "validate_clusters", "most_specific_header_mutations_wins", "ignore_port_in_host_matching")
    _header_changes(config)
    names: set[str] = set()
    found = [_virtual_host(node, names, draft) for node in config.mappings("virtual_hosts")]
    if not found:
        config.refuse("there are no virtual hosts", "write virtual_hosts: with domains and routes")
    return found


def _virtual_host(node: Node, names: set[str], draft: Draft) -> Block:
    node.ignore("stat_prefix")
    if node.word("require_tls", ("NONE", "EXTERNAL_ONLY", "ALL"), "NONE") != "NONE":
        node.leave_out("require_tls", "a route with redirect: {https_redirect: true} does it")
    _header_changes(node)
    _left_out_everywhere(node)
    values: dict[str, Any] = {}
    _name(node, names, values)
    values["domains"] = list(dict.fromkeys(filter(None, (_domain(domain, draft) for domain in node.texts("domains")))))
    values["routes"] = _reached(node.mappings("routes"), draft)
    return Block(node.line, values)


def _reached(nodes: list[Node], draft: Draft) -> list[Block]:
    """Our routes for Envoy's, without those that have the match of one above: they would be refused as mistakes."""
    names: set[str] = set()
    matches: list[Any] = []
    found = []
    for node in nodes:
        for route in _routes(node, names, draft):
            match = plain(route.values.get("match"))
            if match in matches:
                draft.note(f"{node.path}: requests for its path go to a route above that has the same match")
                continue
            matches.append(match)
            found.append(route)
    return found


def _name(node: Node, taken: set[str], values: dict[str, Any]) -> None:
    """Keep a name that can be one here too; it is for logs only."""
    name = node.text("name")
    if is_name(name) and name not in taken:
        taken.add(name)
        values["name"] = name


def _domain(node: Node, draft: Draft) -> str:
    text = node.content if isinstance(node.content, str) else ""
    name, colon, port = text.lower().rpartition(":")
    if colon and (port == "*" or port.isdecimal()):
        draft.note(f"{node.path}: {text[:60]!a} is matched whatever the port")
        text = name
    if "*" in text and text != "*" and not text.startswith("*.") and not text.endswith(".*"):
        node.refuse(f"{units.quoted(text)} has its wildcard inside a label", "write whole labels, as in *.example.org")
    return text.lower()


def _header_changes(node: Node) -> None:
    """
    Changes of header fields, which are the app's business here.

    A field that takes the place of the client's keeps something away from the app, so it is missed; one that is added
    is not.
    """
    for name in ("request_headers_to_add", "response_headers_to_add", "response_headers_to_remove"):
        if name == "request_headers_to_add" and any(map(_replaces, node.mappings(name))):
            changes = node.get(name)
            assert changes is not None  # it has entries
            fact = "fields cannot be replaced here, and without it the app would get those of the client"
            changes.refuse(fact, "remove it if that is right")
        node.leave_out(name, "header fields are changed by the app only")


def _replaces(option: Node) -> bool:
    return not option.flag("append", default=True) or option.text("append_action").startswith("OVERWRITE")


def _left_out_everywhere(node: Node) -> None:
    """What virtual hosts and routes may both have."""
    node.leave_out("retry_policy", "requests are sent once, but for those on a connection that the app had closed")
    node.leave_out("cors", "the app answers for other origins")
    node.leave_out("typed_per_filter_config", "there are no filters")
    node.leave_out("virtual_clusters", "metrics are by cluster")


# -- routes ------------------------------------------------------------------------------------------------------


def _routes(node: Node, names: set[str], draft: Draft) -> Iterator[Block]:
    """Our routes for one of Envoy's: two for a prefix that ends at a slash."""
    node.ignore("decorator", "stat_prefix", "metadata", "tracing")
    _header_changes(node)
    _left_out_everywhere(node)
    action = _action(node, draft)
    match = node.mapping("match")
    if match is None:
        node.refuse("there is no match", "write match: {prefix: /}")
        return
    for condition in _matches(match):
        values: dict[str, Any] = {}
        _name(node, names, values)
        if condition:
            values["match"] = Block(match.line, condition)
        is_below = match.has("path_separated_prefix") and "prefix" in condition
        yield Block(node.line, values | (_below(action) if is_below else action))


def _below(action: dict[str, Any]) -> dict[str, Any]:
    """The action for what is below a prefix that ended at a slash: what takes the place of both ends in one too."""
    if "redirect" in action:
        redirect: Block = action["redirect"]
        return {"redirect": attrs.evolve(redirect, values=_below(dict(redirect.values)))}
    if "prefix_rewrite" not in action:
        return action
    return action | {"prefix_rewrite": f"{action['prefix_rewrite'].rstrip('/')}/"}


def _matches(match: Node) -> list[dict[str, Any]]:
    match.must_be_whole(_LOSS)
    if not match.flag("case_sensitive", default=True):
        match.refuse("paths have a case here", "write safe_regex: {regex: (?i)…}")
    conditions = _conditions(match)
    if match.has("path_separated_prefix"):
        prefix = _path(match, "path_separated_prefix").rstrip("/")
        return [{"path": prefix} | conditions, {"prefix": f"{prefix}/"} | conditions]
    if match.has("path"):
        return [{"path": _path(match, "path")} | conditions]
    if match.has("safe_regex"):
        return [{"regex": _regex(match, "safe_regex")} | conditions]
    prefix = _path(match, "prefix")
    return [({"prefix": prefix} if prefix not in ("", "/") else {}) | conditions]


def _path(match: Node, name: str) -> str:
    """A path to compare with, decoded, as the paths of requests are here."""
    return unquote(match.text(name))


def _regex(parent: Node, name: str) -> str:
    node = parent.mapping(name)
    if node is None:
        return ""
    node.ignore("google_re2")
    return node.text("regex")


def _conditions(match: Node) -> dict[str, Any]:
    """Methods and header fields."""
    methods: list[str] = []
    headers: list[Block] = []
    for node in match.mappings("headers"):
        name = node.text("name").lower()
        if name == ":method":
            methods = _methods(node, methods)
        elif name.startswith(":") or not name:
            node.refuse(f"{units.quoted(name)} is no header field", "match by path, or by domains of the virtual host")
        else:
            headers += [Block(node.line, values) for values in _header(name, node)]
    values: dict[str, Any] = {"methods": methods} if methods else {}
    return values | ({"headers": headers} if headers else {})


def _methods(node: Node, before: list[str]) -> list[str]:
    how, value = _comparison(node)
    methods = value.split("|")
    plain = all(re.fullmatch(r"[A-Z]+", method) for method in methods)
    if before or how not in ("exact", "regex") or not plain or node.flag("invert_match"):
        node.refuse("methods are compared whole here, once", "write exact: GET, or safe_regex: {regex: GET|HEAD}")
    return methods


def _header(name: str, node: Node) -> list[dict[str, Any]]:
    """Our conditions for one of Envoy's, under which a field that is missing never fits, inverted or not."""
    how, value = _comparison(node)
    invert = node.flag("invert_match")
    if how == "present":
        inverted = invert != (value == "off")
        return [{"name": name, "present": "on"} | ({"invert": "on"} if inverted else {})]
    if not how:
        node.refuse(
            "this is compared in a way that there is not here", f"write one of {', '.join(_HOW)} or present_match"
        )
        return []
    condition = {"name": name, how: value}
    if not invert:
        return [condition]
    inverted_condition = condition | {"invert": "on"}
    if node.flag("treat_missing_header_as_empty"):
        return [inverted_condition]
    return [{"name": name, "present": "on"}, inverted_condition]


_HOW: Final = ("exact", "prefix", "suffix", "contains")


def _comparison(node: Node) -> tuple[str, str]:
    """How a HeaderMatcher compares, and with what; "" for a way that we have not."""
    matcher = node.mapping("string_match")
    holder, ending = (node, "_match") if matcher is None else (matcher, "")
    if matcher is not None and matcher.flag("ignore_case"):
        matcher.refuse("values have a case here", "write safe_regex: {regex: (?i)…}")
    if matcher is None and node.has("present_match"):
        return "present", "on" if node.flag("present_match") else "off"
    for how in _HOW:
        if value := holder.text(how + ending):
            return how, value
    if holder.has(f"safe_regex{ending}"):
        return "regex", _regex(holder, f"safe_regex{ending}")
    if matcher is None and not any(field.endswith("match") for field in _names(node)):
        return "present", "on"  # a name alone asks for its presence
    return "", ""


def _names(node: Node) -> list[str]:
    nodes = node.content if isinstance(node.content, list) else []
    return [field.name.lower() for field in nodes if field.name != "invert_match"]


# -- actions -----------------------------------------------------------------------------------------------------


def _action(node: Node, draft: Draft) -> dict[str, Any]:
    for name, read in (("route", _to_cluster), ("redirect", _redirect), ("direct_response", _direct_response)):
        action = node.mapping(name)
        if action is not None:
            return read(action, draft)
    node.refuse("this route does nothing that can be done here", "write route, redirect or direct_response")
    return {}


_NOT_ROUTED: Final = {
    "hash_policy": "endpoints are taken in turn, or by their load",
    "request_mirror_policies": "requests are sent once",
    "max_stream_duration": "there are timeout and idle_timeout",
    "regex_rewrite": "paths are rewritten by prefix",
    "auto_host_rewrite": "write host_rewrite on the route",
    "host_rewrite_header": "write host_rewrite on the route",
    "host_rewrite_path_regex": "write host_rewrite on the route",
    "priority": "all requests have the same",
}


def _to_cluster(action: Node, draft: Draft) -> dict[str, Any]:
    action.ignore("cluster_not_found_response_code", "internal_redirect_policy", "upgrade_configs")
    _left_out_everywhere(action)
    for name, reason in _NOT_ROUTED.items():
        action.leave_out(name, reason)
    values: dict[str, Any] = {"cluster": _target(action, draft)}
    if action.has("prefix_rewrite"):
        values["prefix_rewrite"] = action.text("prefix_rewrite")
    host = action.text("host_rewrite_literal") or action.text("host_rewrite")
    if host:
        values["host_rewrite"] = host
    for name in ("timeout", "idle_timeout"):
        if text := duration(action, name):
            values[name] = text
    if "timeout" not in values:
        values["timeout"] = ENVOYS_TIMEOUT
        draft.note(f"routes without a timeout have Envoy's, {ENVOYS_TIMEOUT}, here to the first byte of the response")
    return values


def _target(action: Node, draft: Draft) -> str:
    """The cluster of a RouteAction, or the one of a list that gets everything."""
    weighted = action.mapping("weighted_clusters")
    if weighted is None:
        if not action.text("cluster"):
            action.refuse("there is no cluster", "write cluster: NAME; it cannot depend on the request here")
        return draft.cluster(action)
    weighted.ignore("total_weight", "runtime_key_prefix")
    nodes = weighted.mappings("clusters")
    if len(nodes) != 1:
        weighted.refuse("a route leads to one cluster", "write one cluster, with the endpoints of all of them")
        return ""
    nodes[0].ignore("weight")
    _header_changes(nodes[0])
    if not nodes[0].text("name"):
        nodes[0].refuse("there is no name", "write the name of a cluster")
    return draft.cluster(nodes[0], "name")


def _redirect(action: Node, draft: Draft) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if scheme := "https" if action.flag("https_redirect") else action.text("scheme_redirect"):
        values["scheme"] = scheme
        if not action.has("port_redirect"):
            draft.note(f"redirects to {scheme} lead to its own port; Envoy keeps one that the client wrote")
    host, port = _host_and_port(action.text("host_redirect"))
    for ours, text in (
        ("host", host),
        ("port", action.text("port_redirect") or port),
        ("path", action.text("path_redirect")),
    ):
        if text:
            values[ours] = text
    if action.has("prefix_rewrite"):
        values["prefix_rewrite"] = action.text("prefix_rewrite")
    if action.has("regex_rewrite"):
        action.refuse("a path is redirected whole or by prefix here", "write path_redirect or prefix_rewrite")
    values["status"] = _STATUSES[action.word("response_code", _STATUSES, "MOVED_PERMANENTLY")]
    if action.flag("strip_query"):
        values["strip_query"] = "on"
    return {"redirect": Block(action.line, values)}


def _host_and_port(text: str) -> tuple[str, str]:
    """What ``host_redirect`` names: a host, perhaps with a port, which is "" without."""
    match = re.fullmatch(r"([^:]+|\[[^]]+\]):([0-9]+)", text)
    return (match[1], match[2]) if match else (text, "")


def _direct_response(action: Node, draft: Draft) -> dict[str, Any]:
    values: dict[str, Any] = {"status": str(action.number("status") or 200)}
    body = action.mapping("body")
    if body is not None:
        text = body.text("inline_string")
        if not body.has("inline_string") and not body.is_empty:
            body.refuse("a body from elsewhere is not read", "write it as inline_string")
        values |= {"body": text, "content_type": "text/plain"}
    return {"direct_response": Block(action.line, values)}
