"""`sidecar.inject.kubernetes`: which objects are changed, and what is said about them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import pytest

from sidecar.inject import stream
from sidecar.inject.options import Options
from sidecar.inject.tree import InjectError
from tests.inject.manifests import CERT_ARN, POD_SPEC, SERVICE, deployment, indented, injected, notes, pod, removed

TEMPLATE = f"template:\n  spec:\n{indented(POD_SPEC, 4)}"


def manifest(version: str, kind: str, body: str = "") -> str:
    body = body or f"spec:\n{indented(TEMPLATE, 2)}"
    return f"apiVersion: {version}\nkind: {kind}\nmetadata:\n  name: web\n{body}"


CRON_JOB = f"spec:\n  jobTemplate:\n    spec:\n{indented(TEMPLATE, 6)}"
POD_LIST = f"apiVersion: v1\nkind: PodList\nitems:\n- metadata:\n    name: web\n  spec:\n{indented(POD_SPEC, 4)}"
NESTED = (
    f"apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: List\n  items:\n  - {indented(pod(), 4).strip()}\n"
)


class TestKinds:
    @pytest.mark.parametrize(
        "text",
        [
            pytest.param(pod(), id="Pod"),
            pytest.param(manifest("v1", "PodTemplate", TEMPLATE), id="PodTemplate"),
            pytest.param(manifest("v1", "ReplicationController"), id="ReplicationController"),
            pytest.param(manifest("apps/v1", "Deployment"), id="Deployment"),
            pytest.param(manifest("apps/v1", "StatefulSet"), id="StatefulSet"),
            pytest.param(manifest("apps/v1", "DaemonSet"), id="DaemonSet"),
            pytest.param(manifest("apps/v1", "ReplicaSet"), id="ReplicaSet"),
            pytest.param(manifest("batch/v1", "Job"), id="Job"),
            pytest.param(manifest("batch/v1", "CronJob", CRON_JOB), id="CronJob"),
            pytest.param(POD_LIST, id="PodList"),
            pytest.param(NESTED, id="List-in-List"),
        ],
    )
    def test_everything_with_pods_gets_the_sidecar(self, text: str) -> None:
        """It goes in once, and out again."""
        once = injected(text)
        assert once.count("name: sidecar\n") == 1
        assert removed(once) == removed(text)

    @pytest.mark.parametrize(
        ("version", "kind"),
        [
            ("batch.volcano.sh/v1alpha1", "Job"),
            ("v1", "Deployment"),
            ("apps/v1", "Pod"),
            ("serving.knative.dev/v1", "Service"),
        ],
    )
    def test_kind_of_another_group_is_another_kind(self, version: str, kind: str) -> None:
        """A custom resource with a familiar name has another shape."""
        with pytest.raises(InjectError, match=f"no pod and no task definition is in it, only {kind}"):
            injected(manifest(version, kind))

    def test_rest_passes_unchanged(self) -> None:
        """What has no pods goes through as it came."""
        other = 'apiVersion: v1\nkind: ConfigMap\ndata:\n  run.sh: |\n    #!/bin/sh\n    exec app\n  mode: "0644"\n'
        assert injected(f"{other}---\n{deployment()}").startswith(other)

    def test_classic_sidecar_of_a_job_is_refused(self) -> None:
        """The Job would never end."""
        with pytest.raises(InjectError, match="Job web: with a classic sidecar its pods would never end"):
            injected(manifest("batch/v1", "Job"), classic=True)

    def test_missing_template_is_refused(self) -> None:
        """The error names the object and the key."""
        with pytest.raises(InjectError, match="Deployment web: there is no template; add it"):
            injected("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {}")

    def test_owned_object_is_left_alone(self) -> None:
        """What a Deployment makes is changed there."""
        owned = pod().replace(
            "  labels:", "  ownerReferences: [{kind: ReplicaSet, name: web-1, controller: true}]\n  labels:"
        )
        text = f"{deployment()}---\n{owned}"
        assert "Pod web: left alone, since ReplicaSet web-1 makes it" in notes(text)
        assert injected(text).count("name: sidecar\n") == 1
        with pytest.raises(InjectError, match="all that has pods here is made by something else"):
            injected(owned)

    def test_arn_is_refused(self) -> None:
        """Options of ECS are no options here."""
        with pytest.raises(InjectError, match="an ARN means nothing to Kubernetes; give --secret"):
            injected(pod(), cert_arn=CERT_ARN)


class TestOnly:
    TWO = f"{deployment()}---\n{deployment(name='db', labels='app: db')}"

    @pytest.mark.parametrize("only", ["db", "deployment/db", "Deployment/db"])
    def test_only_what_is_named_changes(self, only: str) -> None:
        """The rest stays, also when the sidecar goes again."""
        first, second = injected(self.TWO, only=(only,)).split("---\n")
        assert first == deployment()
        assert "name: sidecar\n" in second
        assert removed(f"{injected(deployment())}---\n{second}", only=(only,)).startswith(injected(deployment()))

    @pytest.mark.parametrize("only", ["cache", "pod/db", "DB"])
    def test_name_of_nothing_is_an_error(self, only: str) -> None:
        """A slip does not pass for success."""
        with pytest.raises(InjectError, match="there is none; what has pods is Deployment web, Deployment db"):
            injected(self.TWO, only=(only,))

    def test_without_it_all_change(self) -> None:
        """Every workload gets a sidecar, or none does."""
        assert injected(self.TWO).count("name: sidecar\n") == 2
        with pytest.raises(InjectError, match="Deployment web: there is no container 'x'"):
            injected(self.TWO, app="x")


class TestServices:
    BOTH = f"{SERVICE}---\n{deployment()}"

    def test_service_leads_to_the_sidecar_and_back(self) -> None:
        """Its port stays, its target changes, the other port stays."""
        once = injected(self.BOTH)
        assert "    port: 80\n    targetPort: 8443\n  - name: metrics\n    port: 9090\n---" in once
        assert injected(once) == once
        assert removed(once) == self.BOTH
        assert "Service web: port 80 leads to the sidecar: clients must speak https" in notes(self.BOTH)

    def test_other_options_change_it_again(self) -> None:
        """The Service follows the port."""
        assert injected(injected(self.BOTH), port=9443) == injected(self.BOTH, port=9443)

    @pytest.mark.parametrize(
        "service",
        [
            pytest.param(SERVICE.replace("app: web", "app: db"), id="of-another-app"),
            pytest.param(SERVICE.replace("  name: web\n", "  name: web\n  namespace: other\n", 1), id="elsewhere"),
        ],
    )
    def test_service_of_others_stays(self, service: str) -> None:
        """Selector and namespace decide; what is missing is said."""
        text = f"{service}---\n{deployment()}"
        assert injected(text).startswith(service)
        assert "warning: no Service that leads to it is in the input: set targetPort: 8443" in notes(text)

    def test_service_of_two_workloads_leads_to_both(self) -> None:
        """The second does not undo what was done for the first."""
        text = f"{self.BOTH}---\n{deployment(POD_SPEC.replace('8080', '5000'), name='canary')}"
        once = injected(text)
        assert once.count("targetPort: 8443") == 1
        assert injected(once) == once
        assert removed(once) == text
        assert "Service web: warning" not in notes(text)

    def test_service_that_leads_to_a_pod_without_sidecar_is_said(self) -> None:
        """Half of its pods would not be reached."""
        text = f"{self.BOTH}---\n{deployment(name='canary')}"
        said = notes(text, only=("web",))
        assert "Service web: warning: it leads to Deployment canary too, which has no sidecar" in said

    def test_headless_service_is_said(self) -> None:
        """Its clients come by the pod's address and go by no targetPort."""
        headless = SERVICE.replace("spec:\n", "spec:\n  clusterIP: None\n")
        assert "Service web: warning: it is headless" in notes(f"{headless}---\n{deployment()}")

    @pytest.mark.parametrize(
        ("kind", "said"),
        [
            pytest.param("", "without TLS: take it out", id="inside"),
            pytest.param("  type: LoadBalancer\n", "to everybody who reaches its LoadBalancer: take", id="balancer"),
        ],
    )
    def test_other_port_of_the_app_is_said(self, kind: str, said: str) -> None:
        """It leads round TLS, also where the Service has no port that leads to the sidecar."""
        other = SERVICE.replace("port: 9090", "port: 81\n    targetPort: 8000").replace("spec:\n", f"spec:\n{kind}")
        neither = other.replace("targetPort: http", "targetPort: 8001")
        for service, ports in ((other, "port 81 leads"), (neither, "ports 80, 81 lead")):
            lines = notes(f"{service}---\n{deployment()}").splitlines()
            [line] = [line for line in lines if "to container web round" in line]
            assert line.startswith(f"Service web: warning: {ports} to container web round the sidecar, without TLS")
            assert said in line


class TestH2c:
    SERVICE = SERVICE.replace("    targetPort: http\n", "    targetPort: http\n    appProtocol: kubernetes.io/h2c\n")
    BOTH = f"{SERVICE}---\n{deployment()}"
    UPSTREAM = "value: h2c://127.0.0.1:8080\n"

    def both(self, protocol: str) -> str:
        return self.BOTH.replace("kubernetes.io/h2c", protocol)

    def test_service_says_what_the_app_speaks(self) -> None:
        """Wherever it stands; a second run, in which it leads to the sidecar, knows it still."""
        once = injected(self.BOTH)
        assert self.UPSTREAM in once
        assert injected(once) == once
        assert removed(once) == self.BOTH
        assert self.UPSTREAM in injected(f"{deployment()}---\n{self.SERVICE}")
        assert "in front of container web on port 8080, in HTTP/2 without TLS (h2c)" in notes(self.BOTH)

    @pytest.mark.parametrize(
        "service",
        [
            pytest.param(SERVICE.replace("app: web", "app: db"), id="of-another-app"),
            pytest.param(SERVICE.replace("  name: web\n", "  name: web\n  namespace: other\n", 1), id="elsewhere"),
            pytest.param(SERVICE.replace("targetPort: http", "targetPort: 9090"), id="other-port"),
        ],
    )
    def test_service_of_others_says_nothing(self, service: str) -> None:
        """Selector, namespace and port decide."""
        assert "value: http://127.0.0.1:8080\n" in injected(f"{service}---\n{deployment()}")

    def test_operator_counts_more(self) -> None:
        """Who knows better says so; in raw TCP mode there is no protocol."""
        assert self.UPSTREAM not in injected(self.BOTH, settings={"upstream": "http://127.0.0.1:8080"})
        assert "value: http://127.0.0.1:8080\n" in injected(self.BOTH, settings={"mode": "tcp"})

    @pytest.mark.parametrize("protocol", ["kubernetes.io/h2c", "h2c", "grpc", "http2"])
    def test_protocol_that_is_no_longer_true_is_said(self, protocol: str) -> None:
        """The port of the Service leads to the sidecar now, which speaks TLS; `https` is right, and known to be."""
        [line] = [line for line in notes(self.both(protocol)).splitlines() if "appProtocol" in line]
        assert line == (
            f"Service web: warning: appProtocol of port 80 is {protocol}, by which meshes and gateways may speak "
            "without TLS: write https, or what they take for HTTP/2 in TLS; inject knew the app by it: "
            "name the port of container web grpc, or give --set upstream"
        )
        assert "appProtocol" not in notes(self.both("https"))

    def test_app_that_is_known_otherwise_needs_no_name(self) -> None:
        """Whoever follows the advice then loses nothing; in raw TCP mode there is nothing to know."""
        named = self.both("grpc").replace("name: http", "name: grpc").replace("targetPort: http", "targetPort: grpc")
        for said in (notes(named), notes(self.both("grpc"), settings={"mode": "tcp"})):
            assert "write https, or what they take for HTTP/2 in TLS" in said
            assert "inject knew the app by it" not in said

    def test_clients_are_told_the_word_of_grpc(self) -> None:
        """Who writes a gRPC client knows channel credentials, and no https."""
        line = "Service web: port 80 leads to the sidecar: clients must speak TLS (gRPC: channel credentials)"
        assert line in notes(self.BOTH).splitlines()

    def test_changed_mark_is_refused_with_its_service(self) -> None:
        """Before anything is read from where it leads."""
        once = injected(self.BOTH).replace('["http"]', "[[]]")
        with pytest.raises(InjectError, match="Service web"):
            stream.inject(once.encode(), Options())


class TestAround:
    INGRESS = (
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: web\nspec:\n"
        "  defaultBackend:\n    service: {name: web, port: {number: 80}}\n"
    )
    POLICY = (
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: web\nspec:\n"
        "  podSelector: {matchLabels: {app: web}}\n  ingress:\n  - ports: [{port: 8080}]\n"
    )

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            pytest.param(
                INGRESS, "Ingress web: warning: it asks Service web over http: tell its controller", id="ingress"
            ),
            pytest.param(
                POLICY, "NetworkPolicy web: warning: it lets nobody in to Deployment web on port 8443", id="policy"
            ),
        ],
    )
    def test_what_would_stop_working_is_said(self, text: str, message: str) -> None:
        """Whoever speaks http to the app, or lets in its port alone, has to be told; in other namespaces nobody."""
        assert message in notes(f"{SERVICE}---\n{deployment()}---\n{text}")
        elsewhere = text.replace("  name: web\n", "  name: web\n  namespace: other\n", 1)
        assert message not in notes(f"{SERVICE}---\n{deployment()}---\n{elsewhere}")

    def test_controller_is_told_of_grpc(self) -> None:
        """In HTTP/1.1 no call would come through."""
        text = f"{SERVICE}---\n{deployment()}---\n{self.INGRESS}".replace("name: http", "name: grpc")
        assert "backend-protocol: GRPCS)" in notes(text.replace("targetPort: http", "targetPort: grpc"))
        assert "backend-protocol: HTTPS)" in notes(f"{SERVICE}---\n{deployment()}---\n{self.INGRESS}")

    @pytest.mark.parametrize(
        ("ports", "is_said"),
        [("[{port: 8080}]", True), ("[{port: http}]", True), ("[]", True), ("[{port: 8443}]", False)],
    )
    def test_policy_that_lets_in_round_the_sidecar_is_said(self, ports: str, is_said: bool) -> None:
        """The app's port is no longer anybody's business."""
        said = notes(f"{deployment()}---\n{self.POLICY.replace('[{port: 8080}]', ports)}")
        line = (
            "NetworkPolicy web: warning: it lets in to Deployment web on port 8080, round the sidecar: name port 8443"
        )
        assert (line in said) == is_said

    def test_policy_of_other_pods_is_not(self) -> None:
        """The selector decides."""
        assert "NetworkPolicy" not in notes(f"{deployment(labels='app: db')}---\n{self.POLICY}")


class TestUnknownKinds:
    @pytest.mark.parametrize(
        ("version", "kind", "group"),
        [
            ("argoproj.io/v1alpha1", "Rollout", "argoproj.io"),
            ("extensions/v1beta1", "Deployment", "extensions"),
            ("apps.openshift.io/v1", "DeploymentConfig", "apps.openshift.io"),
            ("serving.knative.dev/v1", "Service", "serving.knative.dev"),
        ],
    )
    def test_pods_of_an_unknown_kind_are_said(self, version: str, kind: str, group: str) -> None:
        """They go through as they came, and not in silence; a Service that leads there as well is said too."""
        other = deployment(name="canary").replace("apps/v1", version).replace("kind: Deployment", f"kind: {kind}")
        text = f"{other}---\n{SERVICE}---\n{deployment()}"
        assert injected(text).startswith(other)
        said = notes(text)
        assert f"{kind} canary: warning: it has pods and gets no sidecar, since {kind} of {group} is not known" in said
        assert f"Service web: warning: it leads to {kind} canary too, which has no sidecar" in said

    def test_one_that_was_not_asked_for_is_not(self) -> None:
        """Whoever names what to change knows of the rest."""
        other = deployment(name="canary").replace("apps/v1", "argoproj.io/v1alpha1")
        assert "not known" not in notes(f"{other}---\n{deployment()}", only=("web",))

    @pytest.mark.parametrize("spec", ["null", "[]", "{template: 1}", "{template: {spec: {containers: x}}}"])
    def test_custom_resource_of_another_shape_is_none(self, spec: str) -> None:
        """Whatever stands there, it passes."""
        other = f"apiVersion: example.com/v1\nkind: Thing\nmetadata: {{name: x}}\nspec: {spec}\n"
        assert "Thing" not in notes(f"{other}---\n{deployment()}")


class TestLargeStreams:
    @staticmethod
    def calls(objects: int, options: Options, work: Callable[[bytes, Options], stream.Injected]) -> int:
        """How many function calls *work* makes of so many of each kind."""
        documents = []
        for i in range(objects):
            kinds = (deployment(), SERVICE, TestAround.INGRESS, TestAround.POLICY)
            documents += [each.replace("web", f"web{i}") for each in kinds]
        data = injected("---\n".join(documents), image="x").encode()
        counted = 0

        def count(frame: object, event: str, argument: object) -> None:
            nonlocal counted
            counted += event == "call"

        before = sys.getprofile()
        sys.setprofile(count)
        try:
            work(data, options)
        finally:
            sys.setprofile(before)
        return counted

    @pytest.mark.parametrize("work", [stream.inject, stream.remove])
    def test_work_grows_with_the_stream_and_not_faster(self, work: Callable[[bytes, Options], stream.Injected]) -> None:
        """Twice as many objects are twice the work: a whole cluster goes through in seconds."""
        self.calls(1, Options(), work)  # what is made once
        assert self.calls(80, Options(), work) < 2.2 * self.calls(40, Options(), work)


class TestNotes:
    def test_client_certificates_do_not_go_in_silence(self) -> None:
        """A second run that forgets an option opens the app to everybody; that is said."""
        once = injected(deployment(), client_ca_secret="ca")
        assert "warning: clients were asked for certificates (required), and are not any more" in notes(once)
        assert "were asked" not in notes(once, client_ca_secret="ca")

    def test_running_pod_is_said(self) -> None:
        """kubectl apply cannot add a container to it."""
        assert "kubectl replace --force" in notes(pod() + "status:\n  phase: Running\n")

    def test_removal_without_a_sidecar_is_said(self) -> None:
        """Whoever expected one learns that there was none."""
        assert stream.remove(pod().encode(), Options()).notes == ("Pod web: there is no sidecar of ours in it",)

    def test_names_cannot_steer_a_terminal(self) -> None:
        """An object's name is shown escaped."""
        said = notes(pod().replace("name: web\n", f"name: {json.dumps('a' + chr(27))}\n", 1))
        assert "\x1b" not in said
