"""`sidecar.inject.ecscontrols`: one network, one lowest port."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sidecar.inject.ecscontrols import NAMESPACE
from sidecar.inject.tree import InjectError
from tests.inject.manifests import injected_task, notes, removed, task

OTHER = {"namespace": "net.core.somaxconn", "value": "1024"}


def control(value: object) -> dict[str, Any]:
    return {"namespace": NAMESPACE, "value": value}


def with_controls(app: list[Any], log: list[Any] | None = None) -> dict[str, Any]:
    """A task whose app, and another container, have these."""
    web = {**task()["containerDefinitions"][0], "systemControls": app}
    others = [] if log is None else [{"name": "log", "essential": False, "systemControls": log}]
    return {"containerDefinitions": [web, *others]}


class TestAllow:
    @pytest.mark.parametrize(
        ("app", "log", "port", "found"),
        [
            pytest.param([], None, 443, [[], [control("443")]], id="nobody-else"),
            pytest.param([control("80")], None, 443, [[control("80")], None], id="app-has-less"),
            pytest.param([control("443")], None, 443, [[control("443")], None], id="app-has-the-same"),
            pytest.param([control("1000")], None, 443, [[control("443")], None], id="app-has-more"),
            pytest.param([OTHER], None, 443, [[OTHER], [control("443")]], id="app-has-others"),
            pytest.param([], [control("1000")], 443, [[], [control("443")], [control("443")]], id="other-has-more"),
            pytest.param([], [control("0")], 443, [[], [control("0")], [control("0")]], id="other-has-less"),
            pytest.param([control("500")], [control("80")], 443, [[control("80")], [control("80")], None], id="both"),
            pytest.param([control("1000")], None, 8443, [[control("1000")], None], id="high-port"),
        ],
    )
    def test_all_say_the_same_and_the_way_back_is_kept(
        self, app: list[Any], log: list[Any] | None, port: int, found: list[Any]
    ) -> None:
        """The least that anybody needs; the sidecar says it unless the app, which starts before it, does."""
        changes = with_controls(app, log)
        made = injected_task(changes, port=port)
        assert [each.get("systemControls") for each in made["containerDefinitions"]] == found
        assert json.loads(removed(json.dumps(made))) == task(**changes)
        assert injected_task(made, port=port) == made

    def test_what_is_lowered_is_said(self) -> None:
        """It is somebody else's setting."""
        said = notes(json.dumps(task(**with_controls([control("1000")]))))
        assert f"{NAMESPACE} of web is 443 now, not 1000" in said

    @pytest.mark.parametrize("value", ["", "x", "-1", None])
    def test_what_is_no_port_is_refused(self, value: object) -> None:
        """Nobody can say what is lower."""
        with pytest.raises(InjectError, match=r"the systemControls of 'web' have .*, which is no port"):
            injected_task(with_controls([control(value)]))


class TestRestore:
    def test_what_was_changed_since_stays(self) -> None:
        """Removal does not undo what others did."""
        made = injected_task(with_controls([control("1000")]))
        made["containerDefinitions"][0]["systemControls"] = [control("80")]
        [app] = json.loads(removed(json.dumps(made)))["containerDefinitions"]
        assert app["systemControls"] == [control("80")]

    @pytest.mark.parametrize("noted", ["x", [1], [["web", "1000"]], [["web", 1000, "443"]]])
    def test_changed_note_is_refused(self, noted: object) -> None:
        """Nothing is guessed."""
        made = injected_task()
        label = {"app": "web", "mappings": [], "controls": noted}
        made["containerDefinitions"][-1]["dockerLabels"]["tls-sidecar.injected"] = json.dumps(label)
        with pytest.raises(InjectError, match="its label is not as it was written"):
            removed(json.dumps(made))
