"""k8s/ keeps its promises, as far as they can be read off its files; tests/engines/test_kubernetes.py runs them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # PyYAML has no annotations

from sidecar.config.load import gather
from sidecar.settings import ClientCertMode, HostPort, Settings
from tests.support.engines import APP_IMAGE, IMAGE
from tests.support.kube import HEALTH_PORT, HTTPS_PORT, Document, container, pod_spec

K8S = Path(__file__).parent.parent / "k8s"

FILES = sorted(K8S.rglob("*.yaml"))

PEM_BODY = re.compile(r"-----BEGIN [A-Z0-9 ]+-----\s+[A-Za-z0-9+/=]{20,}")

MOST_BYTES_AT_START, MOST_BYTES_PER_CONNECTION = 60_000_000, 27_000


def content(file: Path) -> Any:
    """Return what is in a file of one document."""
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def base(kind: str) -> Document:
    """Return the one document of that kind in k8s/base."""
    found: list[Document] = [content(file) for file in (K8S / "base").glob("*.yaml")]
    return next(document for document in found if document["kind"] == kind)


DEPLOYMENT = base("Deployment")
POD: Document = content(K8S / "overlays" / "pod" / "pod.yaml")
SIDECAR = container(DEPLOYMENT, "sidecar")
APP = container(DEPLOYMENT, "hello")
LABELS = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]


def objects(node: Any) -> Iterator[dict[str, Any]]:
    """Yield every mapping in *node*, however deep."""
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from objects(child)


def environment(node: Any) -> dict[str, str]:
    """Return every setting that *node* gives."""
    return {each["name"]: each["value"] for each in objects(node) if str(each.get("name")).startswith("SIDECAR_")}


def settings_of(given: dict[str, str]) -> Settings:
    """Read settings as the program does; there must be no problem."""
    loaded, problems = gather({}, given)
    assert problems == []
    return loaded.settings


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(K8S)))
class TestEveryFile:
    def test_holds_one_document(self, file: Path) -> None:
        """Each document is found by the name of its file."""
        assert content(file)

    def test_mounts_no_sub_path(self, file: Path) -> None:
        """What is mounted with subPath stays as it was when the pod started."""
        assert not [each for each in objects(content(file)) if {"subPath", "subPathExpr"} & each.keys()]

    def test_holds_no_key_and_no_certificate(self, file: Path) -> None:
        """Key material comes from the reader, and never goes through a repository."""
        assert PEM_BODY.search(file.read_text(encoding="utf-8")) is None

    def test_settings_are_the_programs(self, file: Path) -> None:
        """Every SIDECAR_ variable is one that the program takes, with a value that it takes."""
        settings_of(environment(content(file)))


class TestForms:
    def test_plain_pod_is_that_of_the_deployment(self) -> None:
        """One pod, written down twice."""
        assert pod_spec(POD) == pod_spec(DEPLOYMENT)
        assert POD["metadata"]["labels"] == LABELS

    @pytest.mark.parametrize("selector", ["Service", "NetworkPolicy", "PodDisruptionBudget", "Deployment"])
    def test_selectors_are_the_pods_labels(self, selector: str) -> None:
        """A selector that finds nothing is an error that nobody reports."""
        spec = base(selector)["spec"]
        found = spec["selector"] if "selector" in spec else spec["podSelector"]
        assert found.get("matchLabels", found) == LABELS

    def test_images_are_named_in_one_place(self) -> None:
        """k8s/settings says which images are used, and each of its names is one of the manifests'."""
        images = content(K8S / "settings" / "kustomization.yaml")["images"]
        assert [f"{image['newName']}:{image['newTag']}" for image in images] == [IMAGE, APP_IMAGE]
        assert [each["image"] for each in (SIDECAR, APP)] == [IMAGE, APP_IMAGE]
        assert {image["name"] for image in images} == {name.partition(":")[0] for name in (IMAGE, APP_IMAGE)}

    def test_namespace_is_the_one_that_is_made(self) -> None:
        """The namespace of k8s/settings is that of k8s/namespace.yaml and of the example."""
        name = content(K8S / "settings" / "kustomization.yaml")["namespace"]
        assert content(K8S / "namespace.yaml")["metadata"]["name"] == name
        assert content(K8S / "secret.example.yaml")["metadata"]["namespace"] == name

    def test_secret_is_the_one_that_is_mounted(self) -> None:
        """Example, Certificate and volume mean the same Secret."""
        (volume,) = pod_spec(DEPLOYMENT)["volumes"]
        name = volume["secret"]["secretName"]
        certificate = content(K8S / "components" / "cert-manager" / "certificate.yaml")
        assert content(K8S / "secret.example.yaml")["metadata"]["name"] == name == certificate["spec"]["secretName"]


class TestPod:
    def test_is_restricted(self) -> None:
        """It has what the restricted profile of the pod security standards asks for, and no token of the API."""
        spec = pod_spec(DEPLOYMENT)
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        assert not spec.keys() & {"hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace", "serviceAccountName"}
        labels = content(K8S / "namespace.yaml")["metadata"]["labels"]
        assert {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")} == labels

    @pytest.mark.parametrize("each", [SIDECAR, APP], ids=["sidecar", "app"])
    def test_container_is_restricted(self, each: Document) -> None:
        """No root, no capability, none to gain, nothing to write to."""
        context = dict(each["securityContext"])
        assert context.pop("runAsUser") == context.pop("runAsGroup") > 1000
        assert context == {
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        }

    def test_key_is_the_sidecars_alone(self) -> None:
        """The app neither mounts it nor is the user that could read the sidecar's memory; its group opens the files."""
        assert "volumeMounts" not in APP
        assert SIDECAR["securityContext"]["runAsUser"] != APP["securityContext"]["runAsUser"]
        spec = pod_spec(DEPLOYMENT)
        assert spec["securityContext"]["fsGroup"] == SIDECAR["securityContext"]["runAsGroup"]
        assert spec["volumes"][0]["secret"]["defaultMode"] == 0o440

    def test_app_is_reached_by_the_sidecar_alone(self) -> None:
        """It has no port, and the sidecar asks it on the loopback address."""
        assert "ports" not in APP
        assert settings_of(environment(SIDECAR)).upstream.endpoints == (HostPort("127.0.0.1", 8080),)
        assert not any("httpGet" in probe or "tcpSocket" in probe for probe in objects(APP))

    def test_memory_bears_the_connections(self) -> None:
        """The limit holds for as many idle connections as are let in."""
        limit = int(SIDECAR["resources"]["limits"]["memory"].removesuffix("Mi")) * 1024 * 1024
        connections = settings_of(environment(SIDECAR)).limits.connections
        assert MOST_BYTES_AT_START + connections * MOST_BYTES_PER_CONNECTION < limit


class TestPorts:
    def test_ports_are_those_that_are_listened_on(self) -> None:
        """The names that probes, Service and policy use stand for the ports that the settings say."""
        settings = settings_of(environment(SIDECAR))
        assert settings.health is not None
        listened = {"https": settings.listen.port, "health": settings.health.port}
        assert listened == {"https": HTTPS_PORT, "health": HEALTH_PORT}
        assert {port["name"]: port["containerPort"] for port in SIDECAR["ports"]} == listened

    def test_service_leads_to_the_listener(self) -> None:
        """443 outside, the unprivileged port inside."""
        (port,) = base("Service")["spec"]["ports"]
        assert (port["port"], port["targetPort"]) == (443, HTTPS_PORT)

    def test_policy_lets_in_to_the_listener_alone(self) -> None:
        """Neither the app's port nor the health port has a rule, and nothing goes out but DNS."""
        spec = base("NetworkPolicy")["spec"]
        assert spec["policyTypes"] == ["Ingress", "Egress"]
        assert spec["ingress"] == [{"ports": [{"port": HTTPS_PORT}]}]
        assert {port["port"] for rule in spec["egress"] for port in rule["ports"]} == {53}

    @pytest.mark.parametrize(
        ("probe", "path"), [("startupProbe", "/live"), ("livenessProbe", "/live"), ("readinessProbe", "/ready")]
    )
    def test_probes_ask_the_health_port(self, probe: str, path: str) -> None:
        """The app starts after the startup probe, and /ready waits for the app: together they would wait for ever."""
        assert SIDECAR[probe]["httpGet"] == {"path": path, "port": "health"}


class TestEnd:
    def test_app_outlives_the_drain(self) -> None:
        """It gets SIGTERM when the sidecar has drained, and has time left then."""
        drain_seconds = settings_of(environment(SIDECAR)).timeouts.drain
        waits = APP["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert drain_seconds <= waits < pod_spec(DEPLOYMENT)["terminationGracePeriodSeconds"]

    def test_classic_form_waits_as_long(self) -> None:
        """Its command is the action of the native form."""
        patch = content(K8S / "components" / "classic" / "deployment.yaml")
        (hook,) = (each["value"] for each in patch if each["path"].endswith("/preStop"))
        assert hook["exec"]["command"] == ["sleep", str(APP["lifecycle"]["preStop"]["sleep"]["seconds"])]

    def test_native_sidecar_is_told_at_once(self) -> None:
        """Its hook runs with the app's; in the classic form it must have none, since a second signal forces the end."""
        assert SIDECAR["lifecycle"]["preStop"]["exec"]["command"] == ["sh", "-c", "kill 1"]
        patch = content(K8S / "components" / "classic" / "deployment.yaml")
        assert {"op": "remove", "path": "/spec/template/spec/containers/0/lifecycle"} in patch


class TestComponents:
    @pytest.mark.parametrize("name", ["classic", "mtls", "mtls-ca-crt"])
    def test_patches_make_sure_of_the_container(self, name: str) -> None:
        """Where the first init container is another one, the build fails before anything is patched."""
        first = content(K8S / "components" / name / "deployment.yaml")[0]
        assert first == {"op": "test", "path": "/spec/template/spec/initContainers/0/name", "value": "sidecar"}

    @pytest.mark.parametrize("name", ["mtls", "mtls-ca-crt"])
    def test_mutual_tls_demands_a_certificate(self, name: str) -> None:
        """Required, not optional, and by a CA that is named."""
        given = environment(SIDECAR) | environment(content(K8S / "components" / name / "deployment.yaml"))
        settings = settings_of(given)
        assert settings.client.cert is ClientCertMode.REQUIRED
        assert settings.client.ca is not None

    def test_scaling_looks_at_each_container(self) -> None:
        """In the average of the pod, one that is idle would hide one that is busy."""
        metrics = base("HorizontalPodAutoscaler")["spec"]["metrics"]
        assert {metric["containerResource"]["container"] for metric in metrics} == {"sidecar", "hello"}


class TestReadme:
    README = (K8S / "README.md").read_text(encoding="utf-8")

    def test_names_every_form_and_component(self) -> None:
        """Whatever can be built is explained."""
        directories = {file.parent.relative_to(K8S) for file in FILES if file.name == "kustomization.yaml"}
        assert {str(directory) for directory in directories if f"`{directory}`" not in self.README} == set()

    def test_protocol_that_it_calls_right_is_that_of_the_service(self) -> None:
        """Whoever goes by it speaks TLS."""
        [protocol] = re.findall(r"`appProtocol: (\S+)` stays, and is right", self.README)
        assert [port["appProtocol"] for port in base("Service")["spec"]["ports"]] == [protocol]

    def test_paths_exist(self) -> None:
        """What a command names is there."""
        named = set(re.findall(r"k8s/[a-z0-9./-]+[a-z0-9]", self.README))
        assert {path for path in named if not (K8S.parent / path).exists()} == set()
