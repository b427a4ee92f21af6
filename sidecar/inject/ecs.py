"""
ECS task definitions, as ``aws ecs register-task-definition`` takes them and ``describe-task-definition`` gives them.

What is written can always be registered. The containers of a task share localhost, and the ports on it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final

from sidecar.config.names import did_you_mean
from sidecar.inject import ecscontrols, ecsmappings, ecsnotes, mark
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
    text_at,
)

NAME: Final = "sidecar"
PORT: Final = 443
USER: Final = "65532:65532"

MAX_CONNECTIONS: Final = "1000"
"""So that no client makes the sidecar take the app's memory: 26 kB for each, more while it transfers."""

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
    r"arn:aws[a-z-]*:(?:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:|ssm:[a-z0-9-]+:[0-9]{12}:parameter/)[!-~]{1,600}"
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
    _refuse_cycle(root, app)
    settings = _settings(options, app, _app_port(app, options))
    environment = make_environment(options, settings, _from_secrets(options), ecsmappings.taken(root))
    taken = ecsmappings.take(app, environment.app_port)
    controls, lowered = ecscontrols.allow(root, app, environment.settings.listen.port)
    ours = _container(options, environment, app, controls)
    noted = {"app": text_at(app, "name"), "mappings": taken, **({"controls": lowered} if lowered else {})}
    ours["dockerLabels"] = branch({mark.LABEL: mark.write(noted)})
    _containers(root).append(ours)
    found = ecsnotes.notes(root, app, options, environment, has_taken=bool(taken), lowered=lowered)
    if before is not None:
        found += ecsnotes.lost(before, ours)
    return [f"{title_of(root)}: {each}" for each in found]


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


def _put_back(root: Branch, noted: Mapping[str, object]) -> None:
    ecscontrols.restore(root, noted.get("controls", []))
    app = next(
        (each for each in branches_at(root, "containerDefinitions") if text_at(each, "name") == noted.get("app")), {}
    )
    ecsmappings.put_back(app, noted.get("mappings"))


def _refuse_options(root: Branch, options: Options) -> None:
    if options.secret or options.client_ca_secret:
        raise InjectError("an ECS task has no Kubernetes Secrets", "give --cert-arn, --key-arn or --client-ca-arn")
    if options.classic or options.only:
        raise InjectError("--classic and --only are for Kubernetes", "leave them out")
    for arn in filter(None, (options.cert_arn, options.key_arn, options.client_ca_arn)):
        if ":acm:" in arn:
            fix = "export the certificate to Secrets Manager, or leave it out: a load balancer takes the ephemeral one"
            raise InjectError(f"{arn!a} is a certificate of ACM, which no task can read", fix)
        if _SECRET.fullmatch(arn) is None:
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
    if options.says_app_port:
        return options.app_port
    found = ecsmappings.first_port(app)
    if found is None:
        what = "maps only ranges of ports" if any(True for _ in ecsmappings.spans(app)) else "has no portMappings"
        raise InjectError(f"the container {text_at(app, 'name')!a} {what}", "give --app-port")
    return found


def _refuse_cycle(root: Branch, app: Branch) -> None:
    """The sidecar starts after the app: what the app waits for cannot wait for the sidecar."""
    found = {text_at(each, "name"): each for each in branches_at(root, "containerDefinitions")}
    waiting, seen = [text_at(app, "name")], set()
    while waiting:
        name = waiting.pop()
        needed = {text_at(each, "containerName") for each in branches_at(found.get(name, {}), "dependsOn")}
        if NAME in needed:
            fact = f"the container {name!a} has dependsOn {NAME}, which itself starts after {text_at(app, 'name')!a}"
            raise InjectError(fact, f"take {NAME} out of the dependsOn of {name!a}")
        seen.add(name)
        waiting += needed - seen


def _refuse_names(root: Branch) -> None:
    if any(text_at(each, "name") == NAME for each in branches_at(root, "containerDefinitions")):
        fact = f"there is a container {NAME} already, and no label says that it is ours"
        raise InjectError(fact, "rename it, or remove it if it was put there by hand")


# -- what is added --------------------------------------------------------------------------------------------------


def _settings(options: Options, app: Branch, app_port: int | None) -> dict[str, str]:
    found = {"listen": f"0.0.0.0:{options.port or PORT}"}
    if app_port is not None:
        found["upstream"] = options.upstream(app_port, is_h2c=ecsmappings.is_h2c(app, app_port))
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


def _container(options: Options, environment: Environment, app: Branch, controls: list[Branch]) -> Branch:
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
            "memoryReservation": number(ecsnotes.MEMORY),
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
    if controls:
        found["systemControls"] = [*controls]
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
    drain = environment.settings.timeouts.drain
    return min(ecsnotes.LONGEST_STOP, math.ceil(drain) + ecsnotes.STOP_MARGIN)
