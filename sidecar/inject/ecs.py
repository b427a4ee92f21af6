"""
ECS task definitions, as ``aws ecs register-task-definition`` takes them and ``describe-task-definition`` gives them.

What is written can always be registered. The containers of a task share localhost, and the ports on it.
"""

from __future__ import annotations

import json
import math
import re
from typing import Final

from sidecar.config.names import did_you_mean
from sidecar.inject import jsonform, mark
from sidecar.inject.options import HEALTH, Environment, Options, make_environment
from sidecar.inject.tree import (
    FALSE,
    TRUE,
    Branch,
    InjectError,
    Tree,
    branch,
    branch_at,
    branches_at,
    needed_branch,
    number,
    number_at,
    text_at,
)

NAME: Final = "sidecar"
PORT: Final = 443
USER: Final = "65532:65532"

MEMORY: Final = 64
"""MiB that are reserved; there is no limit but the task's."""

MAX_CONNECTIONS: Final = "1000"
"""So that no client makes the sidecar take the app's memory: 26 kB for each, more while it transfers."""

LONGEST_STOP: Final = 120
"""Seconds that Fargate waits at most."""

STOP_MARGIN: Final = 10
"""Seconds from the end of draining to the moment when the container is killed."""

# What describe-task-definition tells of a revision and register-task-definition refuses.
_READ_ONLY = frozenset(
    {
        "taskDefinitionArn",
        "revision",
        "status",
        "requiresAttributes",
        "compatibilities",
        "registeredAt",
        "registeredBy",
        "deregisteredAt",
        "deleteRequestedAt",
    }
)

_SECRET = re.compile(
    r"arn:aws[a-z-]*:(?:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret|ssm:[a-z0-9-]+:[0-9]{12}:parameter)"
)

# Valid for the checks that follow; what stands there in truth is not known before the task runs.
_ANY_FILE = "/from/secret"


def is_task(root: Branch) -> bool:
    """Whether a document is a task definition, in its wrapper or without."""
    inner = root.get("taskDefinition", root)
    return isinstance(inner, dict) and "containerDefinitions" in inner


def refuse_template(root: Branch) -> None:
    """Refuse CloudFormation, whose references nobody can follow here; raises InjectError."""
    if {"AWSTemplateFormatVersion", "Resources", "ContainerDefinitions"} & {
        key for key in root if isinstance(key, str)
    }:
        fact = "this is CloudFormation, which has references that are known only when the stack is made"
        raise InjectError(
            fact, "pipe in the output of aws ecs describe-task-definition, or the JSON that is registered"
        )


def unwrap(root: Branch) -> None:
    """Make of *root*, in place, what can be registered."""
    if "taskDefinition" in root:
        inner, tags = needed_branch(root, "taskDefinition"), branches_at(root, "tags")
        root.clear()
        root.update(inner)
        if tags:
            root["tags"] = list(tags)
    for key in _READ_ONLY & root.keys():
        del root[key]


def title_of(root: Branch) -> str:
    """How messages call a task definition."""
    family = text_at(root, "family")
    return f"task definition {family if family.isprintable() else ascii(family)}".strip()


def add(root: Branch, options: Options) -> list[str]:
    """
    Put the sidecar into a task definition, in place.

    Returns:
        What the operator has to know, a line each.

    Raises:
        InjectError: It does not fit.
        ConfigError: The settings do not work.
    """
    _refuse_options(root, options)
    _refuse_kind_of_task(root)
    before = remove(root)
    _refuse_names(root)
    app = _app(root, options)
    settings = _settings(options, _app_port(app, options))
    environment = make_environment(options, settings, _from_secrets(options), _taken(root))
    taken = _take_mappings(app, environment.app_port)
    ours = _container(options, environment, app)
    noted = {"app": text_at(app, "name"), "mappings": taken}
    ours["dockerLabels"] = branch({mark.LABEL: mark.write(noted)})
    _containers(root).append(ours)
    return _notes(root, options, environment, text_at(app, "name"), bool(taken), before)


def remove(root: Branch) -> Branch | None:
    """
    Take our sidecar out, in place.

    Returns:
        The container that it was; None if there was none.

    Raises:
        InjectError: Its label has been changed.
    """
    for ours in branches_at(root, "containerDefinitions"):
        label = text_at(branch_at(ours, "dockerLabels") or {}, mark.LABEL)
        if label and text_at(ours, "name") == NAME:
            _put_back(root, mark.read(label))
            _containers(root).remove(ours)
            return ours
    return None


# -- what is there --------------------------------------------------------------------------------------------------


def _containers(root: Branch) -> list[Tree]:
    found = root["containerDefinitions"]
    assert isinstance(found, list)  # `branches_at` refused everything else
    return found


def _refuse_options(root: Branch, options: Options) -> None:
    if options.secret or options.client_ca_secret:
        raise InjectError("an ECS task has no Kubernetes Secrets", "give --cert-arn, --key-arn or --client-ca-arn")
    if options.classic or options.only:
        raise InjectError("--classic and --only are for Kubernetes", "leave them out")
    for arn in filter(None, (options.cert_arn, options.key_arn, options.client_ca_arn)):
        if ":acm:" in arn:
            fix = "export the certificate to Secrets Manager, or leave it out: a load balancer takes the ephemeral one"
            raise InjectError(f"{arn!a} is a certificate of ACM, which no task can read", fix)
        if _SECRET.match(arn) is None:
            fix = "give arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME or arn:aws:ssm:REGION:ACCOUNT:parameter/NAME"
            raise InjectError(f"{arn!a} is no ARN of a secret", fix)
    if options.key_arn and not options.cert_arn:
        raise InjectError("--key-arn is the key of no certificate", "give --cert-arn too")
    if _from_secrets(options) and not text_at(root, "executionRoleArn"):
        raise InjectError("there is no executionRoleArn, and secrets need one", "add a role that may read them")


def _refuse_kind_of_task(root: Branch) -> None:
    mode = text_at(root, "networkMode") or "bridge"
    if mode != "awsvpc":
        fact = f"networkMode is {mode!a}: the sidecar would not reach the app on localhost, or everybody would"
        raise InjectError(fact, 'set "networkMode": "awsvpc"')
    if text_at(branch_at(root, "runtimePlatform") or {}, "operatingSystemFamily").upper().startswith("WINDOWS"):
        raise InjectError("the task runs on Windows", "leave it out: the sidecar runs on Linux")


def _app(root: Branch, options: Options) -> Branch:
    found = {text_at(each, "name"): each for each in branches_at(root, "containerDefinitions")}
    if not found:
        raise InjectError("the task has no containers", "pipe in the task definition of an app")
    if options.app is None:
        essential = (each for each in found.values() if each.get("essential") != FALSE)
        return next(essential, next(iter(found.values())))
    if options.app not in found:
        fix = did_you_mean(options.app, found, otherwise="name one of these")
        raise InjectError(f"there is no container {options.app!a}, only {', '.join(found)}", fix)
    return found[options.app]


def _app_port(app: Branch, options: Options) -> int | None:
    if options.app_port is not None:
        return options.app_port
    if "upstream" in options.settings:
        return None
    mappings = (each for each in branches_at(app, "portMappings") if _is_tcp(each))
    found = next((port for each in mappings if (port := number_at(each, "containerPort")) is not None), None)
    if found is None:
        raise InjectError(f"the container {text_at(app, 'name')!a} has no portMappings", "give --app-port")
    return found


def _refuse_names(root: Branch) -> None:
    if any(text_at(each, "name") == NAME for each in branches_at(root, "containerDefinitions")):
        fact = f"there is a container {NAME} already, and no label says that it is ours"
        raise InjectError(fact, "rename it, or remove it if it was put there by hand")


def _taken(root: Branch) -> dict[int, str]:
    """TCP port -> the container that maps it."""
    return {
        number_at(mapping, "containerPort") or 0: text_at(each, "name")
        for each in branches_at(root, "containerDefinitions")
        for mapping in branches_at(each, "portMappings")
        if _is_tcp(mapping)
    }


def _is_tcp(mapping: Branch) -> bool:
    return text_at(mapping, "protocol") in ("", "tcp")


# -- the app's port mappings ----------------------------------------------------------------------------------------


def _take_mappings(app: Branch, port: int | None) -> list[object]:
    """Take the mappings of the app's port away, so that nothing goes round TLS; each with the place where it was."""
    mappings = branches_at(app, "portMappings")
    taken = [
        (i, each)
        for i, each in enumerate(mappings)
        if port is not None and number_at(each, "containerPort") == port and _is_tcp(each)
    ]
    if taken:
        app["portMappings"] = [each for each in mappings if not any(each is mapping for _, mapping in taken)]
    try:
        return [[i, json.loads(jsonform.write_short(each))] for i, each in taken]
    except ValueError:
        fact = f"the portMappings of {text_at(app, 'name')!a} have a value that is no JSON"
        raise InjectError(fact, "write numbers in decimal, and texts in quotes") from None


def _put_back(root: Branch, noted: dict[str, object]) -> None:
    name, taken = noted.get("app"), noted.get("mappings")
    if not isinstance(taken, list):
        raise InjectError("its label is not as it was written", "take the sidecar out by hand")
    app = next((each for each in branches_at(root, "containerDefinitions") if text_at(each, "name") == name), None)
    if app is None or not taken:
        return
    mappings: list[Tree] = list(branches_at(app, "portMappings"))
    for entry in taken:
        match entry:
            case [int(place), dict(mapping)]:
                [original] = jsonform.read(json.dumps(mapping))
                mappings.insert(place, original)
            case _:
                raise InjectError("its label is not as it was written", "take the sidecar out by hand")
    app["portMappings"] = mappings


# -- what is added --------------------------------------------------------------------------------------------------


def _settings(options: Options, app_port: int | None) -> dict[str, str]:
    found = {"listen": f"0.0.0.0:{options.port or PORT}"}
    if app_port is not None:
        found["upstream"] = f"http://127.0.0.1:{app_port}"
    found["health"] = HEALTH
    found["max_connections"] = MAX_CONNECTIONS
    if options.client_ca_arn is not None:
        found["client_cert"] = "required"
    return found


def _from_secrets(options: Options) -> dict[str, str]:
    """Setting name -> a value that stands for the secret's."""
    given = {"tls_cert": options.cert_arn, "tls_key": options.key_arn, "client_ca": options.client_ca_arn}
    return {name: _ANY_FILE for name, arn in given.items() if arn is not None}


def _secrets(options: Options) -> list[Tree]:
    given = {
        "SIDECAR_TLS_CERT": options.cert_arn,
        "SIDECAR_TLS_KEY": options.key_arn,
        "SIDECAR_CLIENT_CA": options.client_ca_arn,
    }
    return [branch({"name": name, "valueFrom": arn}) for name, arn in given.items() if arn is not None]


def _container(options: Options, environment: Environment, app: Branch) -> Branch:
    port = environment.settings.listen.port
    # Stopping goes the other way round: the sidecar drains while the app still answers.
    condition = "HEALTHY" if branch_at(app, "healthCheck") else "START"
    drop: list[Tree] = ["ALL"]
    found = branch(
        {
            "name": NAME,
            "image": options.image,
            "essential": TRUE,
            "user": USER,
            "readonlyRootFilesystem": TRUE,
            "linuxParameters": branch({"capabilities": branch({"drop": drop})}),
            "memoryReservation": number(MEMORY),
            "portMappings": [branch({"containerPort": number(port), "protocol": "tcp"})],
            "environment": [branch({"name": name, "value": value}) for name, value in environment.variables.items()],
            "dependsOn": [branch({"containerName": text_at(app, "name"), "condition": condition})],
            "healthCheck": _health_check(),
            "restartPolicy": _restart_policy(),
            "stopTimeout": number(_stop_timeout(environment)),
        }
    )
    if secrets := _secrets(options):
        found["secrets"] = secrets
    if port < 1024:
        namespace = "net.ipv4.ip_unprivileged_port_start"
        found["systemControls"] = [branch({"namespace": namespace, "value": str(port)})]
    if (log := branch_at(app, "logConfiguration")) is not None:
        found["logConfiguration"] = log
    return found


def _health_check() -> Branch:
    command: list[Tree] = ["CMD", "sidecar", "healthcheck"]
    numbers = {"interval": 10, "timeout": 5, "retries": 3, "startPeriod": 30}
    return branch({"command": command, **{name: number(value) for name, value in numbers.items()}})


def _restart_policy() -> Branch:
    # 78: settings or certificates that cannot work, which no restart mends.
    ignored: list[Tree] = [number(78)]
    return branch({"enabled": TRUE, "ignoredExitCodes": ignored, "restartAttemptPeriod": number(60)})


def _stop_timeout(environment: Environment) -> int:
    return min(LONGEST_STOP, math.ceil(environment.settings.timeouts.drain) + STOP_MARGIN)


# -- what to say ----------------------------------------------------------------------------------------------------


def _notes(
    root: Branch, options: Options, environment: Environment, app: str, has_taken: bool, before: Branch | None
) -> list[str]:
    port = environment.settings.listen.port
    where = f"port {environment.app_port}" if environment.app_port is not None else "a socket"
    found = [
        f"TLS on port {port}, in front of container {app} on {where}",
        f"in the service, loadBalancers must name containerName {NAME} and containerPort {port}",
    ]
    if has_taken:
        found.append(f"the portMappings of {app} for {environment.app_port} are gone, so that nothing goes round TLS")
    if (drain := environment.settings.timeouts.drain) > LONGEST_STOP - STOP_MARGIN:
        fact = (
            f"SIDECAR_DRAIN_TIMEOUT={drain:g}s is longer than Fargate's stopTimeout of at most {LONGEST_STOP} s allows"
        )
        found.append(f"warning: {fact}: set it to {LONGEST_STOP - STOP_MARGIN}s or less")
    found += _memory_warning(root)
    if options.cert_arn is None and "tls_cert" not in options.settings:
        found.append(
            "warning: no --cert-arn: the certificate is made at start; an ALB takes it, clients cannot check it"
        )
    if before is not None and (asked := _asks_clients(before)) and not environment.variables.get("SIDECAR_CLIENT_CERT"):
        found.append(f"warning: clients were asked for certificates ({asked}), and are not any more")
    return [f"{title_of(root)}: {each}" for each in found]


def _memory_warning(root: Branch) -> list[str]:
    """AWS refuses containers that reserve more than the task has."""
    total = number_at(root, "memory")
    reserved = sum(
        number_at(each, "memoryReservation") or number_at(each, "memory") or 0
        for each in branches_at(root, "containerDefinitions")
    )
    if total is None or reserved <= total:
        return []
    fact = f"the containers reserve {reserved} MiB, {MEMORY} of it for the sidecar, and the task has {total}"
    return [f"warning: {fact}: lower memoryReservation or memory of the others, or raise that of the task"]


def _asks_clients(ours: Branch) -> str:
    values = {text_at(each, "name"): text_at(each, "value") for each in branches_at(ours, "environment")}
    asked = values.get("SIDECAR_CLIENT_CERT", "")
    return "" if asked == "none" else asked
