"""`sidecar.inject.services`: ports that led to the app lead to the sidecar."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.inject import services, yamlread
from sidecar.inject.pods import Front
from sidecar.inject.tree import Branch, InjectError, Plain

FRONT = Front(app="web", app_port=8080, app_port_names=frozenset({"http"}), port=8443, notes=())


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


class TestSelects:
    @pytest.mark.parametrize(
        ("labels", "is_selected"),
        [
            pytest.param({"app": "web", "tier": "front"}, True, id="more-labels"),
            pytest.param({"app": Plain("web")}, True, id="written-otherwise"),
            pytest.param({"app": "db"}, False, id="other-value"),
            pytest.param({}, False, id="no-labels"),
        ],
    )
    def test_all_of_the_selector_must_fit(self, labels: Branch, is_selected: bool) -> None:
        """As Kubernetes has it."""
        assert services.selects(service("[]"), labels) == is_selected

    def test_no_selector_selects_nothing(self) -> None:
        """Such a Service has endpoints of its own."""
        assert not services.selects({"spec": {}}, {"app": "web"})
        assert not services.selects({"spec": {"selector": {}}}, {"app": "web"})
