"""`sidecar.inject.ecsmappings`: the app's port goes from the mappings, and comes back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.inject import ecsmappings, jsonform
from sidecar.inject.tree import Branch, InjectError
from tests.inject.manifests import injected_task, removed, task

PORTS = st.integers(8078, 8083)
MAPPINGS = st.lists(
    st.fixed_dictionaries({"containerPort": PORTS}, optional={"protocol": st.sampled_from(["tcp", "udp"])})
    | st.builds(
        lambda first, more, rest: {"containerPortRange": f"{first}-{first + more}", **rest},
        PORTS,
        st.integers(0, 4),
        st.fixed_dictionaries({}, optional={"protocol": st.sampled_from(["tcp", "udp"]), "name": st.just("web")}),
    ),
    max_size=4,
)


def app_with(mappings: object) -> Branch:
    [root] = jsonform.read(json.dumps({"name": "web", "portMappings": mappings}))
    assert isinstance(root, dict)
    return root


def mappings_of(app: Branch) -> Any:
    return json.loads(jsonform.write(app))["portMappings"]


class TestTake:
    @settings(deadline=None)
    @given(MAPPINGS)
    def test_port_goes_and_comes_back(self, mappings: list[dict[str, Any]]) -> None:
        """No mapping has it then, all others are there, and what is put back is the original."""
        app = app_with(mappings)
        before = {port for span in ecsmappings.spans(app) for port in span}
        noted = json.loads(json.dumps(ecsmappings.take(app, 8080)))
        assert {port for span in ecsmappings.spans(app) for port in span} == before - {8080}
        ecsmappings.put_back(app, noted)
        assert mappings_of(app) == mappings

    @pytest.mark.parametrize(
        ("span", "rest"),
        [
            pytest.param("8079-8081", [{"containerPort": 8079}, {"containerPort": 8081}], id="middle"),
            pytest.param("8080-8090", [{"containerPortRange": "8081-8090"}], id="first"),
            pytest.param("8000-8080", [{"containerPortRange": "8000-8079"}], id="last"),
            pytest.param("8080-8080", [], id="alone"),
            pytest.param("8081-8090", [{"containerPortRange": "8081-8090"}], id="beside"),
        ],
    )
    def test_range_is_split_round_the_port(self, span: str, rest: list[dict[str, Any]]) -> None:
        """What of the range is not the app's stays mapped."""
        app = app_with([{"containerPortRange": span}])
        ecsmappings.take(app, 8080)
        assert mappings_of(app) == rest

    def test_what_aws_adds_does_not_hinder_the_way_back(self) -> None:
        """describe-task-definition tells host ports that nobody wrote."""
        app = app_with([{"containerPortRange": "8079-8081"}])
        noted = ecsmappings.take(app, 8080)
        told = [{**each, "hostPort": each["containerPort"]} for each in mappings_of(app)]
        app = app_with(told)
        ecsmappings.put_back(app, noted)
        assert mappings_of(app) == [{"containerPortRange": "8079-8081"}]

    @pytest.mark.parametrize("span", ["8090-8080", "8080", "a-b", "-", "8080-8090-1", "123456-123457"])
    def test_range_that_is_none_is_refused(self, span: str) -> None:
        """As AWS would do it later."""
        with pytest.raises(InjectError, match="which is no range; write it as FIRST-LAST"):
            ecsmappings.take(app_with([{"containerPortRange": span}]), 8080)

    def test_whole_task_comes_back(self) -> None:
        """Through the label and back."""
        definition = task()
        definition["containerDefinitions"][0]["portMappings"] = [{"containerPortRange": "8078-8080", "protocol": "tcp"}]
        once = injected_task(definition, app_port=8080)
        rest = [{"containerPortRange": "8078-8079", "protocol": "tcp"}]
        assert once["containerDefinitions"][0]["portMappings"] == rest
        assert injected_task(once, app_port=8080) == once
        assert json.loads(removed(json.dumps(once))) == definition


class TestPutBack:
    @pytest.mark.parametrize("noted", [None, "x", {}, [1], [[0]], [["0", {}]], [[0, {}, 1]]])
    def test_changed_note_is_refused(self, noted: object) -> None:
        """Nothing is guessed."""
        with pytest.raises(InjectError, match="its label is not as it was written"):
            ecsmappings.put_back(app_with([]), noted)


class TestIsH2c:
    @pytest.mark.parametrize(
        ("mapping", "expected"),
        [
            pytest.param({"containerPort": 8080, "appProtocol": "grpc"}, True, id="grpc"),
            pytest.param({"containerPort": 8080, "appProtocol": "http2"}, True, id="http2"),
            pytest.param({"containerPortRange": "8078-8081", "appProtocol": "grpc"}, True, id="range"),
            pytest.param({"containerPort": 8080, "appProtocol": "http"}, False, id="http"),
            pytest.param({"containerPort": 8080, "appProtocol": None}, False, id="null"),
            pytest.param({"containerPort": 8080}, False, id="nothing"),
            pytest.param({"containerPort": 8080, "name": "grpc"}, True, id="only-a-name"),
            pytest.param({"containerPort": 8080, "name": "grpc-api", "appProtocol": None}, True, id="name-and-null"),
            pytest.param({"containerPort": 8080, "name": "grpc-gateway", "appProtocol": "http"}, False, id="both"),
            pytest.param({"containerPort": 8080, "name": "grpc-web"}, False, id="grpc-web"),
            pytest.param({"containerPort": 9090, "name": "grpc"}, False, id="name-of-another-port"),
            pytest.param({"containerPort": 8080, "name": "grpc", "protocol": "udp"}, False, id="name-of-udp"),
            pytest.param({"containerPort": 9090, "appProtocol": "grpc"}, False, id="other-port"),
            pytest.param({"containerPort": 8080, "appProtocol": "grpc", "protocol": "udp"}, False, id="udp"),
        ],
    )
    def test_mapping_of_the_port_says_so(self, mapping: dict[str, Any], expected: bool) -> None:
        """By the word for Service Connect; where it has none, by its name, as on Kubernetes."""
        assert ecsmappings.is_h2c(app_with([{"containerPort": 1}, mapping]), 8080) is expected


class TestFirstPort:
    @pytest.mark.parametrize(
        ("mappings", "port"),
        [
            pytest.param([{"containerPort": 53, "protocol": "udp"}, {"containerPort": 80}], 80, id="first-of-tcp"),
            pytest.param([{"containerPortRange": "1-9"}, {"containerPort": 80}], 80, id="after-a-range"),
            pytest.param([{"containerPortRange": "1-9"}], None, id="only-a-range"),
            pytest.param([], None, id="none"),
        ],
    )
    def test_range_names_no_app(self, mappings: list[dict[str, Any]], port: int | None) -> None:
        """A port that stands by itself is one."""
        assert ecsmappings.first_port(app_with(mappings)) == port
