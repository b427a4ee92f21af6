"""All of standard input, and what is to be on standard output."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs

from sidecar.inject import documents, ecs, kubernetes, objects
from sidecar.inject.objects import Item
from sidecar.inject.options import Options
from sidecar.inject.tree import Branch, InjectError


@attrs.frozen
class Injected:
    """
    Attributes:
        text: For standard output.
        notes: For standard error, a line each.
    """

    text: str
    notes: Sequence[str]


def inject(data: bytes, options: Options) -> Injected:
    """
    Put the sidecar into everything that has pods, or is a task definition.

    Raises:
        InjectError: It cannot be read, has no pods, or the sidecar does not fit.
        ConfigError: The settings do not work.
    """
    return _rewrite(data, kubernetes.add, ecs.add, options)


def remove(data: bytes, options: Options) -> Injected:
    """As `inject`, but take it out; what has none only gets the form that `inject` writes."""
    return _rewrite(data, kubernetes.remove, _remove_from_task, options)


def _rewrite(
    data: bytes,
    cluster: Callable[[Sequence[Item], Options], list[str]],
    task: Callable[[Branch, Options], list[str]],
    options: Options,
) -> Injected:
    read = documents.read(data)
    tasks = [root for root in read.roots if ecs.is_task(root)]
    found = [item for root in read.roots if objects.is_object(root) for item in objects.items(root)]
    if not tasks and not any(item.has_pods for item in found):
        raise _nothing(read.roots, found)
    notes = cluster(found, options) if any(item.has_pods for item in found) else []
    for root in tasks:
        notes += _of_task(root, task, options)
    return Injected(documents.write(read), tuple(dict.fromkeys(notes)))


def _of_task(root: Branch, task: Callable[[Branch, Options], list[str]], options: Options) -> list[str]:
    try:
        ecs.unwrap(root)
        return task(root, options)
    except InjectError as error:
        raise error.within(ecs.title_of(root)) from None


def _remove_from_task(root: Branch, options: Options) -> list[str]:
    return [] if ecs.remove(root) is not None else [f"{ecs.title_of(root)}: there is no sidecar of ours in it"]


def _nothing(roots: Sequence[Branch], found: Sequence[Item]) -> InjectError:
    for root in roots:
        ecs.refuse_template(root)
    kinds = ", ".join(dict.fromkeys(item.kind for item in found if item.kind.isprintable()))
    fact = (
        f"no pod and no task definition is in it, only {kinds}" if kinds else "no pod and no task definition is in it"
    )
    return InjectError(fact, "pipe in a Pod, Deployment, StatefulSet, DaemonSet, Job, CronJob or ECS task definition")
