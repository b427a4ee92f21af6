"""
Ensures that k8s/ is what Kubernetes takes, and that each of its forms really runs: serves, follows its Secret, and ends
without losing a request.
"""

from __future__ import annotations

import http.client
import os
import re
import ssl
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.scenarios.clients import HttpsClient, Response, client_context, write_identity
from tests.support.certs import CLIENT, authority, other_authority
from tests.support.engines import run
from tests.support.kube import (
    FORMS,
    HEALTH_PORT,
    HTTPS_PORT,
    K8S,
    Document,
    Load,
    PlayedPod,
    build,
    container,
    files_of,
    kube_tool,
    pod_spec,
    serial,
    tls_secret,
    workload,
)
from tests.support.program import eventually

BUILDS = ("base", *sorted(str(path.relative_to(K8S)) for path in (K8S / "overlays").iterdir()))

CERTIFICATE = "Certificate"
"""Of cert-manager, whose schemas no package of ours has: judged by `CERTIFICATE_FIELDS`."""

CERTIFICATE_FIELDS: dict[str, type | dict[str, Any]] = {
    "secretName": str,
    "secretTemplate": {"labels": dict},
    "dnsNames": list,
    "issuerRef": {"group": str, "kind": str, "name": str},
    "duration": str,
    "renewBefore": str,
    "usages": list,
    "privateKey": {"algorithm": str, "size": int, "rotationPolicy": str},
}
"""The fields of cert-manager.io/v1 that we use, from its API reference."""

FIRST = authority().issue("hello")
SECOND = authority().issue("hello")
CA_PEM = authority().cert_pem.decode()


def ask(pod: PlayedPod, context: ssl.SSLContext | None = None) -> Response:
    """Ask the app, through TLS."""
    with HttpsClient(Door(pod), context=context, server_name="hello") as client:
        return client.get("/service")


def health(pod: PlayedPod, path: str) -> int:
    """Ask the health port, as the kubelet does; return the status."""
    with closing(http.client.HTTPConnection(pod.host, HEALTH_PORT, timeout=5)) as connection:
        connection.request("GET", path)
        return connection.getresponse().status


class Door:
    """A pod's TLS port, where `HttpsClient` expects a program."""

    def __init__(self, pod: PlayedPod) -> None:
        self.host, self.port = pod.host, HTTPS_PORT


@pytest.fixture(scope="module", params=BUILDS)
def documents(request: pytest.FixtureRequest) -> list[Document]:
    """What each directory is built to."""
    return build(request.param)


class TestBuild:
    def test_every_document_is_in_the_namespace(self, documents: list[Document]) -> None:
        """That of k8s/settings, whatever a component has added."""
        assert {document["metadata"]["namespace"] for document in documents} == {"hello"}

    def test_documents_are_valid(self, documents: list[Document], tmp_path: Path) -> None:
        """By the schemas of the newest Kubernetes, which know every field."""
        file = tmp_path / "built.yaml"
        file.write_text(yaml.safe_dump_all(each for each in documents if each["kind"] != CERTIFICATE))
        run(kube_tool("kubernetes-validate"), "--strict", file)

    @pytest.mark.parametrize("directory", ["overlays/cert-manager", "overlays/cert-manager-mtls"])
    def test_certificate_is_one_of_cert_managers(self, directory: str) -> None:
        """It has the fields that it must have, and others that there are, each of its type."""
        (certificate,) = (each for each in build(directory) if each["kind"] == CERTIFICATE)
        assert certificate["apiVersion"] == "cert-manager.io/v1"
        assert {"secretName", "issuerRef", "dnsNames"} <= certificate["spec"].keys()
        assert strangers(certificate["spec"], CERTIFICATE_FIELDS) == []

    @pytest.mark.parametrize("file", ["namespace.yaml", "secret.example.yaml"])
    def test_single_files_are_valid(self, file: str) -> None:
        """What is applied, or read, without kustomize."""
        run(kube_tool("kubernetes-validate"), "--strict", K8S / file)

    def test_sidecar_is_the_same_in_every_form(self) -> None:
        """But for what makes it a native one, and its hook."""
        native, *others = (container(workload(build(directory)), "sidecar") for directory in FORMS.values())
        for other in others:
            assert {**native, "restartPolicy": ..., "lifecycle": ...} == {
                **other,
                "restartPolicy": ...,
                "lifecycle": ...,
            }

    def test_classic_form_is_two_containers(self) -> None:
        """The sidecar first, without anything that older clusters do not know."""
        spec = pod_spec(workload(build(FORMS["classic"])))
        assert [each["name"] for each in spec["containers"]] == ["sidecar", "hello"]
        assert not spec["containers"][0].keys() & {"restartPolicy", "lifecycle"}
        assert spec["initContainers"] == []

    def test_components_combine(self, tmp_path: Path) -> None:
        """Mutual TLS with the classic form, which comes last."""
        sidecar = container(workload(built(tmp_path, "cert-manager", "mtls", "classic")), "sidecar")
        assert {"name": "SIDECAR_CLIENT_CERT", "value": "required"} in sidecar["env"]

    def test_components_in_the_wrong_order_are_refused(self, tmp_path: Path) -> None:
        """A build that left out the client certificates would be worse than none."""
        with pytest.raises(AssertionError, match="status 1"):
            built(tmp_path, "classic", "mtls")


def built(directory: Path, *components: str) -> list[Document]:
    """Return what the base with *components* is built to."""
    k8s = os.path.relpath(K8S, directory)
    (directory / "kustomization.yaml").write_text(
        yaml.safe_dump(
            {
                "apiVersion": "kustomize.config.k8s.io/v1beta1",
                "kind": "Kustomization",
                "resources": [f"{k8s}/base"],
                "components": [f"{k8s}/components/{name}" for name in components],
            }
        )
    )
    return [*yaml.safe_load_all(run(kube_tool("kubectl"), "kustomize", directory).stdout)]


def strangers(found: dict[str, Any], known: dict[str, Any]) -> list[str]:
    """Return the fields of *found* that are not *known*, or of another type."""
    wrong = []
    for name, value in found.items():
        wanted = known.get(name)
        if isinstance(wanted, dict) and isinstance(value, dict):
            wrong += [f"{name}.{inner}" for inner in strangers(value, wanted)]
        elif not isinstance(wanted, type) or not isinstance(value, wanted):
            wrong.append(name)
    return wrong


class TestCheckov:
    @pytest.mark.parametrize(
        "arguments",
        [
            ("-d", "k8s", "--framework", "kubernetes"),
            ("-d", "k8s", "--framework", "kustomize"),
            ("-f", "Dockerfile", "examples/hello/Dockerfile", "--framework", "dockerfile"),
            ("-d", "ecs", "--framework", "cloudformation"),
        ],
        ids=lambda arguments: arguments[-1],
    )
    def test_finds_nothing(self, arguments: tuple[str, ...]) -> None:
        """What it is not to look for stands in .checkov.yaml, each with its reason."""
        tools = Path(kube_tool("kubectl")).parent
        environ = {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
        output = run(kube_tool("checkov"), *arguments, environ=environ).stdout
        counts = re.search(r"Passed checks: (\d+), Failed checks: (\d+)", output)
        assert counts is not None
        assert (int(counts[1]) > 40, counts[2]) == (True, "0")


@pytest.fixture(scope="module")
def pod(image: str, app_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlayedPod]:
    """The native form with mutual TLS, as the overlay has it."""
    client_ca = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "hello-client-ca"},
        "data": {"ca.crt": CA_PEM},
    }
    manifest = workload(build("overlays/mtls"))
    with PlayedPod(tmp_path_factory.mktemp("pod"), manifest, tls_secret(files_of(FIRST)), client_ca) as pod:
        yield pod


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """Of a client whose certificate is good."""
    file = tmp_path_factory.mktemp("client") / "client.pem"
    return client_context(identity=write_identity(authority().issue("web", purposes=CLIENT), file))


@pytest.mark.slow
@pytest.mark.usefixtures("image", "app_image")
class TestPods:
    @pytest.mark.parametrize("form", FORMS)
    def test_serves_follows_its_secret_and_ends_without_a_loss(self, form: str, tmp_path: Path) -> None:
        """
        Under load from its beginning to its end, no request is lost: not while the Secret is swapped, whose certificate
        is served within seconds and without a restart, and not while the pod ends.
        """
        manifest = workload(build(FORMS[form]))
        with PlayedPod(tmp_path, manifest, tls_secret(files_of(FIRST))) as pod:
            load = Load(pod.addresses, CA_PEM)
            with load.running() as tally:
                pod.swap(files_of(SECOND))
                eventually(lambda: serial(SECOND) in tally.serials, "the new certificate is served", 30.0)
                assert pod.status["containers"]["sidecar"]["restarts"] == 0
                load.wait_for_more()
                log = pod.end()
            assert tally.lost == []
            assert tally.serials == {serial(FIRST), serial(SECOND)}
            assert re.search(r"sidecar stopped after .* exit code 0", log)


@pytest.mark.slow
class TestMutualTls:
    def test_client_without_a_certificate_is_refused(self, pod: PlayedPod) -> None:
        """With the overlay for mutual TLS, and the CA from its ConfigMap."""
        assert ask(pod).status == 400

    def test_client_of_another_authority_is_refused(self, pod: PlayedPod, tmp_path: Path) -> None:
        """The ConfigMap says whose certificates count."""
        stranger = other_authority().issue("web", purposes=CLIENT)
        assert ask(pod, client_context(identity=write_identity(stranger, tmp_path / "stranger.pem"))).status == 403

    def test_client_with_a_certificate_is_served(self, pod: PlayedPod, context: ssl.SSLContext) -> None:
        """The app answers, which knows nothing of all this."""
        assert ask(pod, context).body == f"Hello from {pod.name}\n".encode()

    def test_probes_need_no_certificate(self, pod: PlayedPod) -> None:
        """The kubelet has none; the health port says what it needs, and nothing else."""
        assert [health(pod, path) for path in ("/live", "/ready", "/certs", "/service")] == [200, 200, 404, 404]

    def test_pod_is_not_ready_while_the_app_is_down(self, pod: PlayedPod, context: ssl.SSLContext) -> None:
        """/ready says so as soon as a request has found out, and that it is back without any request."""
        pod.execute("hello", "sh", "-c", "kill 1")

        def is_known() -> bool:
            return ask(pod, context).status in (502, 503) and health(pod, "/ready") == 503

        eventually(is_known, "the sidecar says that the app is down")
        assert health(pod, "/live") == 200
        eventually(lambda: health(pod, "/ready") == 200, "the app is back")
        assert ask(pod, context).status == 200
        assert pod.status["containers"]["sidecar"]["restarts"] == 0
