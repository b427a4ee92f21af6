"""`sidecar.inject.around`: who has to be told that the app speaks TLS now."""

from __future__ import annotations

import pytest

from sidecar.inject import yamlread
from sidecar.inject.around import asks, shuts_out
from sidecar.inject.tree import Branch


def spec(text: str) -> Branch:
    [root] = yamlread.read(f"spec: {text}")
    assert isinstance(root, dict)
    return root


class TestAsks:
    @pytest.mark.parametrize(
        ("text", "does"),
        [
            pytest.param("{defaultBackend: {service: {name: web}}}", True, id="default"),
            pytest.param("{rules: [{http: {paths: [{backend: {service: {name: web}}}]}}]}", True, id="path"),
            pytest.param("{defaultBackend: {service: {name: db}}}", False, id="another"),
            pytest.param("{defaultBackend: {resource: {name: web}}}", False, id="no-service"),
            pytest.param("null", False, id="nothing"),
        ],
    )
    def test_backends_are_found(self, text: str, does: bool) -> None:
        """Wherever in an Ingress a Service can stand."""
        assert asks(spec(text), "web") == does


class TestShutsOut:
    @pytest.mark.parametrize(
        ("text", "does"),
        [
            pytest.param("{ingress: [{ports: [{port: 8080}]}]}", True, id="another-port"),
            pytest.param("{ingress: [{ports: [{port: 8443}]}]}", False, id="the-port"),
            pytest.param("{ingress: [{ports: [{port: 8000, endPort: 8443}]}]}", False, id="end-of-range"),
            pytest.param("{ingress: [{ports: [{port: 8000, endPort: 8442}]}]}", True, id="beside-the-range"),
            pytest.param("{ingress: [{ports: [{port: 8443, protocol: UDP}]}]}", True, id="udp"),
            pytest.param("{ingress: [{ports: [{protocol: TCP}]}]}", False, id="all-of-tcp"),
            pytest.param("{ingress: [{ports: [{port: http}]}]}", True, id="by-name"),
            pytest.param("{ingress: [{from: [{podSelector: {}}]}]}", False, id="all-ports"),
            pytest.param("{ingress: [{}]}", False, id="everybody"),
            pytest.param("{podSelector: {}}", True, id="nobody"),
            pytest.param("{policyTypes: [Egress]}", False, id="egress-only"),
            pytest.param("{podSelector: {matchLabels: {app: db}}}", False, id="other-pods"),
            pytest.param("{podSelector: {matchLabels: {app: web}}}", True, id="these-pods"),
        ],
    )
    def test_port_that_no_rule_lets_in_is_shut(self, text: str, does: bool) -> None:
        """As Kubernetes has it: what a policy is about, and no rule names, is refused."""
        assert shuts_out(spec(text), {"app": "web"}, 8443) == does
