"""
Kubernetes for the tests: build what k8s/ describes, run it as a pod, swap its Secret as the kubelet does, ask it
without a pause.
"""

from __future__ import annotations

import base64
import http.client
import itertools
import socket
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import attrs
import yaml  # type: ignore[import-untyped]  # PyYAML has no annotations

from tests.support.certs import Issued, authority
from tests.support.engines import docker, run, script, tool
from tests.support.program import ROOT, eventually

K8S = ROOT / "k8s"

FORMS = {"native": "base", "classic": "overlays/classic", "pod": "overlays/pod"}
"""The ways to run the sidecar beside an app, and what to build for each."""

WORKLOADS = ("Deployment", "Pod")

HTTPS_PORT = 8443
HEALTH_PORT = 8082

PROPAGATION_SECONDS = 3.0
"""How long a Service may go on sending new connections to a pod that ends; the sidecar's lame duck is 5 s."""

Address = tuple[str, int]

_VOLUMES = "/var/lib/containers/storage/volumes"
_GROUP = 65532

Document = dict[str, Any]


def kube_tool(name: str) -> str:
    """Return the path of a program of requirements/kube.txt."""
    return tool(name, ".venv-kube")


def build(directory: str) -> list[Document]:
    """Return the manifests that ``kubectl kustomize`` makes of a directory in k8s/."""
    return [*yaml.safe_load_all(run(kube_tool("kubectl"), "kustomize", K8S / directory).stdout)]


def workload(documents: Sequence[Document]) -> Document:
    """Return the one that has a pod."""
    found: list[Document] = [document for document in documents if document["kind"] in WORKLOADS]
    assert len(found) == 1, f"{len(found)} workloads"
    return found[0]


def pod_spec(document: Document) -> Document:
    """Return the specification of the pod that a workload makes, or that a Pod is."""
    spec: Document = document["spec"] if document["kind"] == "Pod" else document["spec"]["template"]["spec"]
    return spec


def container(document: Document, name: str) -> Document:
    """Return a container by its name, be it a native sidecar or one beside the others."""
    spec = pod_spec(document)
    containers: list[Document] = [*spec.get("initContainers", ()), *spec["containers"]]
    return next(each for each in containers if each["name"] == name)


def files_of(issued: Issued) -> dict[str, bytes]:
    """Return what the Secret holds for a certificate of `authority`."""
    return {"tls.crt": issued.cert_pem, "tls.key": issued.key_pem, "ca.crt": authority().cert_pem}


def serial(issued: Issued) -> str:
    """Return a certificate's serial number as `Tally` has it."""
    digits = f"{issued.certificate.serial_number:x}"
    return digits.zfill(len(digits) + len(digits) % 2)


def tls_secret(files: Mapping[str, bytes]) -> Document:
    """Return the Secret that the manifests ask for."""
    data = {name: base64.b64encode(content).decode() for name, content in files.items()}
    metadata = {"name": "hello-tls", "namespace": "hello"}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "kubernetes.io/tls", "data": data}


class PlayedPod:
    """
    A pod run by `play-kube`, for ``with``.

    Attributes:
        name: Its own, so that several may run at once.
        host: Its address.
    """

    def __init__(self, directory: Path, manifest: Document, *others: Document) -> None:
        """
        Args:
            directory: For our files.
            manifest: The workload.
            others: Secrets and ConfigMaps.
        """
        self.name = f"hello-{uuid.uuid4().hex[:8]}"
        self.host = ""
        self._directory = directory
        self._manifest = {**manifest, "metadata": {**manifest["metadata"], "name": self.name}}
        self._others = others
        self._versions = 0
        self._end_began_at: float | None = None

    def __enter__(self) -> Self:
        file = self._directory / f"{self.name}.yaml"
        file.write_text(yaml.safe_dump_all([self._manifest, *self._others]))
        try:
            run(script("play-kube"), "up", file)
        except BaseException:
            self._remove()
            raise
        self.host = docker("inspect", "--format", "{{.NetworkSettings.IPAddress}}", self._host_name)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            error.add_note(run(script("play-kube"), "logs", self.name, statuses=range(256)).stdout)
        self._remove()

    @property
    def _host_name(self) -> str:
        return f"pod-{self.name}"

    def _remove(self) -> None:
        docker("rm", "--force", "--volumes", self._host_name, statuses=(0, 1))

    def addresses(self) -> Sequence[Address]:
        """Return where a Service sends new connections: here, or nowhere some time after the end began."""
        if self._end_began_at is not None and time.monotonic() - self._end_began_at > PROPAGATION_SECONDS:
            return ()
        return ((self.host, HTTPS_PORT),)

    @property
    def status(self) -> Document:
        """What the pod's host says of it: ``podReady``, ``phase``, ``containers``."""
        found: Document = yaml.safe_load(run(script("play-kube"), "status", self.name).stdout)
        return found

    def execute(self, name: str, *command: str) -> str:
        """Run a command in a container; return its standard output."""
        return run(script("play-kube"), "exec", self.name, name, *command).stdout

    def swap(self, files: Mapping[str, bytes], volume: str = "hello-tls") -> None:
        """Put *files* in place of a Secret's or ConfigMap's, as the kubelet does: all at once, by a symbolic link."""
        self._versions += 1
        version = f"..{self._versions}"
        source = self._directory / f"{self.name}{version}"
        source.mkdir()
        for name, content in files.items():
            (source / name).write_bytes(content)
            (source / name).chmod(0o440)
        target = f"{_VOLUMES}/{volume}/_data"
        docker("cp", "--quiet", source, f"{self._host_name}:{target}/{version}")
        lines = [
            f"cd {target}",
            f"chgrp -R {_GROUP} {version}",
            f"chmod 0750 {version}",
            f"ln -s {version} ..new && mv -T ..new ..data",
            *(f"test -L {name} || {{ ln -s ..data/{name} ..new && mv -T ..new {name}; }}" for name in files),
        ]
        docker("exec", self._host_name, "sh", "-ec", "\n".join(lines))

    def end(self) -> str:
        """
        End the pod as the kubelet does; return what its host says about the end of each container.

        The kubelet runs the hook of a native sidecar with those of the others, at once; the host, as the last thing. So
        it is run here.
        """
        self._end_began_at = time.monotonic()
        docker("kill", "--signal", "TERM", self._host_name)
        hook = self._hook_of_native_sidecar()
        if hook:
            self.execute("sidecar", *hook)
        eventually(lambda: not self._runs(), f"{self.name} has ended", 60.0)
        return docker("logs", self._host_name)

    def _runs(self) -> bool:
        return docker("inspect", "--format", "{{.State.Running}}", self._host_name) == "true"

    def _hook_of_native_sidecar(self) -> Sequence[str]:
        sidecar = container(self._manifest, "sidecar")
        command: Sequence[str] = sidecar.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ())
        return command


@attrs.define
class Tally:
    """
    What became of the requests of a `Load`.

    Attributes:
        answered: How many were answered with 200.
        lost: What became of each of the others.
        serials: Of the certificates that were served, in hexadecimal.
    """

    answered: int = 0
    lost: list[str] = attrs.Factory(list)
    serials: set[str] = attrs.Factory(set)


class Load:
    """
    Clients that ask without a pause: most keep their connections, as pools do, the others connect anew each time.

    A connection that is closed in good order, with ``Connection: close`` on its last response, is followed by another.
    Whatever else than 200 becomes of a request or of a connection is a loss.
    """

    KEEPING, RENEWING = 4, 2
    PAUSE_SECONDS = 0.005

    def __init__(self, addresses: Callable[[], Sequence[Address]], cadata: str, name: str = "hello") -> None:
        """
        Args:
            addresses: Where new connections may go, as a Service would say it now.
            cadata: PEM of the CA that the server's certificate must come from.
            name: Server name that it must have.
        """
        self.tally = Tally()
        self._addresses = addresses
        self._name = name
        self._context = ssl.create_default_context(cadata=cadata)
        self._is_over = threading.Event()
        self._turns = itertools.count()
        keeps = [True] * self.KEEPING + [False] * self.RENEWING
        self._threads = [threading.Thread(target=self._ask, args=(each,)) for each in keeps]

    @contextmanager
    def running(self) -> Iterator[Tally]:
        """Ask until the block ends, which begins when some have been answered."""
        for thread in self._threads:
            thread.start()
        try:
            self.wait_for_more()
            yield self.tally
        finally:
            self._is_over.set()
            for thread in self._threads:
                thread.join(30.0)

    def wait_for_more(self, answers: int = 100) -> None:
        """Wait until that many more have been answered."""
        wanted = self.tally.answered + answers
        eventually(lambda: self.tally.answered >= wanted, "requests are answered", 30.0)

    def _ask(self, keeps: bool) -> None:
        while not self._is_over.is_set():
            addresses = self._addresses()
            if not addresses:
                self._is_over.wait(self.PAUSE_SECONDS)
                continue
            try:
                self._converse(addresses[next(self._turns) % len(addresses)], keeps)
            except (OSError, http.client.HTTPException) as error:
                self.tally.lost.append(repr(error))
                self._is_over.wait(self.PAUSE_SECONDS)

    def _converse(self, address: Address, keeps: bool) -> None:
        with (
            socket.create_connection(address, 10.0) as raw,
            self._context.wrap_socket(raw, server_hostname=self._name, suppress_ragged_eofs=False) as tls,
        ):
            self.tally.serials.add(str((tls.getpeercert() or {})["serialNumber"]).lower())
            connection = http.client.HTTPConnection(self._name)
            connection.auto_open = 0
            connection.sock = tls
            while self._is_answered(connection) and keeps and not self._is_over.is_set():
                self._is_over.wait(self.PAUSE_SECONDS)

    def _is_answered(self, connection: http.client.HTTPConnection) -> bool:
        """Ask once; return whether the connection may be used again."""
        connection.request("GET", "/service")
        response = connection.getresponse()
        response.read()
        if response.status == 200:
            self.tally.answered += 1
        else:
            self.tally.lost.append(str(response.status))
        return not response.will_close
