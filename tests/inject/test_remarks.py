"""`sidecar.inject.remarks`: what settings are said to do, and to be probably not meant to."""

from __future__ import annotations

import json

import pytest

from sidecar.inject.options import Environment, Options, make_environment
from sidecar.inject.remarks import SPOKEN, front_of, warnings
from tests.inject.manifests import POD_SPEC, notes, pod, task


def environment(**settings: str) -> Environment:
    given = {"listen": "0.0.0.0:8443", "health": "0.0.0.0:8082"}
    return make_environment(Options(settings=settings), given, {}, {})


class TestWarnings:
    @pytest.mark.parametrize("port", [*SPOKEN])
    def test_port_of_something_else_than_http_is_said(self, port: int) -> None:
        """A database behind an HTTP listener answers nobody; raw TCP mode is what helps."""
        [said] = warnings(environment(upstream=f"http://127.0.0.1:{port}"))
        assert said == (
            f"port {port} is usually {SPOKEN[port]}, and the sidecar takes HTTP alone: "
            "if it is not HTTP, give --set mode=tcp"
        )

    @pytest.mark.parametrize(
        "settings",
        [
            pytest.param({}, id="default"),
            pytest.param({"upstream": "http://127.0.0.1:5432", "mode": "tcp"}, id="raw"),
            pytest.param({"upstream": "unix:/run/app.sock"}, id="socket"),
            pytest.param({"upstream": "https://localhost:9443"}, id="https-here"),
            pytest.param({"upstream": "https://localhost:50051"}, id="https-where-grpc-is-usual"),
            pytest.param({"upstream": "h2c://127.0.0.1:50051"}, id="grpc"),
            pytest.param({"upstream": "h2c://127.0.0.1:9092"}, id="grpc-where-something-else-is-usual"),
            pytest.param({"upstream": "http://127.0.0.1:50051", "mode": "tcp"}, id="raw-grpc"),
            pytest.param({"drain_timeout": "60s"}, id="drain-which-the-platform-limits"),
        ],
    )
    def test_what_is_well_is_not(self, settings: dict[str, str]) -> None:
        """Warnings that are always there are read by nobody."""
        assert warnings(environment(**settings)) == []

    @pytest.mark.parametrize(
        ("upstream", "said"),
        [
            pytest.param("http://10.0.0.9:80", "requests go to 10.0.0.9:80 in plain text", id="address"),
            pytest.param("http://db:80,http://127.0.0.1:81", "requests go to db:80 in plain text", id="one-of-two"),
            pytest.param("http://127.0.0.1:81,http://[fd00::9]:80", "go to [fd00::9]:80 in plain", id="the-other"),
            pytest.param(
                "https://api.example", "requests go to https://api.example:443, and not to the app", id="https"
            ),
        ],
    )
    def test_upstream_that_is_elsewhere_is_said(self, upstream: str, said: str) -> None:
        """It is on no socket of the app's, and what is sent there may be read on the way."""
        [line] = warnings(environment(upstream=upstream))
        assert line.startswith("the upstream is elsewhere: ")
        assert said in line

    def test_h2c_elsewhere_is_told_no_https(self) -> None:
        """With it, requests would go there in HTTP/1.1."""
        [said] = warnings(environment(upstream="h2c://10.0.0.9:50051"))
        assert said.endswith("requests go to 10.0.0.9:50051 in plain text: give the port of the app here")

    def test_usual_port_of_grpc_is_said(self) -> None:
        """A gRPC server has no answer to HTTP/1.1; the advice can be typed as it is."""
        [said] = warnings(environment(upstream="http://127.0.0.1:50051,http://127.0.0.1:50052"))
        assert said == (
            "port 50051 is usually gRPC, and requests go there in HTTP/1.1: "
            "for gRPC, give --set upstream=h2c://127.0.0.1:50051,h2c://127.0.0.1:50052"
        )

    def test_what_check_warns_of_is_said(self) -> None:
        """By the name and the place in which it was given."""
        [said] = warnings(environment(admin="0.0.0.0:8081"))
        assert said == "admin (--set): 0.0.0.0:8081: reachable from other machines, and it has no authentication"

    @pytest.mark.parametrize("text", [pod(POD_SPEC), json.dumps(task())], ids=["kubernetes", "ecs"])
    def test_they_are_said_on_both_platforms(self, text: str) -> None:
        """With the object, and as warnings."""
        options = {"settings": {"admin": "0.0.0.0:8081", "upstream": "http://10.0.0.9:80"}}
        said = notes(text, **options)
        assert " web: warning: admin (--set): 0.0.0.0:8081: reachable from other machines" in said
        assert " web: warning: the upstream is elsewhere: requests go to 10.0.0.9:80 in plain text" in said
        assert "a socket" not in said


class TestFrontOf:
    @pytest.mark.parametrize(
        ("upstream", "said"),
        [
            pytest.param("http://127.0.0.1:8080", "container web on port 8080, in HTTP/1.1", id="port"),
            pytest.param("https://127.0.0.1:8080", "container web on port 8080, in HTTP/1.1 with TLS", id="https"),
            pytest.param("unix:/run/app.sock", "container web on a socket, in HTTP/1.1", id="socket"),
            pytest.param("h2c://127.0.0.1:50051", "container web on port 50051, in HTTP/2 without TLS (h2c)", id="h2c"),
            pytest.param("h2c+unix:/run/a", "container web on a socket, in HTTP/2 without TLS (h2c)", id="h2c-socket"),
            pytest.param("http://10.0.0.9:80", "http://10.0.0.9:80, which is elsewhere", id="elsewhere"),
            pytest.param("h2c://10.0.0.9:80", "h2c://10.0.0.9:80, which is elsewhere", id="h2c-elsewhere"),
        ],
    )
    def test_it_says_where_requests_go(self, upstream: str, said: str) -> None:
        """And in what protocol; the container is named only if it is asked."""
        assert front_of("web", environment(upstream=upstream)) == said

    def test_raw_tcp_has_no_protocol(self) -> None:
        """What the client speaks is passed on."""
        assert front_of("web", environment(mode="tcp")) == "container web on port 8080"

    @pytest.mark.parametrize(
        "text",
        [pod(POD_SPEC.replace("name: http\n    ", "")), json.dumps(task())],
        ids=["kubernetes", "ecs"],
    )
    def test_protocol_that_nobody_said_is_said(self, text: str) -> None:
        """A port without a name is taken for HTTP/1.1, which a gRPC server does not answer."""
        assert notes(text).splitlines()[0].endswith("in front of container web on port 8080, in HTTP/1.1")
