"""`sidecar.inject.stream`: all of standard input at once."""

from __future__ import annotations

import json

import pytest

from sidecar.inject import stream
from sidecar.inject.options import Options
from sidecar.inject.tree import InjectError
from tests.inject.manifests import deployment, injected, pod, removed, task


class TestInject:
    def test_one_that_does_not_fit_spoils_all(self) -> None:
        """Nothing is written if something could not be done: half a stream would be applied."""
        with pytest.raises(InjectError, match="Pod web: "):
            injected(f"{deployment()}---\n{pod().replace('metrics', 'sidecar')}")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            pytest.param("kind: Service\napiVersion: v1", "in it, only Service; pipe in a Pod", id="service"),
            pytest.param("a: b", "no pod and no task definition is in it; pipe in a Pod", id="anything"),
            pytest.param("kind: Deployment\nspec: {}", "no pod and no task definition is in it; ", id="no-version"),
            pytest.param("apiVersion: v1\nkind: List\nitems: []", "is in it; pipe in a Pod", id="empty-list"),
        ],
    )
    def test_nothing_to_do_is_an_error(self, text: str, message: str) -> None:
        """Who pipes something in expects a sidecar in it."""
        with pytest.raises(InjectError) as caught:
            injected(text)
        assert message in str(caught.value)

    def test_same_note_is_told_once(self) -> None:
        """Two documents of one name do not double the lines."""
        said = stream.inject(f"{pod()}---\n{pod()}".encode(), Options()).notes
        assert len(said) == len(set(said))

    def test_json_stays_json(self) -> None:
        """kubectl get -o json goes through as well."""
        text = json.dumps({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"name": "a"}]}})
        once = injected(text, app_port=8080)
        assert json.loads(once)["spec"]["initContainers"][0]["name"] == "sidecar"
        assert json.loads(removed(once)) == json.loads(text)


class TestRemove:
    def test_what_has_none_only_gets_its_form(self) -> None:
        """So that it can be compared with what was injected and removed."""
        text = "# a comment\n" + pod().replace("    app: web", "    app:   'web'")
        assert removed(text) == pod()
        assert removed(json.dumps(task())) == json.dumps(task(), indent=4) + "\n"
