"""The sidecar as a container of a Kubernetes pod."""

from __future__ import annotations

from typing import Final

from sidecar.inject.options import HEALTH, Environment, Options
from sidecar.inject.tree import FALSE, TRUE, Branch, Tree, branch, number

NAME: Final = "sidecar"

PORT: Final = 8443
"""Below 1024 not every node lets a container listen that is not root."""

CERTS_VOLUME: Final = "sidecar-certs"
CLIENT_CA_VOLUME: Final = "sidecar-client-ca"

CERTS_PATH: Final = "/certs"
CLIENT_CA_PATH: Final = "/client-ca"

USER: Final = 65532

MAX_CONNECTIONS: Final = "4000"
"""What the memory limit bears: some 60 MB, and 26 kB for each connection, more while it transfers."""

_CA_FILE = "ca.crt"


def settings(options: Options, app_port: int | None, *, is_h2c: bool) -> dict[str, str]:
    """
    What the sidecar is told: setting name -> text.

    Args:
        app_port: None: *options* say where the app is.
        is_h2c: Whether HTTP/2 without TLS is spoken on that port.
    """
    found = {"listen": f"0.0.0.0:{options.port or PORT}"}
    if app_port is not None:
        found["upstream"] = options.upstream(app_port, is_h2c=is_h2c)
    found["health"] = HEALTH
    found["max_connections"] = MAX_CONNECTIONS
    if options.secret is not None:
        found["tls_cert"] = CERTS_PATH
    if options.client_ca_secret is not None:
        found["client_cert"] = "required"
        shared = options.client_ca_secret == options.secret
        found["client_ca"] = f"{CERTS_PATH}/{_CA_FILE}" if shared else CLIENT_CA_PATH
    return found


def volumes(options: Options) -> list[Branch]:
    """
    The Secrets, as directories: what is mounted by subPath never changes again.

    No mode and no fsGroup: by default everybody may read what is in the volume, and nobody but the sidecar has it.
    An fsGroup would change the owner of the app's own volumes.
    """
    found = []
    if options.secret is not None:
        found.append(branch({"name": CERTS_VOLUME, "secret": branch({"secretName": options.secret})}))
    if options.client_ca_secret is not None and options.client_ca_secret != options.secret:
        # The Secret of a CA that cert-manager made has the key of the CA in it, too.
        items: list[Tree] = [branch({"key": _CA_FILE, "path": _CA_FILE})]
        secret = branch({"secretName": options.client_ca_secret, "items": items})
        found.append(branch({"name": CLIENT_CA_VOLUME, "secret": secret}))
    return found


def container(options: Options, environment: Environment, *, shares_processes: bool) -> Branch:
    """
    The container itself; a native sidecar unless the classic form is asked for.

    Args:
        shares_processes: Whether process 1 of the pod is another one, which the hook would end.
    """
    native: dict[str, Tree] = {} if options.classic else {"restartPolicy": "Always"}
    if not options.classic and not shares_processes:
        native["lifecycle"] = _lifecycle()
    env: list[Tree] = [branch({"name": name, "value": value}) for name, value in environment.variables.items()]
    paths = {CERTS_VOLUME: CERTS_PATH, CLIENT_CA_VOLUME: CLIENT_CA_PATH}
    mounts: list[Tree] = [
        branch({"name": name, "mountPath": paths[name], "readOnly": TRUE})
        for name in (str(volume["name"]) for volume in volumes(options))
    ]
    return branch(
        {
            "name": NAME,
            "image": options.image,
            **native,
            "env": env,
            "ports": [
                branch({"name": "https", "containerPort": number(environment.settings.listen.port)}),
                branch({"name": "health", "containerPort": number(environment.health_port)}),
            ],
            **_probes(),
            "resources": branch(
                {
                    "requests": branch({"cpu": "50m", "memory": "64Mi"}),
                    "limits": branch({"memory": "256Mi"}),
                }
            ),
            "securityContext": _security_context(),
            **({"volumeMounts": mounts} if mounts else {}),
        }
    )


def _lifecycle() -> Branch:
    # The kubelet signals a native sidecar when the app is gone. Hooks run first, all at once: with this one it drains
    # while the app still answers. In the classic form it gets SIGTERM together with the app.
    command: list[Tree] = ["sh", "-c", "kill 1"]
    return branch({"preStop": branch({"exec": branch({"command": command})})})


def _probes() -> dict[str, Tree]:
    # The app starts when the startup probe of a native sidecar has passed: /ready, which may want the app, would
    # wait for it for ever.
    return {
        "startupProbe": _probe("/live", periodSeconds=1, failureThreshold=60),
        "readinessProbe": _probe("/ready", periodSeconds=5, timeoutSeconds=2, failureThreshold=2),
        "livenessProbe": _probe("/live", periodSeconds=10, timeoutSeconds=2, failureThreshold=3),
    }


def _probe(path: str, **numbers: int) -> Branch:
    get = branch({"path": path, "port": "health"})
    return branch({"httpGet": get, **{name: number(value) for name, value in numbers.items()}})


def _security_context() -> Branch:
    """What the restricted Pod Security Standard wants, and a read-only root."""
    return branch(
        {
            "runAsNonRoot": TRUE,
            "runAsUser": number(USER),
            "runAsGroup": number(USER),
            "readOnlyRootFilesystem": TRUE,
            "allowPrivilegeEscalation": FALSE,
            "capabilities": branch({"drop": ["ALL"]}),
            "seccompProfile": branch({"type": "RuntimeDefault"}),
        }
    )
