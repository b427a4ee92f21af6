"""Manifests and task definitions to put the sidecar into."""

from __future__ import annotations

import json
from typing import Any

import yaml

from sidecar.inject import stream
from sidecar.inject.options import Options

CERT_ARN = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:web-cert-a1b2c3"
KEY_ARN = "arn:aws:ssm:eu-west-1:123456789012:parameter/web/key"

LOGS = {
    "logDriver": "awslogs",
    "options": {"awslogs-group": "/ecs/web", "awslogs-region": "eu-west-1", "awslogs-stream-prefix": "web"},
}

POD_SPEC = """\
containers:
- name: web
  image: registry.example/web:1.4
  ports:
  - name: http
    containerPort: 8080
- name: metrics
  image: registry.example/metrics:2
  ports:
  - containerPort: 9090
"""

SERVICE = """\
apiVersion: v1
kind: Service
metadata:
  name: web
spec:
  selector:
    app: web
  ports:
  - name: http
    port: 80
    targetPort: http
  - name: metrics
    port: 9090
"""


def indented(text: str, by: int) -> str:
    return "".join(f"{' ' * by}{line}\n" if line else "\n" for line in text.splitlines())


def deployment(spec: str = POD_SPEC, name: str = "web", labels: str = "app: web") -> str:
    """A Deployment with *spec* in its template."""
    return (
        f"apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: {name}\nspec:\n  selector:\n    matchLabels:\n"
        f"      {labels}\n  template:\n    metadata:\n      labels:\n        {labels}\n    spec:\n{indented(spec, 6)}"
    )


def pod(spec: str = POD_SPEC) -> str:
    """A Pod."""
    return f"apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\n  labels:\n    app: web\nspec:\n{indented(spec, 2)}"


def task(**changes: object) -> dict[str, Any]:
    """A task definition for Fargate as it is registered."""
    app = {
        "name": "web",
        "image": "registry.example/web:1.4",
        "essential": True,
        "portMappings": [
            {"containerPort": 8080, "protocol": "tcp", "name": "web"},
            {"containerPort": 9090, "protocol": "tcp"},
        ],
        "logConfiguration": LOGS,
    }
    found: dict[str, Any] = {
        "family": "web",
        "networkMode": "awsvpc",
        "requiresCompatibilities": ["FARGATE"],
        "cpu": "256",
        "memory": "512",
        "executionRoleArn": "arn:aws:iam::123456789012:role/web",
        "containerDefinitions": [app],
    }
    return {**found, **changes}


def injected(text: str, **options: Any) -> str:
    """What is written for *text*."""
    return stream.inject(text.encode(), Options(**options)).text


def notes(text: str, **options: Any) -> str:
    """What is said about *text*, a line each."""
    return "\n".join(stream.inject(text.encode(), Options(**options)).notes)


def removed(text: str, **options: Any) -> str:
    """*text* without the sidecar."""
    return stream.remove(text.encode(), Options(**options)).text


def loaded(text: str) -> Any:
    """The first document of YAML."""
    return next(yaml.safe_load_all(text))


def injected_pod(spec: str = POD_SPEC, **options: Any) -> Any:
    """The spec of a Pod with the sidecar in it."""
    return loaded(injected(pod(spec), **options))["spec"]


def injected_task(changes: dict[str, object] | None = None, **options: Any) -> Any:
    """A task definition with the sidecar in it."""
    return json.loads(injected(json.dumps(task(**(changes or {}))), **options))
