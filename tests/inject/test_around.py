"""`sidecar.inject.around`: who has to be told that the app speaks TLS now."""

from __future__ import annotations

import pytest

from sidecar.inject import yamlread
from sidecar.inject.around import asked_by, lets_in, selector_of, shuts_out
from sidecar.inject.tree import Branch


def spec(text: str) -> Branch:
    [root] = yamlread.read(f"spec: {text}")
    assert isinstance(root, dict)
    return root


class TestAskedBy:
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
        assert ("web" in asked_by(spec(text))) == does


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
        ],
    )
    def test_port_that_no_rule_lets_in_is_shut(self, text: str, does: bool) -> None:
        """As Kubernetes has it: what a policy is about, and no rule names, is refused."""
        assert shuts_out(spec(text), 8443) == does


class TestLetsIn:
    @pytest.mark.parametrize(
        ("text", "does"),
        [
            pytest.param("{ingress: [{ports: [{port: 8080}]}]}", True, id="the-port"),
            pytest.param("{ingress: [{ports: [{port: http}]}]}", True, id="by-name"),
            pytest.param("{ingress: [{ports: [{port: 8000, endPort: 8443}]}]}", True, id="in-a-range"),
            pytest.param("{ingress: [{from: [{podSelector: {}}]}]}", True, id="all-ports"),
            pytest.param("{ingress: [{ports: [{port: 8443}]}, {ports: [{port: 8080}]}]}", True, id="second-rule"),
            pytest.param("{ingress: [{ports: [{port: 8443}]}]}", False, id="the-sidecar-alone"),
            pytest.param("{ingress: [{ports: [{port: metrics}]}]}", False, id="another-name"),
            pytest.param("{ingress: [{ports: [{port: 8080, protocol: UDP}]}]}", False, id="udp"),
            pytest.param("{ingress: []}", False, id="nobody"),
            pytest.param("{policyTypes: [Egress], ingress: [{}]}", False, id="egress-only"),
        ],
    )
    def test_port_that_a_rule_lets_in_is_open(self, text: str, does: bool) -> None:
        """By number, range or name, or because a rule names no port at all."""
        assert lets_in(spec(text), 8080, frozenset({"http"})) == does


class TestSelectorOf:
    @pytest.mark.parametrize(
        ("text", "labels"),
        [
            pytest.param("{podSelector: {matchLabels: {app: web}}}", {"app": "web"}, id="labels"),
            pytest.param("{podSelector: {}}", {}, id="all"),
            pytest.param("{podSelector: {matchExpressions: [{key: app, operator: Exists}]}}", {}, id="expressions"),
            pytest.param("null", {}, id="nothing"),
        ],
    )
    def test_labels_are_those_that_pods_must_have(self, text: str, labels: dict[str, str]) -> None:
        """Expressions are not looked at: rather too many pods than too few."""
        assert selector_of(spec(text)) == labels
