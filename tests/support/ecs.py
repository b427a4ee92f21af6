"""
The deployment files in ecs/: read them, put values into the templates as CloudFormation does, and turn its spelling of
names into that of the API and back.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import yaml  # type: ignore[import-untyped]  # PyYAML has no annotations

from tests.support.program import ROOT

ECS = ROOT / "ecs"

ACCOUNT = "111122223333"
REGION = "eu-west-1"
DIGEST = f"sha256:{'0' * 64}"

SECRET_NAME = "tls-app/tls-REPLACE"
TLS_SECRET = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:{SECRET_NAME}"
CA_SECRET = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:tls-app/client-ca-REPLACE"
KMS_KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/0b6a1b3e-6a4c-4f2f-9d0e-1f6f3c1f1a2b"

NOT_A_NAME = frozenset({"options", "Options"})
"""Keys below which there are no names of ours: their spelling is the log driver's."""

Values = dict[str, Any]
"""A JSON object."""


def document(name: str) -> Values:
    """Return a JSON file of ecs/."""
    read: Values = json.loads((ECS / name).read_text())
    return read


@functools.cache
def template(name: str) -> Values:
    """Return a template of ecs/, its short functions (``!Ref``) in their long form; to be read, not changed."""
    read: Values = yaml.load((ECS / name).read_text(), Loader=_Loader)
    return read


def camel(value: Any) -> Any:
    """Spell the names in *value* as the API does: ``TaskRoleArn`` is ``taskRoleArn``."""
    return _renamed(value, lambda name: name[0].lower() + name[1:])


def pascal(value: Any) -> Any:
    """Spell the names in *value* as CloudFormation does."""
    return _renamed(value, lambda name: name[0].upper() + name[1:])


def container(task: Values, name: str) -> Values:
    """Return one of a task definition's containers, in the API's spelling."""
    return next(each for each in task["containerDefinitions"] if each["name"] == name)


def parameters(name: str, **given: str) -> dict[str, str]:
    """
    Return the parameters of a template: the values of task-definition.json, which stand in for a user's, and *given*.

    Args:
        name: Of the template; it gets those that it knows.
    """
    containers = {each["name"]: each for each in document("task-definition.json")["containerDefinitions"]}
    environment = {each["name"]: each["value"] for each in containers["sidecar"]["environment"]}
    mine = {
        "VpcId": "vpc-1",
        "BalancerSubnets": "subnet-1,subnet-2",
        "BalancerCidrs": environment["SIDECAR_TRUSTED_PROXIES"],
        "ClientCidr": "192.0.2.0/24",
        "CertificateArn": f"arn:aws:acm:{REGION}:{ACCOUNT}:certificate/0b6a1b3e-6a4c-4f2f-9d0e-1f6f3c1f1a2b",
        "TaskSubnets": "subnet-3,subnet-4",
        "SidecarImage": containers["sidecar"]["image"],
        "AppImage": containers["app"]["image"],
        "TlsSecretArn": TLS_SECRET,
        "ClientCaSecretArn": CA_SECRET,
        **given,
    }
    known = template(name)["Parameters"]
    return {key: value for key, value in mine.items() if key in known}


@attrs.frozen
class Stack:
    """
    A template with values.

    Attributes:
        template: As `template` returns it.
        given: Values of its parameters; the others have their defaults.
        known: What its resources are called once they exist: by ``Name`` for a reference, by ``Name.Attribute`` for an
            attribute. Those that are not there are called by just that.
        name: Of the stack.
    """

    template: Values
    given: Mapping[str, str]
    known: Mapping[str, str] = attrs.field(factory=dict)
    name: str = "tls-app"

    def properties(self, resource: str) -> Values:
        """Return the properties of a resource."""
        resolved: Values = self._value(self.template["Resources"][resource]["Properties"])
        return resolved

    def task(self) -> Values:
        """Return the task definition, as ``register-task-definition`` takes it."""
        resolved: Values = camel(self.properties("TaskDefinition"))
        return resolved

    def _value(self, value: Any) -> Any:
        if isinstance(value, list):
            found = [self._value(each) for each in value]
            return [each for each in found if each is not _NO_VALUE]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            ((function, argument),) = value.items()
            if function in _FUNCTIONS:
                return _FUNCTIONS[function](self, argument)
        resolved = {key: self._value(each) for key, each in value.items()}
        return {key: each for key, each in resolved.items() if each is not _NO_VALUE}

    def _ref(self, name: str) -> Any:
        pseudo = {
            "AWS::AccountId": ACCOUNT,
            "AWS::NoValue": _NO_VALUE,
            "AWS::Partition": "aws",
            "AWS::Region": REGION,
            "AWS::StackName": self.name,
        }
        if name in pseudo:
            return pseudo[name]
        declared = self.template["Parameters"].get(name)
        if declared is None:
            assert name.partition(".")[0] in self.template["Resources"], f"there is no {name}"
            return self.known.get(name, name)
        value = self.given[name] if name in self.given else declared["Default"]
        return value.split(",") if declared["Type"].startswith("List<") else value

    def _sub(self, argument: str | list[Any]) -> str:
        text, own = (argument, {}) if isinstance(argument, str) else argument
        names = {key: self._value(each) for key, each in own.items()}
        return re.sub(r"\$\{([^}]+)\}", lambda match: str(names.get(match[1]) or self._ref(match[1])), text)

    def _if(self, argument: list[Any]) -> Any:
        condition, then, otherwise = argument
        return self._value(then if self._condition(condition) else otherwise)

    def _condition(self, name: str) -> bool:
        return bool(self._value(self.template["Conditions"][name]))


_NO_VALUE = object()

_FUNCTIONS: dict[str, Callable[[Stack, Any], Any]] = {
    "Ref": Stack._ref,
    "Condition": Stack._condition,
    "Fn::And": lambda stack, argument: all(stack._value(argument)),
    "Fn::Equals": lambda stack, argument: stack._value(argument[0]) == stack._value(argument[1]),
    "Fn::GetAtt": lambda stack, argument: stack._ref(argument),
    "Fn::If": Stack._if,
    "Fn::Not": lambda stack, argument: not stack._value(argument[0]),
    "Fn::Select": lambda stack, argument: stack._value(argument[1])[argument[0]],
    "Fn::Split": lambda stack, argument: stack._value(argument[1]).split(argument[0]),
    "Fn::Sub": Stack._sub,
}


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # as above
    """Reads CloudFormation's tags."""


def _tagged(loader: _Loader, suffix: str, node: yaml.Node) -> Values:
    name = suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}"
    if isinstance(node, yaml.SequenceNode):
        return {name: loader.construct_sequence(node, deep=True)}
    assert isinstance(node, yaml.ScalarNode)
    return {name: loader.construct_scalar(node)}


_Loader.add_multi_constructor("!", _tagged)


def _renamed(value: Any, rename: Callable[[str], str]) -> Any:
    if isinstance(value, list):
        return [_renamed(each, rename) for each in value]
    if not isinstance(value, dict):
        return value
    return {rename(key): each if key in NOT_A_NAME else _renamed(each, rename) for key, each in value.items()}
