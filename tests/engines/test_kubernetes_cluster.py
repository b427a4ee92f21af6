"""
Ensures that the classic form runs in a real cluster: deployed as k8s/README.md says, it follows its Secret and is
restarted without losing a request.

A job of its own (`make test-kube`), since such a cluster may have to be built first.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from tests.support.certs import authority
from tests.support.engines import run, script, tool
from tests.support.kube import FORMS, HTTPS_PORT, K8S, Address, Load, build, files_of, serial
from tests.support.program import eventually

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.environ.get("SIDECAR_TEST_CLUSTER"), reason="a job of its own: make test-kube"),
]

START_SECONDS = 3600.0
ROLLOUT_SECONDS = 300.0
SYNC_SECONDS = 120.0
"""How long a kubelet may take to bring a new Secret to the pods: its period, and that of its cache."""

TOO_NEW = ("PodDisruptionBudget", "HorizontalPodAutoscaler")
"""What the cluster, which is 1.20, knows only in versions that are gone by now."""

REPLICAS = 2

FIRST = authority().issue("hello")
SECOND = authority().issue("hello")

Kubectl = Callable[..., str]


@pytest.fixture(scope="module")
def kubectl() -> Iterator[Kubectl]:
    """Start the cluster, unless it runs; return what runs ``kubectl`` in our namespace, which is gone at the end."""
    output = run(script("start-kube"), seconds=START_SECONDS).stdout
    config = re.search(r"KUBECONFIG=(\S+)", output)
    assert config is not None, output
    program = tool("kubectl")

    def kubectl(*arguments: str | Path, stdin: str | None = None) -> str:
        return run(program, "--kubeconfig", config[1], "--namespace", "hello", *arguments, stdin=stdin).stdout

    yield kubectl
    if "running already" in output:
        kubectl("delete", "namespace", "hello")
    else:
        run(script("stop-kube"))


@pytest.fixture(scope="module")
def deployed(kubectl: Kubectl, image: str, app_image: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The classic form, ready; the path is that of the directory that its Secret was made of."""
    certs = tmp_path_factory.mktemp("certs")
    kubectl("apply", "--filename", K8S / "namespace.yaml")
    put_secret(kubectl, certs, files_of(FIRST))
    documents = [each for each in build(FORMS["classic"]) if each["kind"] not in TOO_NEW]
    kubectl("apply", "--filename", "-", stdin=yaml.safe_dump_all(documents))
    kubectl("scale", "deployment/hello", f"--replicas={REPLICAS}")
    kubectl("rollout", "status", "deployment/hello", f"--timeout={ROLLOUT_SECONDS:.0f}s")
    return certs


def put_secret(kubectl: Kubectl, directory: Path, files: dict[str, bytes]) -> None:
    """Make the Secret, or change it, as k8s/README.md says."""
    for name, content in files.items():
        (directory / name).write_bytes(content)
    made = ("create", "secret", "generic", "hello-tls", "--type=kubernetes.io/tls", f"--from-file={directory}")
    kubectl("apply", "--filename", "-", stdin=kubectl(*made, "--dry-run=client", "--output=yaml"))


def pods(kubectl: Kubectl) -> set[str]:
    """Return the names of the pods that are there, those that are ending too."""
    return set(kubectl("get", "pods", "--output=name").split())


class Endpoints:
    """What the Service leads to, looked up again and again, as nodes and balancers do."""

    def __init__(self, kubectl: Kubectl) -> None:
        self._kubectl = kubectl
        self._addresses: Sequence[Address] = ()
        self._is_over = threading.Event()

    def addresses(self) -> Sequence[Address]:
        return self._addresses

    @contextmanager
    def followed(self) -> Iterator[None]:
        """Follow them until the block ends."""
        self._look()
        thread = threading.Thread(target=self._follow)
        thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            thread.join()

    def _follow(self) -> None:
        while not self._is_over.wait(0.2):
            self._look()

    def _look(self) -> None:
        subsets = json.loads(self._kubectl("get", "endpoints", "hello", "--output=json")).get("subsets", [])
        self._addresses = [(each["ip"], HTTPS_PORT) for subset in subsets for each in subset.get("addresses", [])]


class TestClassicForm:
    def test_loses_no_request(self, kubectl: Kubectl, deployed: Path) -> None:
        """
        Under load, a new Secret is served without a restart, and a rollout replaces every pod; whoever asks is answered
        all the while.
        """
        endpoints = Endpoints(kubectl)
        load = Load(endpoints.addresses, authority().cert_pem.decode())
        with endpoints.followed(), load.running() as tally:
            before = pods(kubectl)
            put_secret(kubectl, deployed, files_of(SECOND))
            eventually(lambda: serial(SECOND) in tally.serials, "the new certificate is served", SYNC_SECONDS)
            assert pods(kubectl) == before

            kubectl("rollout", "restart", "deployment/hello")
            kubectl("rollout", "status", "deployment/hello", f"--timeout={ROLLOUT_SECONDS:.0f}s")
            eventually(lambda: not pods(kubectl) & before, "the old pods are gone", ROLLOUT_SECONDS)
            load.wait_for_more()
        print(f"{tally.answered} requests answered, {len(tally.lost)} lost")
        assert tally.lost == []
        assert len(pods(kubectl)) == REPLICAS

    def test_sidecar_needs_nothing_that_the_profile_forbids(self, kubectl: Kubectl, deployed: Path) -> None:
        """The pods run as they are restricted, and none of their containers has been restarted."""
        found = json.loads(kubectl("get", "pods", "--output=json"))["items"]
        statuses = [status for pod in found for status in pod["status"]["containerStatuses"]]
        assert {status["name"] for status in statuses} == {"sidecar", "hello"}
        assert {status["restartCount"] for status in statuses} == {0}
