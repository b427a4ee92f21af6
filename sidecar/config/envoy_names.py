"""
Envoy's matchers for alternative names of certificates -> expressions of `policy.matchers`.

A matcher that our language cannot say is refused, never left out: whoever it keeps out would come in. Where Envoy's
says more than ours can, as a suffix of host names of any depth, ours says less.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Iterator
from typing import Final

from sidecar.config.envoy_draft import Draft
from sidecar.config.envoy_nodes import Node
from sidecar.policy import matchers

_LOSS: Final = "other certificates would be accepted"

_FIELDS: Final = {"DNS": "dns", "URI": "uri", "EMAIL": "email", "IP_ADDRESS": "ip"}

DEEPEST_NAMES: Final = 3
"""Labels that a suffix of host names stands for, at most: our wildcards stand for one label each."""

_FIX: Final = "write what is meant as SIDECAR_CLIENT_ALLOW, or as exact, prefix or suffix"


def client_allow(validation: Node, draft: Draft) -> str:
    """
    Whom a CertificateValidationContext lets in of those whose certificate is valid; "" for all of them.

    As in Envoy, one of the alternative names must match, and one of the fingerprints.
    """
    names = [term for name, node in _name_matchers(validation) for term in _terms(name, node, draft)]
    pins = [
        *_pins(validation, "verify_certificate_hash", "sha256"),
        *_pins(validation, "verify_certificate_spki", "spki"),
    ]
    groups = [", ".join(group) for group in (names, pins) if group]
    return groups[0] if len(groups) == 1 else f"all({', '.join(f'any({group})' for group in groups)})" if groups else ""


def upstream_names(validation: Node) -> list[str]:
    """The names of which an upstream's certificate must have one; empty: Envoy looks at none."""
    names = []
    for kind, node in _name_matchers(validation):
        exact = _exact(node)
        if exact and kind != "EMAIL":
            names.append(exact)
        else:
            node.refuse("upstreams are known by whole names here", "write exact: with the name in their certificate")
    return names


def _name_matchers(validation: Node) -> Iterator[tuple[str, Node]]:
    """Each matcher for a name with the kind of name, which is "" in older files."""
    for name in ("match_typed_subject_alt_names", "match_subject_alt_names", "verify_subject_alt_name"):
        for node in validation.items(name):
            node.must_be_whole(_LOSS)
            if name != "match_typed_subject_alt_names":
                yield "", node
                continue
            kind = node.word("san_type", ("SAN_TYPE_UNSPECIFIED", *_FIELDS))
            matcher = node.mapping("matcher")
            if matcher is None or kind not in _FIELDS:
                node.refuse("there is no san_type or no matcher", f"write san_type: {', '.join(_FIELDS)} and matcher:")
            else:
                yield kind, matcher


def _exact(matcher: Node) -> str:
    return matcher.content if isinstance(matcher.content, str) else matcher.text("exact")


def _terms(kind: str, matcher: Node, draft: Draft) -> list[str]:
    """The terms, of which one must match, that say what a StringMatcher does."""
    ignores_case = not isinstance(matcher.content, str) and matcher.flag("ignore_case")
    for how in ("exact", "prefix", "suffix"):
        text = _exact(matcher) if how == "exact" else matcher.text(how)
        if not text:
            continue
        field = _FIELDS.get(kind) or _field_of(text)
        patterns = _PATTERNS[how](field, _escaped(text))
        terms = [f'{field}="{pattern}"' for pattern in patterns]
        if not terms or not _compiles(terms) or (ignores_case and field != "dns"):
            break
        if how == "suffix" and field == "dns":
            draft.note(f"{matcher.path}: host names of up to {DEEPEST_NAMES} labels before {text!a} are let in")
        return [str(matchers.compile(term)) for term in terms]
    matcher.refuse("this matcher says what client_allow cannot", _FIX)
    return []


def _field_of(text: str) -> str:
    """The kind of name that *text* is, or a part of."""
    if "://" in text:
        return "uri"
    if "@" in text:
        return "email"
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return "dns"
    return "ip"


def _escaped(text: str) -> str:
    return re.sub(r'(["\\*])', r"\\\1", text)


def _of_prefix(field: str, text: str) -> list[str]:
    if field != "uri":
        return []  # what follows may be any number of labels
    return [f"{text}**"] if text.endswith("/") else [f"{text}*", f"{text}*/**"]


def _of_suffix(field: str, text: str) -> list[str]:
    if field == "dns":
        return [f"{'*.' * more}*{text}" for more in range(DEEPEST_NAMES)]
    return [f"*{text}"] if field == "email" and "@" in text else []


_PATTERNS: Final = {"exact": lambda _, text: [text], "prefix": _of_prefix, "suffix": _of_suffix}


def _compiles(terms: list[str]) -> bool:
    try:
        matchers.compile(", ".join(terms))
    except matchers.MatcherError:
        return False
    return True


def _pins(validation: Node, name: str, field: str) -> list[str]:
    """Terms for fingerprints: Envoy writes those of certificates in hexadecimal, those of keys in base64."""
    terms = []
    for node in validation.texts(name):
        text = node.content if isinstance(node.content, str) else ""
        term = f"{field}={text if field == 'sha256' else _hexadecimal(text)}"
        if _compiles([term]):
            terms.append(str(matchers.compile(term)))
        else:
            node.refuse("this is no SHA-256 fingerprint", "write it as openssl shows it")
    return terms


def _hexadecimal(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).hex()
    except (binascii.Error, ValueError):
        return text
