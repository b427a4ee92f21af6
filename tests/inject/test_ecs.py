"""`sidecar.inject.ecs`: into a task definition and out again."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.errors import ConfigError
from sidecar.inject import ecs
from sidecar.inject.tree import InjectError
from tests.inject.manifests import CERT_ARN, KEY_ARN, LOGS, injected, injected_task, removed, task

PORTS = st.lists(
    st.fixed_dictionaries(
        {"containerPort": st.sampled_from([8080, 9090, 5000])},
        optional={"protocol": st.sampled_from(["tcp", "udp"]), "hostPort": st.just(8080), "name": st.just("é")},
    ),
    max_size=3,
)
CONTAINERS = st.lists(
    st.sampled_from(["web", "log", "db"]).flatmap(
        lambda name: st.fixed_dictionaries(
            {"name": st.just(name)},
            optional={
                "essential": st.booleans(),
                "portMappings": PORTS | st.none(),
                "logConfiguration": st.just({"logDriver": "awsfirelens"}),
                "healthCheck": st.just({"command": ["CMD", "x"]}),
            },
        )
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda each: each["name"],
)
OPTIONS = st.fixed_dictionaries(
    {"app_port": st.sampled_from([5000, 8080])},
    optional={"cert_arn": st.just(CERT_ARN), "client_ca_arn": st.just(KEY_ARN), "port": st.just(8443)},
)


def refusal_of(changes: dict[str, Any], **options: Any) -> str:
    with pytest.raises(InjectError) as caught:
        injected_task(changes, **options)
    return str(caught.value)


def sidecar(changes: dict[str, Any] | None = None, **options: Any) -> Any:
    return injected_task(changes, **options)["containerDefinitions"][-1]


def app_with(**changes: Any) -> dict[str, Any]:
    """Changes of a task: its app is another."""
    return {"containerDefinitions": [{**task()["containerDefinitions"][0], **changes}]}


class TestProperties:
    @settings(deadline=None, max_examples=60)
    @given(CONTAINERS, OPTIONS)
    def test_removal_leaves_nothing(self, containers: list[dict[str, Any]], options: dict[str, Any]) -> None:
        """What is injected and removed is the original in the form that is written, byte for byte."""
        text = json.dumps(task(containerDefinitions=containers))
        assert removed(injected(text, **options)) == removed(text)
        assert json.loads(removed(text)) == json.loads(text)

    @settings(deadline=None, max_examples=60)
    @given(CONTAINERS, OPTIONS, OPTIONS)
    def test_last_options_count(
        self, containers: list[dict[str, Any]], first: dict[str, Any], last: dict[str, Any]
    ) -> None:
        """A second run is as good as that alone; with the same options it changes no byte."""
        text = json.dumps(task(containerDefinitions=containers))
        assert injected(injected(text, **first), **last) == injected(text, **last)


class TestContainer:
    def test_it_is_locked_down(self) -> None:
        """Not root, nothing to write to, no capabilities."""
        container = sidecar()
        assert container["user"] == "65532:65532"
        assert container["readonlyRootFilesystem"] is True
        assert container["linuxParameters"] == {"capabilities": {"drop": ["ALL"]}}

    @pytest.mark.parametrize(
        ("port", "needed"), [(None, True), (443, True), (1023, True), (1024, False), (8443, False)]
    )
    def test_low_port_is_allowed_to_it(self, port: int | None, needed: bool) -> None:
        """Only who is root may listen below 1024, unless the task says otherwise."""
        control = [{"namespace": "net.ipv4.ip_unprivileged_port_start", "value": str(port or 443)}]
        assert sidecar(port=port).get("systemControls") == (control if needed else None)

    def test_connections_are_bounded_by_the_memory_of_the_task(self) -> None:
        """Whoever opens connections must not take the app's memory; a setting changes it."""
        assert {"name": "SIDECAR_MAX_CONNECTIONS", "value": "1000"} in sidecar()["environment"]
        more = sidecar(settings={"max_connections": "5000"})["environment"]
        assert {"name": "SIDECAR_MAX_CONNECTIONS", "value": "5000"} in more

    def test_wrong_settings_end_it_for_good(self) -> None:
        """A restart mends no settings: the exit code for them is left out."""
        assert sidecar()["restartPolicy"]["ignoredExitCodes"] == [78]

    @pytest.mark.parametrize(
        ("changes", "condition"), [({}, "START"), ({"healthCheck": {"command": ["CMD", "x"]}}, "HEALTHY")]
    )
    def test_it_starts_after_the_app_and_stops_before(self, changes: dict[str, Any], condition: str) -> None:
        """ECS stops in the other order, so that requests in flight find the app."""
        container = sidecar(app_with(**changes))
        assert container["dependsOn"] == [{"containerName": "web", "condition": condition}]

    @pytest.mark.parametrize(("drain", "stop"), [("20s", 30), ("1500ms", 12), ("110s", 120), ("115s", 120)])
    def test_stop_timeout_leaves_time_to_drain(self, drain: str, stop: int) -> None:
        """Ten seconds more than draining takes, and no more than Fargate allows."""
        assert sidecar(settings={"drain_timeout": drain})["stopTimeout"] == stop

    def test_logs_go_where_the_app_sends_its_own(self) -> None:
        """One place to look."""
        assert sidecar()["logConfiguration"] == LOGS
        assert "logConfiguration" not in sidecar(app_with(logConfiguration=None))

    def test_health_check_needs_no_shell(self) -> None:
        """The image has none, and ECS ignores what the image says."""
        assert sidecar()["healthCheck"]["command"] == ["CMD", "sidecar", "healthcheck"]

    def test_fields_of_one_secret_are_named(self) -> None:
        """One secret of JSON with both: what stands behind the ARN goes along."""
        secrets = sidecar(cert_arn=f"{CERT_ARN}:certificate::", key_arn=f"{CERT_ARN}:privateKey::")["secrets"]
        assert [each["valueFrom"] for each in secrets] == [f"{CERT_ARN}:certificate::", f"{CERT_ARN}:privateKey::"]

    def test_secrets_are_named_and_not_contained(self) -> None:
        """ECS fills in the values; client certificates are then required."""
        container = sidecar(cert_arn=CERT_ARN, key_arn=KEY_ARN, client_ca_arn=CERT_ARN)
        assert container["secrets"] == [
            {"name": "SIDECAR_TLS_CERT", "valueFrom": CERT_ARN},
            {"name": "SIDECAR_TLS_KEY", "valueFrom": KEY_ARN},
            {"name": "SIDECAR_CLIENT_CA", "valueFrom": CERT_ARN},
        ]
        assert {"name": "SIDECAR_CLIENT_CERT", "value": "required"} in container["environment"]


class TestOrder:
    def test_others_may_wait_for_the_sidecar(self) -> None:
        """What the app does not wait for is no cycle."""
        app = task()["containerDefinitions"][0]
        other = {"name": "log", "essential": False, "dependsOn": [{"containerName": "sidecar", "condition": "START"}]}
        assert sidecar({"containerDefinitions": [app, other]})["dependsOn"][0]["containerName"] == "web"


class TestGrpc:
    GRPC = app_with(portMappings=[{"containerPort": 50051, "appProtocol": "grpc", "name": "api"}])

    def upstream(self, definition: Any) -> str:
        variables = {each["name"]: each["value"] for each in definition["containerDefinitions"][-1]["environment"]}
        return variables["SIDECAR_UPSTREAM"]

    def test_app_of_grpc_is_spoken_to_in_h2c(self) -> None:
        """And a second run, which finds the mapping gone, knows it still; removal brings it back."""
        once = injected(json.dumps(task(**self.GRPC)))
        assert self.upstream(json.loads(once)) == "h2c://127.0.0.1:50051"
        assert injected(once) == once
        assert json.loads(removed(once)) == task(**self.GRPC)

    def test_name_of_the_mapping_suffices(self) -> None:
        """As that of a container's port does on Kubernetes; a second run knows it still."""
        once = injected_task(app_with(portMappings=[{"containerPort": 8080, "name": "grpc"}]))
        assert self.upstream(once) == "h2c://127.0.0.1:8080"
        assert injected_task(once) == once

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            pytest.param({"app_port": 50051}, "h2c://127.0.0.1:50051", id="named-port"),
            pytest.param({"app_port": 8080}, "http://127.0.0.1:8080", id="other-port"),
            pytest.param({"settings": {"mode": "tcp"}}, "http://127.0.0.1:50051", id="raw"),
            pytest.param({"settings": {"upstream": "127.0.0.1:50051"}}, "127.0.0.1:50051", id="said-otherwise"),
        ],
    )
    def test_what_is_said_counts_more(self, options: dict[str, Any], expected: str) -> None:
        """The mapping tells of its own port, and only where nobody says anything else."""
        assert self.upstream(injected_task(self.GRPC, **options)) == expected


class TestPortMappings:
    def test_app_is_not_reached_round_the_sidecar(self) -> None:
        """The app's port goes from its mappings, others stay, and the sidecar has its own."""
        app, container = injected_task()["containerDefinitions"]
        assert app["portMappings"] == [{"containerPort": 9090, "protocol": "tcp"}]
        assert container["portMappings"] == [{"containerPort": 443, "protocol": "tcp"}]

    def test_changed_label_is_refused(self) -> None:
        """Nothing is guessed."""
        definition = injected_task()
        definition["containerDefinitions"][-1]["dockerLabels"]["tls-sidecar.injected"] = '{"app": "web"}'
        with pytest.raises(InjectError, match="its label is not as it was written"):
            removed(json.dumps(definition))

    def test_renamed_app_keeps_what_it_has(self) -> None:
        """Mappings of a container that is gone have no place to go back to."""
        definition = injected_task()
        definition["containerDefinitions"][0]["name"] = "other"
        [app] = json.loads(removed(json.dumps(definition)))["containerDefinitions"]
        assert len(app["portMappings"]) == 1


class TestApp:
    @pytest.mark.parametrize(
        ("containers", "options", "app"),
        [
            pytest.param([{"name": "a", "essential": False}, {"name": "b"}], {}, "b", id="first-essential"),
            pytest.param([{"name": "a", "essential": False}], {}, "a", id="none-is-essential"),
            pytest.param([{"name": "a"}, {"name": "b"}], {"app": "b"}, "b", id="by-name"),
        ],
    )
    def test_app_is_found(self, containers: list[dict[str, Any]], options: dict[str, Any], app: str) -> None:
        """The app is the first essential container, unless something else is said."""
        container = sidecar({"containerDefinitions": containers}, app_port=5000, **options)
        assert container["dependsOn"][0]["containerName"] == app


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "options", "message"),
        [
            pytest.param({"networkMode": "bridge"}, {}, "networkMode is 'bridge'", id="bridge"),
            pytest.param({"networkMode": "host"}, {}, "networkMode is 'host'", id="host"),
            pytest.param({"networkMode": None}, {}, "networkMode is 'bridge'", id="no-network-mode"),
            pytest.param(
                {"runtimePlatform": {"operatingSystemFamily": "WINDOWS_SERVER_2022_CORE"}},
                {},
                "on Windows",
                id="windows",
            ),
            pytest.param({"containerDefinitions": []}, {}, "the task has no containers", id="empty"),
            pytest.param({"containerDefinitions": "x"}, {}, "not a list", id="no-list"),
            pytest.param(app_with(portMappings=[]), {}, "'web' has no portMappings; give --app-port", id="no-port"),
            pytest.param(app_with(name="sidecar"), {}, "there is a container sidecar already", id="name"),
            pytest.param({}, {"app": "wbe"}, "did you mean web?", id="slip"),
            pytest.param({}, {"port": 9090}, "'web' has the port 9090, and so has SIDECAR_LISTEN", id="clash"),
            pytest.param({}, {"secret": "x"}, "no Kubernetes Secrets; give --cert-arn", id="secret"),
            pytest.param({}, {"classic": True}, "--classic and --only are for Kubernetes", id="classic"),
            pytest.param({}, {"only": ("web",)}, "--classic and --only are for Kubernetes", id="only"),
            pytest.param({}, {"key_arn": KEY_ARN}, "--key-arn is the key of no certificate", id="key-alone"),
            pytest.param({}, {"cert_arn": "web-cert"}, "'web-cert' is no ARN of a secret", id="no-arn"),
            pytest.param({}, {"cert_arn": f"{CERT_ARN}\n"}, "is no ARN of a secret", id="more-than-an-arn"),
            pytest.param(
                app_with(portMappings=[{"containerPortRange": "1-9"}]),
                {},
                "'web' maps only ranges of ports; give --app-port",
                id="only-a-range",
            ),
            pytest.param(
                app_with(portMappings=[{"containerPort": 8080}, {"containerPortRange": "8000-8085"}]),
                {},
                "'web' has the port 8082, and so has SIDECAR_HEALTH",
                id="clash-with-a-range",
            ),
            pytest.param(
                app_with(dependsOn=[{"containerName": "sidecar", "condition": "HEALTHY"}]),
                {},
                "the container 'web' has dependsOn sidecar, which itself starts after 'web'; take sidecar out",
                id="cycle",
            ),
            pytest.param(
                {
                    "containerDefinitions": [
                        {**task()["containerDefinitions"][0], "dependsOn": [{"containerName": "db"}]},
                        {"name": "db", "dependsOn": [{"containerName": "web"}, {"containerName": "sidecar"}]},
                    ]
                },
                {},
                "the container 'db' has dependsOn sidecar, which itself starts after 'web'",
                id="cycle-of-three",
            ),
            pytest.param(
                {}, {"cert_arn": "arn:aws:acm:eu-west-1:123456789012:certificate/x"}, "of ACM, which no task", id="acm"
            ),
            pytest.param({"executionRoleArn": None}, {"cert_arn": CERT_ARN}, "there is no executionRoleArn", id="role"),
        ],
    )
    def test_task_that_does_not_allow_it_is_refused(
        self, changes: dict[str, Any], options: dict[str, Any], message: str
    ) -> None:
        """The error names the task definition, what stands in the way, and what to do."""
        shown = refusal_of(changes, **options)
        assert shown.startswith("task definition web: ")
        assert message in shown

    def test_cloudformation_is_refused(self) -> None:
        """Its references have no values yet."""
        with pytest.raises(InjectError, match="this is CloudFormation"):
            injected("Resources: {Task: {Type: AWS::ECS::TaskDefinition}}")

    def test_settings_that_cannot_work_are_refused(self) -> None:
        """As in a pod."""
        with pytest.raises(ConfigError, match="there is no CA"):
            injected_task(settings={"client_cert": "required"})

    def test_mapping_that_is_no_json_is_refused(self) -> None:
        """It could not be kept for the way back."""
        text = (
            "family: web\nnetworkMode: awsvpc\ncontainerDefinitions:\n"
            "- name: web\n  portMappings:\n  - containerPort: 8080\n    hostPort: 0x1F90\n"
        )
        with pytest.raises(InjectError, match="the portMappings of 'web' have a value that is no JSON"):
            injected(text)


class TestUnwrap:
    def test_answer_of_describe_can_be_registered(self) -> None:
        """The wrapper and what only AWS may say go; tags come along."""
        told = {**task(), "taskDefinitionArn": "arn:x", "revision": 7, "status": "ACTIVE", "registeredAt": "x"}
        wrapped = json.dumps({"taskDefinition": told, "tags": [{"key": "team", "value": "a"}]})
        found = json.loads(removed(wrapped))
        assert found == {**task(), "tags": [{"key": "team", "value": "a"}]}
        assert injected(injected(wrapped)) == injected(wrapped)

    def test_yaml_is_taken_too(self) -> None:
        """In the names that ECS has, and written as YAML again."""
        text = (
            "family: web\nnetworkMode: awsvpc\ncontainerDefinitions:\n"
            "- name: web\n  portMappings:\n  - containerPort: 8080\n"
        )
        assert "\n- name: sidecar\n" in injected(text)
        assert removed(injected(text)) == text

    @pytest.mark.parametrize("root", [{"taskDefinition": "web:1"}, {"kind": "Pod"}, {"taskDefinition": {}}])
    def test_other_documents_are_none(self, root: dict[Any, Any]) -> None:
        """A service definition names a task definition, and is none."""
        assert not ecs.is_task(root)
