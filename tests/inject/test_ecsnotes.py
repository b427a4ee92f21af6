"""`sidecar.inject.ecsnotes`: what is left to do, and ways round the sidecar."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.inject.manifests import CERT_ARN, injected, notes, task


def app_with(**changes: Any) -> dict[str, Any]:
    """Changes of a task: its app is another."""
    return {"containerDefinitions": [{**task()["containerDefinitions"][0], **changes}]}


class TestNotes:
    @pytest.mark.parametrize(
        ("changes", "options", "message"),
        [
            pytest.param({}, {}, "loadBalancers must name containerName sidecar and containerPort 443", id="service"),
            pytest.param({}, {}, "the portMappings of web for 8080 are gone", id="mappings"),
            pytest.param({}, {}, "warning: no --cert-arn", id="ephemeral"),
            pytest.param({}, {"settings": {"drain_timeout": "111s"}}, "set it to 110s or less", id="drain"),
            pytest.param(
                app_with(memory=512),
                {},
                "the containers reserve 576 MiB, 64 of it for the sidecar, and the task has 512",
                id="memory",
            ),
        ],
    )
    def test_what_is_left_to_do_is_said(self, changes: dict[str, Any], options: dict[str, Any], message: str) -> None:
        """A service that was not changed would fail to deploy, or go round TLS."""
        assert message in notes(json.dumps(task(**changes)), **options)

    @pytest.mark.parametrize("options", [{}, {"settings": {"drain_timeout": "110s"}}], ids=["default", "longest-drain"])
    def test_what_is_well_is_not(self, options: dict[str, Any]) -> None:
        """Warnings that are always there are read by nobody."""
        assert "warning" not in notes(json.dumps(task()), cert_arn=CERT_ARN, app_port=8080, **options)

    @pytest.mark.parametrize(
        ("other", "shown"),
        [
            pytest.param({"containerPort": 9090}, "9090", id="port"),
            pytest.param({"containerPortRange": "9090-9099"}, "9090-9099", id="range"),
        ],
    )
    def test_port_that_was_not_taken_is_said(self, other: dict[str, Any], shown: str) -> None:
        """Which of several was meant is a guess, until the operator says it."""
        text = json.dumps(task(**app_with(portMappings=[{"containerPort": 8080}, other])))
        assert (
            "task definition web: warning: only port 8080 of web gets TLS, the first in its list, "
            f"and {shown} none: shut {shown} by the security group, or let web listen there on 127.0.0.1 alone; "
            "and confirm or choose the port with --app-port"
        ) in notes(text).splitlines()
        assert "gets TLS" not in notes(text, app_port=8080)

    @pytest.mark.parametrize(("protocol", "is_said"), [("grpc", True), ("http", False)])
    def test_grpc_needs_another_target_group(self, protocol: str, is_said: bool) -> None:
        """One for HTTP/1.1, which is the default, lets no gRPC through."""
        mapping = {"containerPort": 50051, "appProtocol": protocol}
        said = notes(json.dumps(task(**app_with(portMappings=[mapping]))))
        assert ("the target group has the protocol version GRPC" in said) is is_said

    def test_client_certificates_do_not_go_in_silence(self) -> None:
        """A second run that forgets an option opens the app to everybody; that is said."""
        once = injected(json.dumps(task()), client_ca_arn=CERT_ARN)
        assert "clients were asked for certificates (required), and are not any more" in notes(once)
        assert "were asked" not in notes(once, client_ca_arn=CERT_ARN)

    @pytest.mark.parametrize(
        ("mappings", "ports"),
        [
            pytest.param([{"containerPort": 8080}], "8080", id="one"),
            pytest.param([], "8080", id="not-mapped"),
            pytest.param([{"containerPort": 8080}, {"containerPort": 9090}], "8080, 9090", id="others"),
            pytest.param([{"containerPortRange": "8078-8090"}], "8080, 8078-8079, 8081-8090", id="range"),
        ],
    )
    def test_open_port_of_the_app_is_always_said(self, mappings: list[dict[str, Any]], ports: str) -> None:
        """In awsvpc mode mappings close nothing; the security group does, or listening on 127.0.0.1."""
        options = {"app_port": 8080, "settings": {"admin": "off", "health": "0.0.0.0:9082"}}
        said = notes(json.dumps(task(**app_with(portMappings=mappings))), **options).splitlines()
        assert (
            f"task definition web: without TLS, the app stays open on {ports} to all whom the security group lets in, "
            "unless web listens on 127.0.0.1 alone"
        ) in said


class TestMemory:
    @pytest.mark.parametrize(
        ("memory", "total"),
        [
            pytest.param("512", 512, id="mebibytes"),
            pytest.param("0.5GB", 512, id="half"),
            pytest.param(".5 GB", 512, id="without-a-zero"),
            pytest.param("1 GB", 1024, id="blank"),
            pytest.param("1gb", 1024, id="lower-case"),
            pytest.param("512 MB", 512, id="unit-of-mebibytes"),
        ],
    )
    def test_memory_in_words_is_understood(self, memory: str, total: int) -> None:
        """As AWS takes it."""
        fits, too_much = app_with(memory=total - 64), app_with(memory=total - 63)
        assert "MiB" not in notes(json.dumps(task(memory=memory, **fits)))
        assert f"the task has {total}:" in notes(json.dumps(task(memory=memory, **too_much)))

    @pytest.mark.parametrize("memory", [None, "", "much", "1 TB", "1.GB"])
    def test_what_is_no_memory_is_not_guessed(self, memory: str | None) -> None:
        """AWS will say it."""
        assert "MiB" not in notes(json.dumps(task(memory=memory, **app_with(memory=100_000))))
