"""`sidecar.inject.services`: ports that led to the app lead to the sidecar."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from sidecar.inject import services, yamlread
from sidecar.inject.pods import Front
from sidecar.inject.tree import Branch, InjectError, Plain

FRONT = Front(app="web", app_port=8080, app_port_names=frozenset({"http"}), port=8443)


def service(ports: str) -> Branch:
    [root] = yamlread.read(f"kind: Service\nmetadata: {{name: web}}\nspec: {{selector: {{app: web}}, ports: {ports}}}")
    assert isinstance(root, dict)
    return root


def ports_of(root: Branch) -> Any:
    assert isinstance(root["spec"], dict)
    return root["spec"]["ports"]


class TestRedirect:
    @pytest.mark.parametrize(
        ("port", "is_changed"),
        [
            pytest.param("{port: 80, targetPort: http}", True, id="by-name"),
            pytest.param("{port: 80, targetPort: 8080}", True, id="by-number"),
            pytest.param("{port: 8080}", True, id="by-its-own-number"),
            pytest.param("{port: 8080, targetPort: null}", True, id="null"),
            pytest.param("{port: 80, targetPort: 8080, protocol: TCP}", True, id="tcp"),
            pytest.param("{port: 80, targetPort: 8080, protocol: UDP}", False, id="udp"),
            pytest.param("{port: 80, targetPort: metrics}", False, id="other-name"),
            pytest.param("{port: 8080, targetPort: 9090}", False, id="other-number"),
            pytest.param("{port: 80}", False, id="own-other-number"),
            pytest.param("{targetPort: 8080}", False, id="no-port"),
        ],
    )
    def test_ports_of_the_app_change_and_come_back(self, port: str, is_changed: bool) -> None:
        """What led to the app leads to the sidecar, by number; all else, and the port itself, stays."""
        root = service(f"[{port}]")
        before = repr(root)

        changed = services.redirect(root, [FRONT])

        assert bool(changed) == is_changed
        assert (ports_of(root)[0].get("targetPort") == Plain("8443")) == is_changed
        assert services.restore(root) == is_changed
        assert repr(root) == before

    def test_port_that_somebody_changed_since_stays(self) -> None:
        """Removal does not undo what others did."""
        root = service("[{port: 80, targetPort: 8080}]")
        services.redirect(root, [FRONT])
        ports_of(root)[0]["targetPort"] = Plain("9000")
        services.restore(root)
        assert ports_of(root)[0]["targetPort"] == Plain("9000")

    @pytest.mark.parametrize("targets", ['"x"', '{"80": 1}', '{"80": [[]]}'])
    def test_changed_mark_is_refused(self, targets: str) -> None:
        """Nothing is guessed."""
        root = service("[{port: 80, targetPort: 8443}]")
        root["metadata"] = {"annotations": {"tls-sidecar/injected": f'{{"port": 8443, "targets": {targets}}}'}}
        with pytest.raises(InjectError, match="not as it was written"):
            services.restore(root)


class TestH2cTargets:
    @pytest.mark.parametrize(
        ("port", "expected"),
        [
            pytest.param("{port: 80, targetPort: api, appProtocol: kubernetes.io/h2c}", {"api"}, id="name"),
            pytest.param("{port: 80, targetPort: 50051, appProtocol: grpc}", {"50051"}, id="number"),
            pytest.param("{port: 50051, appProtocol: h2c}", {"50051"}, id="own-number"),
            pytest.param("{port: 50051, targetPort: null, appProtocol: http2}", {"50051"}, id="null"),
            pytest.param("{port: 80, targetPort: api, appProtocol: http}", set(), id="http"),
            pytest.param("{port: 80, targetPort: api, name: grpc}", set(), id="only-a-name"),
            pytest.param("{port: 80, targetPort: api, appProtocol: grpc, protocol: UDP}", set(), id="udp"),
        ],
    )
    def test_ports_that_are_said_to_be_of_h2c_are_found(self, port: str, expected: set[str]) -> None:
        """As pods have them. The name of a Service's port is its own."""
        assert services.h2c_targets(service(f"[{port}]")) == expected


class TestSaidWithoutTls:
    @pytest.mark.parametrize(
        ("protocol", "ports", "expected"),
        [
            pytest.param("kubernetes.io/h2c", [80], {80: "kubernetes.io/h2c"}, id="h2c"),
            pytest.param("grpc", [80], {80: "grpc"}, id="grpc"),
            pytest.param("http2", [80], {80: "http2"}, id="http2"),
            pytest.param("kubernetes.io/h2c", [81], {}, id="other-port"),
            pytest.param("https", [80], {}, id="https"),
        ],
    )
    def test_whatever_may_be_read_so_is_found(self, protocol: str, ports: list[int], expected: dict[int, str]) -> None:
        """Of gRPC a reader decides whether it is in TLS, and some decide that it is not; UDP has none."""
        root = service(
            f"[{{port: 80, appProtocol: {protocol}}}, {{port: 80, protocol: UDP, appProtocol: grpc}}, "
            f"{{appProtocol: {protocol}}}]"
        )
        assert services.said_without_tls(root, ports) == expected


class TestSelectorOf:
    @pytest.mark.parametrize("root", [{}, {"spec": {}}, {"spec": {"selector": {}}}])
    def test_no_selector_is_none(self, root: Branch) -> None:
        """Such a Service has endpoints of its own."""
        assert services.selector_of(root) == {}

    def test_it_is_what_pods_must_have(self) -> None:
        """As it is written."""
        assert services.selector_of(service("[]")) == {"app": "web"}


class TestPlain:
    FRONT = attrs.evolve(
        FRONT, other_names=frozenset({"debug"}), foreign=frozenset({"9090", "metrics", "8443", "https"})
    )

    @pytest.mark.parametrize(
        ("port", "is_plain"),
        [
            pytest.param("{port: 81, targetPort: 8000}", True, id="number-that-nobody-names"),
            pytest.param("{port: 81, targetPort: debug}", True, id="name-of-the-app"),
            pytest.param("{port: 8000}", True, id="own-number"),
            pytest.param("{port: 81, targetPort: 9090}", False, id="of-another-container"),
            pytest.param("{port: 81, targetPort: metrics}", False, id="name-of-another"),
            pytest.param("{port: 81, targetPort: nobody}", False, id="name-of-nobody"),
            pytest.param("{port: 443, targetPort: 8443}", False, id="the-sidecar"),
            pytest.param("{port: 80, targetPort: http}", False, id="redirected"),
            pytest.param("{port: 81, targetPort: 8000, protocol: UDP}", False, id="udp"),
        ],
    )
    def test_port_that_leads_to_the_app_without_the_sidecar_is_found(self, port: str, is_plain: bool) -> None:
        """After redirection, all that is left leads round TLS."""
        root = service(f"[{port}]")
        services.redirect(root, [self.FRONT])
        assert bool(services.plain(root, [self.FRONT])) == is_plain


class TestOutside:
    @pytest.mark.parametrize(
        ("spec", "what"),
        [
            pytest.param({"type": "LoadBalancer"}, "LoadBalancer", id="balancer"),
            pytest.param({"type": "NodePort"}, "NodePort", id="node-port"),
            pytest.param({"externalIPs": ["192.0.2.1"]}, "externalIPs", id="addresses"),
            pytest.param({"externalIPs": []}, "", id="no-addresses"),
            pytest.param({"type": "ClusterIP"}, "", id="cluster"),
            pytest.param({}, "", id="default"),
        ],
    )
    def test_it_says_who_else_can_connect(self, spec: Branch, what: str) -> None:
        """Whether others than the pods of the cluster reach it."""
        assert services.outside({"spec": spec}) == what
