"""`sidecar.inject.podnotes`: ways round the sidecar, and how a pod ends."""

from __future__ import annotations

from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # PyYAML has no annotations

from tests.inject.manifests import POD_SPEC, indented, notes, pod

WELL = POD_SPEC.replace("- name: web\n", "- name: web\n  lifecycle: {preStop: {sleep: {seconds: 20}}}\n")
PORTS = "containers:\n- name: web\n  ports:\n  - containerPort: 8080\n  - {}\n"


class TestNotes:
    @pytest.mark.parametrize(
        ("spec", "options", "message"),
        [
            pytest.param("", {}, "no --secret", id="ephemeral"),
            pytest.param(
                "terminationGracePeriodSeconds: 24\n",
                {},
                "terminationGracePeriodSeconds is 24, too short for SIDECAR_DRAIN_TIMEOUT=20s: set it to 25 or more",
                id="grace",
            ),
            pytest.param("terminationGracePeriodSeconds: 0\n", {}, "terminationGracePeriodSeconds is 0", id="no-grace"),
            pytest.param("", {"settings": {"drain_timeout": "26"}}, "is 30, too short", id="default-grace"),
            pytest.param("", {"port": 443}, "port 443 needs net.ipv4.ip_unprivileged_port_start=0", id="low-port"),
            pytest.param("hostNetwork: true\n", {}, "8081, 8082, 8443 must be free on every node", id="host-ports"),
            pytest.param(
                "hostNetwork: true\n",
                {},
                "whoever reaches a node reaches the app without TLS, and no NetworkPolicy applies",
                id="host-network",
            ),
        ],
    )
    def test_what_may_go_wrong_is_said(self, spec: str, options: dict[str, Any], message: str) -> None:
        """It is left as it is, and a warning says what to do."""
        assert message in notes(pod(POD_SPEC + spec), **options)

    def test_what_is_well_is_not(self) -> None:
        """Warnings that are always there are read by nobody."""
        said = notes(pod(WELL + "terminationGracePeriodSeconds: 25\n"), secret="web-tls")
        assert [line for line in said.splitlines() if "warning" in line] == [
            "Pod web: warning: no Service that leads to it is in the input: set targetPort: 8443 where there is one"
        ]

    @pytest.mark.parametrize(
        ("spec", "said"),
        [
            pytest.param(POD_SPEC, "on 8080 to all", id="one"),
            pytest.param(PORTS.format("containerPort: 8000"), "on 8080, 8000 to all", id="others-of-the-app"),
            pytest.param(PORTS.format("{containerPort: 8000, protocol: UDP}"), "on 8080 to all", id="udp"),
        ],
    )
    def test_open_port_of_the_app_is_always_said(self, spec: str, said: str) -> None:
        """The sidecar closes nothing: where the app listens, nobody here can see."""
        line = (
            f"Pod web: without TLS, the app stays open {said} who reach the pod, unless web listens on 127.0.0.1 alone"
        )
        assert notes(pod(spec)).splitlines().count(line) == 1

    @pytest.mark.parametrize(
        ("port", "is_said"),
        [
            pytest.param("{containerPort: 8080, hostPort: 80}", True, id="tcp"),
            pytest.param("{containerPort: 8000, hostPort: 80}", True, id="another-of-the-app"),
            pytest.param("{containerPort: 8080, hostPort: 80, protocol: UDP}", False, id="udp"),
            pytest.param("{containerPort: 8080}", False, id="none"),
        ],
    )
    def test_port_of_the_node_that_leads_to_the_app_is_said(self, port: str, is_said: bool) -> None:
        """Whoever reaches a node goes round TLS there."""
        said = notes(pod(PORTS.format(port)))
        assert ("warning: hostPort 80 of every node leads to port 80" in said) == is_said

    def test_host_port_of_host_network_is_said_once(self) -> None:
        """There it is the port itself, whatever is written."""
        said = notes(pod(PORTS.format("{containerPort: 8080, hostPort: 8080}") + "hostNetwork: true\n"))
        assert "hostPort" not in said

    def test_app_that_is_not_asked_is_not_warned_of(self) -> None:
        """Where requests go elsewhere, how the app ends is its own affair."""
        said = notes(pod(), settings={"upstream": "https://10.0.0.9:443"})
        assert "preStop" not in said
        assert "the app stays open on 8080 to all" in said


class TestOtherPorts:
    TWO = (
        "containers:\n- name: web\n  ports:\n  - {name: grpc, containerPort: 50051}\n  - {containerPort: 8080}\n"
        "  - {containerPort: 9000, protocol: UDP}\n"
    )

    def test_port_that_was_not_taken_is_said(self) -> None:
        """Which of several was meant is a guess; what is to be done for the others can be read off."""
        assert (
            "Pod web: warning: only port 50051 of web gets TLS, the first in its list, and 8080 none: "
            "shut 8080 by a NetworkPolicy, or let web listen there on 127.0.0.1 alone; "
            "and confirm or choose the port with --app-port"
        ) in notes(pod(self.TWO)).splitlines()

    def test_policy_is_no_advice_for_the_network_of_the_node(self) -> None:
        """None applies there."""
        said = notes(pod(f"{self.TWO}hostNetwork: true\n"))
        assert "shut 8080 by a firewall on every node, or" in said

    @pytest.mark.parametrize(
        ("spec", "options"),
        [
            pytest.param(TWO, {"app_port": 50051}, id="confirmed"),
            pytest.param(TWO, {"app_port": 8080}, id="chosen"),
            pytest.param(TWO, {"settings": {"upstream": "h2c://127.0.0.1:50051"}}, id="by-setting"),
            pytest.param(POD_SPEC, {}, id="one"),
            pytest.param(PORTS.format("{containerPort: 8080, name: again}"), {}, id="one-twice"),
        ],
    )
    def test_choice_of_the_operator_is_not(self, spec: str, options: dict[str, Any]) -> None:
        """A warning that nobody can answer is read by nobody."""
        assert "gets TLS" not in notes(pod(spec), **options)


class TestProbes:
    def said(self, probes: str, spec: str = "") -> list[str]:
        text = pod(POD_SPEC.replace("- name: web\n", f"- name: web\n{indented(probes, 2)}") + spec)
        return [line for line in notes(text).splitlines() if "kubelet" in line]

    @pytest.mark.parametrize("probe", ["startupProbe", "readinessProbe", "livenessProbe"])
    def test_probe_by_grpc_is_said(self, probe: str) -> None:
        """On 127.0.0.1 alone, as a note advises to listen, the kubelet finds nobody."""
        assert self.said(f"{probe}: {{grpc: {{port: 50051}}}}") == [
            f"Pod web: warning: the {probe} of web: by grpc the kubelet asks port 50051 at the pod's address, in vain "
            "once web listens on 127.0.0.1 alone: ask by a command first, such as "
            "exec: {command: [grpc_health_probe, -addr=127.0.0.1:50051]}"
        ]

    def test_command_can_be_copied(self) -> None:
        """It is YAML, and a probe."""
        [line] = self.said("readinessProbe: {grpc: {port: 50051}}")
        assert yaml.safe_load(line.partition("such as ")[2]) == {
            "exec": {"command": ["grpc_health_probe", "-addr=127.0.0.1:50051"]}
        }

    def test_probes_of_one_port_are_said_at_once(self) -> None:
        """And those of another by themselves."""
        first, second = self.said(
            "livenessProbe: {grpc: {port: 50051}}\nreadinessProbe: {grpc: {port: 50051, service: ready}}\n"
            "startupProbe: {grpc: {port: 50052}}\n"
        )
        assert "the startupProbe of web: by grpc the kubelet asks port 50052 " in first
        assert "the readinessProbe and the livenessProbe of web: by grpc the kubelet asks port 50051 " in second

    @pytest.mark.parametrize(
        "probes",
        [
            pytest.param("readinessProbe: {exec: {command: [grpc_health_probe]}}", id="command"),
            pytest.param("readinessProbe: {httpGet: {port: 8080}}", id="http"),
            pytest.param("readinessProbe: {grpc: null}", id="null"),
            pytest.param("readinessProbe: null", id="none"),
        ],
    )
    def test_other_probe_is_not(self, probes: str) -> None:
        """By HTTP it can be led through the sidecar; nearly every pod has one."""
        assert self.said(probes) == []

    def test_probe_of_another_container_is_not(self) -> None:
        """It is told nothing of 127.0.0.1."""
        assert self.said("tty: true", "  readinessProbe: {grpc: {port: 9090}}\n") == []


class TestEnd:
    @pytest.mark.parametrize(
        ("options", "said"),
        [
            pytest.param({}, "add to web lifecycle: {preStop: {sleep: {seconds: 20}}} (Kubernetes 1.30)", id="native"),
            pytest.param(
                {"classic": True},
                'add to web lifecycle: {preStop: {exec: {command: [sleep, "20"]}}}',
                id="classic",
            ),
            pytest.param({"settings": {"drain_timeout": "1500ms"}}, "{sleep: {seconds: 2}}", id="rounded-up"),
        ],
    )
    def test_app_without_a_hook_is_said(self, options: dict[str, Any], said: str) -> None:
        """It has to outlive the sidecar; what to add can be copied, and is YAML."""
        [line] = [line for line in notes(pod(), **options).splitlines() if "preStop" in line]
        assert line.startswith("Pod web: warning: web has no preStop and may end before the sidecar")
        assert said in line

    @pytest.mark.parametrize(
        ("hook", "is_well"),
        [
            pytest.param("{preStop: {sleep: {seconds: 20}}}", True, id="long-enough"),
            pytest.param("{preStop: {exec: {command: [sleep, '20']}}}", True, id="command"),
            pytest.param("{preStop: {sleep: {seconds: 19}}}", False, id="too-short"),
            pytest.param("{postStart: {exec: {command: [x]}}}", False, id="another-hook"),
            pytest.param("{preStop: null}", False, id="null"),
            pytest.param("null", False, id="no-hooks"),
        ],
    )
    def test_app_with_a_hook_that_is_long_enough_is_not(self, hook: str, is_well: bool) -> None:
        """As long as the sidecar drains."""
        spec = POD_SPEC.replace("- name: web\n", f"- name: web\n  lifecycle: {hook}\n")
        assert ("preStop" not in notes(pod(spec))) == is_well

    @pytest.mark.parametrize("policy", ["Never", "OnFailure"])
    def test_pod_that_ends_by_itself_needs_none(self, policy: str) -> None:
        """Nobody rolls a Job out."""
        assert "preStop" not in notes(pod(f"{POD_SPEC}restartPolicy: {policy}\n"))

    @pytest.mark.parametrize("shared", ["shareProcessNamespace", "hostPID"])
    def test_hook_that_is_left_out_is_said(self, shared: str) -> None:
        """In the classic form there is none to be left out."""
        spec = f"{POD_SPEC}{shared}: true\n"
        assert f"warning: {shared}: processes are shared, so that no hook can tell the sidecar" in notes(pod(spec))
        assert "processes are shared" not in notes(pod(spec), classic=True)
