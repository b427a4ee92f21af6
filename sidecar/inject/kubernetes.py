"""What becomes of Kubernetes objects that have pods, and of the Services in front."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence

from sidecar.inject import around, pods, services
from sidecar.inject.objects import Item
from sidecar.inject.options import Options
from sidecar.inject.pods import Front
from sidecar.inject.selection import Selection
from sidecar.inject.tree import Branch, InjectError, branch_at, needed_branch

_ENDING = ("Job", "CronJob")
_NOT_ASKED = ("", "none")


def add(found: Sequence[Item], options: Options) -> list[str]:
    """
    Put the sidecar into all that have pods, and change the Services that lead there.

    Returns:
        What the operator has to know, a line each.

    Raises:
        InjectError: It does not fit somewhere.
        ConfigError: The settings do not work.
    """
    _refuse_ecs_options(options)
    notes: list[str] = []
    fronts: dict[Item, Front] = {}
    meant = _meant(found, options, notes)
    if not meant:
        raise InjectError("all that has pods here is made by something else", "pipe in what makes it")
    h2c_targets = _h2c_targets(found, meant)
    for item in meant:
        try:
            fronts[item] = _add_to(item, options, h2c_targets[item], notes)
        except InjectError as error:
            raise error.within(item.title) from None
    notes += _left_out(found, options)
    return notes + _redirect_services(found, fronts)


def remove(found: Sequence[Item], options: Options) -> list[str]:
    """As `add`, but take the sidecar out."""
    notes: list[str] = []
    meant = _meant(found, options, notes)
    for item in (*meant, *_services_of(meant, found, everything=not options.only)):
        try:
            if item.is_service:
                services.restore(item.root)
            elif pods.remove(item.template()) is None:
                notes.append(f"{item.title}: there is no sidecar of ours in it")
        except InjectError as error:
            raise error.within(item.title) from None
    return notes


def _add_to(item: Item, options: Options, h2c_targets: Collection[str], notes: list[str]) -> Front:
    if options.classic and item.kind in _ENDING:
        fact = "with a classic sidecar its pods would never end"
        raise InjectError(fact, "leave out --classic, or leave this one out with --only")
    template = item.template()
    before = pods.remove(template)
    front = pods.add(template, options, h2c_targets)
    notes.append(f"{item.title}: TLS on port {front.port}, in front of {front.behind}")
    notes += [f"{item.title}: {note}" for note in front.notes]
    asked = pods.client_certificates(before) if before else ""
    if asked not in _NOT_ASKED and pods.client_certificates(_ours(template)) in _NOT_ASKED:
        notes.append(f"{item.title}: warning: clients were asked for certificates ({asked}), and are not any more")
    if item.kind == "Pod" and branch_at(item.root, "status"):
        notes.append(f"{item.title}: warning: a running pod takes no containers: kubectl replace --force -f -")
    return front


def _ours(template: Branch) -> Branch:
    return pods.sidecar_of(needed_branch(template, "spec"))


def _meant(found: Sequence[Item], options: Options, notes: list[str]) -> list[Item]:
    """The objects with pods that the operator means, without those that something else makes again and again."""
    for wanted in options.only:
        if not any(item.has_pods and item.is_named(wanted) for item in found):
            names = ", ".join(item.title for item in found if item.has_pods) or "nothing"
            raise InjectError(f"--only {wanted!a}: there is none; what has pods is {names}", "correct the name")
    meant = []
    for item in found:
        if not item.has_pods or (options.only and not any(item.is_named(wanted) for wanted in options.only)):
            continue
        if item.owner:
            notes.append(f"{item.title}: left alone, since {item.owner} makes it")
        else:
            meant.append(item)
    return meant


def _left_out(found: Sequence[Item], options: Options) -> Iterator[str]:
    """Whose pods get no sidecar although nobody said so."""
    for item in found:
        if item.has_pods_unknown and not options.only:
            fact = f"it has pods and gets no sidecar, since {item.kind} of {item.group or 'v1'} is not known here"
            yield f"{item.title}: warning: {fact}: put one in by hand"


def _refuse_ecs_options(options: Options) -> None:
    if options.cert_arn or options.key_arn or options.client_ca_arn:
        raise InjectError("an ARN means nothing to Kubernetes", "give --secret or --client-ca-secret")


# -- Services -------------------------------------------------------------------------------------------------------


def _h2c_targets(found: Sequence[Item], meant: Sequence[Item]) -> Mapping[Item, set[str]]:
    """
    On which ports of their pods HTTP/2 without TLS is spoken, as Services say; those lead to the app again then.

    Raises:
        InjectError: What a Service was led to before cannot be made out.
    """
    targets: dict[Item, set[str]] = {item: set() for item in meant}
    with_pods = Selection(meant)
    for service in (item for item in found if item.is_service):
        behind = _selected_by(service, with_pods)
        if not behind:
            continue
        try:
            services.restore(service.root)
            said = services.h2c_targets(service.root)
        except InjectError as error:
            raise error.within(service.title) from None
        for item in behind:
            targets[item] |= said
    return targets


def _redirect_services(found: Sequence[Item], fronts: Mapping[Item, Front]) -> list[str]:
    notes: list[str] = []
    reached: set[Item] = set()
    with_pods = Selection(item for item in found if item.has_pods or item.has_pods_unknown)
    asking = _asking(found)
    for service in (item for item in found if item.is_service):
        selected = _selected_by(service, with_pods)
        behind = [item for item in selected if item in fronts]
        if not behind:
            continue
        there = [fronts[item] for item in behind]
        try:
            ports, plain = services.redirect(service.root, there), services.plain(service.root, there)
        except InjectError as error:
            raise error.within(service.title) from None
        if ports:
            reached.update(behind)
            spoken = "TLS (gRPC: channel credentials)" if there[0].is_h2c else "https"
            notes.append(f"{service.title}: {services.lead(ports)} to the sidecar: clients must speak {spoken}")
            notes += _service_warnings(service, there[0].port, [item for item in selected if item not in fronts])
            notes += _protocol_warnings(service, ports, there)
            notes += _ingress_warnings(service, asking[service.namespace, service.name], is_h2c=there[0].is_h2c)
        if plain:
            notes.append(_plain_warning(service, plain, there[0].app))
    for policy in (item for item in found if item.is_policy):
        selected = with_pods.of(policy.namespace, around.selector_of(policy.root))
        for item in (item for item in selected if item in fronts):
            notes += _policy_warnings(policy, item, fronts[item])
    for item, front in fronts.items():
        if item not in reached:
            fact = "no Service that leads to it is in the input"
            notes.append(f"{item.title}: warning: {fact}: set targetPort: {front.port} where there is one")
    return notes


def _asking(found: Sequence[Item]) -> Mapping[tuple[str, str], list[Item]]:
    """Namespace and name of a Service -> the Ingresses that pass requests on to it."""
    asking: dict[tuple[str, str], list[Item]] = defaultdict(list)
    for item in found:
        if item.is_ingress:
            for service in around.asked_by(item.root):
                asking[item.namespace, service].append(item)
    return asking


def _plain_warning(service: Item, ports: list[int], app: str) -> str:
    outside = services.outside(service.root)
    to = f" to everybody who reaches its {outside}" if outside else ""
    fact = f"{services.lead(ports)} to container {app} round the sidecar, without TLS{to}"
    return f"{service.title}: warning: {fact}: take it out, or shut it by a NetworkPolicy"


def _service_warnings(service: Item, port: int, others: Sequence[Item]) -> Iterator[str]:
    if services.is_headless(service.root):
        yield f"{service.title}: warning: it is headless: clients have to ask for port {port} themselves"
    for other in others:
        yield f"{service.title}: warning: it leads to {other.title} too, which has no sidecar and will not answer there"


def _protocol_warnings(service: Item, ports: Sequence[int], fronts: Sequence[Front]) -> Iterator[str]:
    # Whoever follows the advice takes away what the next run would know a gRPC app by.
    unnamed = next((front.app for front in fronts if front.is_h2c and not front.is_named_h2c), None)
    also = f"; inject knew the app by it: name the port of container {unnamed} grpc, or give --set upstream"
    for port, protocol in services.said_without_tls(service.root, ports).items():
        fact = f"appProtocol of port {port} is {protocol}, by which meshes and gateways may speak without TLS"
        fix = "write https, or what they take for HTTP/2 in TLS"
        yield f"{service.title}: warning: {fact}: {fix}{also if unnamed is not None else ''}"


def _ingress_warnings(service: Item, ingresses: Sequence[Item], *, is_h2c: bool) -> Iterator[str]:
    spoken = "GRPCS" if is_h2c else "HTTPS"
    for ingress in ingresses:
        fix = f"tell its controller (ingress-nginx: annotation nginx.ingress.kubernetes.io/backend-protocol: {spoken})"
        yield f"{ingress.title}: warning: it asks {service.title} over http: {fix}"


def _policy_warnings(policy: Item, item: Item, front: Front) -> Iterator[str]:
    if around.shuts_out(policy.root, front.port):
        yield f"{policy.title}: warning: it lets nobody in to {item.title} on port {front.port}: allow that"
    if front.app_port is not None and around.lets_in(policy.root, front.app_port, front.app_port_names):
        fact = f"it lets in to {item.title} on port {front.app_port}, round the sidecar"
        yield f"{policy.title}: warning: {fact}: name port {front.port} instead"


def _services_of(owners: Sequence[Item], found: Sequence[Item], everything: bool = False) -> list[Item]:
    with_pods = Selection(owners)
    return [item for item in found if item.is_service and (everything or _selected_by(item, with_pods))]


def _selected_by(service: Item, with_pods: Selection) -> list[Item]:
    """What a Service leads to; one without a selector has endpoints of its own."""
    selector = services.selector_of(service.root)
    return with_pods.of(service.namespace, selector) if selector else []
