"""
The mark on what was changed: an annotation, or a label of a container, with what is needed to undo it.

It is all that removal goes by: what has our names but no mark belongs to somebody else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from sidecar.inject import prior
from sidecar.inject.prior import Prior
from sidecar.inject.tree import Branch, InjectError, branch_at, scalar_text

ANNOTATION: Final = "tls-sidecar/injected"
LABEL: Final = "tls-sidecar.injected"


def write(noted: Mapping[str, object]) -> str:
    """The text of a mark."""
    return json.dumps(noted)


def read(text: str) -> dict[str, object]:
    """
    What `write` was given.

    Raises:
        InjectError: Somebody has changed it.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InjectError("its mark is not as it was written", "take the sidecar out by hand, with its mark")
    return found


def changed_label() -> InjectError:
    """What is wrong with a label that `read` takes and whose content is another."""
    return InjectError("its label is not as it was written", "take the sidecar out by hand")


def annotate(holder: Branch, noted: Mapping[str, object], known: Prior) -> None:
    """
    Mark what has ``metadata``.

    Args:
        holder: A pod template or an object.
        noted: What to write beside *known*.
        known: What was made in it so far.
    """
    annotations = known.mapping_in(known.mapping_in(holder, "metadata"), "annotations")
    annotations[ANNOTATION] = write({**noted, **known.noted()})


def annotation_of(holder: Branch) -> dict[str, object] | None:
    """What was noted; None if it has no mark."""
    annotations = branch_at(branch_at(holder, "metadata") or {}, "annotations") or {}
    return read(scalar_text(annotations[ANNOTATION])) if ANNOTATION in annotations else None


def take_annotation(holder: Branch, known: Prior) -> None:
    """Undo `annotate`."""
    metadata = branch_at(holder, "metadata") or {}
    annotations = branch_at(metadata, "annotations") or {}
    del annotations[ANNOTATION]
    known.shrink(metadata, "annotations")
    known.shrink(holder, "metadata")


def prior_of(noted: Mapping[str, object]) -> Prior:
    """What there was not, by what was noted."""
    return prior.read(noted)
