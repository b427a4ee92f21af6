"""What stands on standard input <-> trees: YAML or JSON, and written in the form that it was read in."""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from typing import Final

import attrs

from sidecar.inject import jsonform, yamlread, yamlwrite
from sidecar.inject.tree import Branch, InjectError

LARGEST_INPUT: Final = 8 * 1024 * 1024
"""Bytes. A cluster refuses single objects over 1.5 MiB."""

# A YAML document in flow style begins like this too, but nobody quotes its first key.
_JSON = re.compile(r'\s*\{\s*["}]')

_FIX = "pipe in a Kubernetes manifest or an ECS task definition"


class Form(enum.Enum):
    """How documents are written."""

    JSON = "json"
    YAML = "yaml"


@attrs.frozen
class Documents:
    """
    Attributes:
        form: What they were read from.
        roots: One mapping for each.
    """

    form: Form
    roots: Sequence[Branch]


def read(data: bytes) -> Documents:
    """
    Read all documents.

    Args:
        data: At most a byte more than `LARGEST_INPUT`.

    Raises:
        InjectError: They are too large, neither YAML nor JSON, or no mappings.
    """
    if len(data) > LARGEST_INPUT:
        raise InjectError(f"it is larger than {LARGEST_INPUT // 1024**2} MiB", "pipe in fewer documents at a time")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InjectError("it is not UTF-8", "save it as UTF-8", f"line {line}") from None
    form = Form.JSON if _JSON.match(text) else Form.YAML
    found = jsonform.read(text) if form is Form.JSON else yamlread.read(text)
    if not found:
        raise InjectError("there is no document in it", _FIX)
    roots = [root for root in found if isinstance(root, dict)]
    if len(roots) < len(found):
        raise InjectError("there is a document that is no mapping", _FIX)
    return Documents(form, roots)


def write(documents: Documents) -> str:
    """Write all documents; raises InjectError if YAML has no form for them that every reader knows."""
    if documents.form is Form.JSON:
        return "".join(jsonform.write(root) for root in documents.roots)
    return yamlwrite.write(documents.roots)
