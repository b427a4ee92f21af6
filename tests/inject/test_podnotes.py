"""`sidecar.inject.podnotes`: ways round the sidecar, and how a pod ends."""

from __future__ import annotations

from typing import Any

import pytest

from tests.inject.manifests import POD_SPEC, notes, pod

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
