"""compose.yaml keeps its promises, as far as they can be read off; tests/engines/test_compose.py runs it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # PyYAML has no annotations

from sidecar.config.load import gather
from sidecar.settings import Settings
from tests.support.engines import APP_IMAGE, IMAGE

ROOT = Path(__file__).parent.parent

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SIDECARS = {name: service for name, service in SERVICES.items() if "SIDECAR_TLS_CERT" in service.get("environment", {})}
ONE_SHOTS = {name: service for name, service in SERVICES.items() if name not in SIDECARS and name != "app"}


def settings_of(service: dict[str, Any]) -> Settings:
    """Read the settings that a service gives, as the program does; there must be no problem."""
    loaded, problems = gather({}, service["environment"])
    assert problems == []
    return loaded.settings


class TestEveryService:
    @pytest.fixture(params=SERVICES)
    def service(self, request: pytest.FixtureRequest) -> dict[str, Any]:
        return SERVICES[request.param]

    def test_is_hardened(self, service: dict[str, Any]) -> None:
        """Nothing to write to, no capability, none to gain; the user is the image's, who is not root."""
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not service.keys() & {"user", "privileged", "cap_add", "pid", "ipc", "tmpfs"}

    def test_is_built_here(self, service: dict[str, Any]) -> None:
        """The image has the name that the manifests use, and comes from this checkout, not from a registry."""
        wanted = (APP_IMAGE, "examples/hello") if service is SERVICES["app"] else (IMAGE, ".")
        assert (service["image"], service["build"]) == wanted

    def test_name_is_left_to_the_project(self, service: dict[str, Any]) -> None:
        """Two stacks on one machine do not meet in a container's name."""
        assert "container_name" not in service

    def test_volumes_are_named_ones(self, service: dict[str, Any]) -> None:
        """A directory of the machine is somebody's: the image's user might neither read nor write there."""
        assert {volume.partition(":")[0] for volume in service.get("volumes", [])} <= COMPOSE["volumes"].keys()


class TestFile:
    def test_has_no_obsolete_key(self) -> None:
        """Compose warns about `version`."""
        assert {key for key in COMPOSE if not key.startswith("x-")} == {"services", "volumes"}

    def test_ports_are_published_on_this_machine_alone_and_can_be_changed(self) -> None:
        """Each port is a variable with a default, on 127.0.0.1; only the app publishes, whose network it is."""
        ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
        assert ports == {"app": ["127.0.0.1:${PORT:-8443}:443", "127.0.0.1:${MTLS_PORT:-8444}:8444"]}


class TestSidecars:
    @pytest.fixture(params=SIDECARS)
    def sidecar(self, request: pytest.FixtureRequest) -> dict[str, Any]:
        return SIDECARS[request.param]

    def test_shares_localhost_with_the_app(self, sidecar: dict[str, Any]) -> None:
        """Plain HTTP goes over localhost, to where the app listens."""
        assert sidecar["network_mode"] == "service:app"
        assert sidecar["environment"]["SIDECAR_UPSTREAM"] == "http://127.0.0.1:8080"

    def test_starts_when_app_and_certificates_are_there(self, sidecar: dict[str, Any]) -> None:
        """It waits for the app's health check and for the end of what makes the certificates."""
        conditions = {name: wanted["condition"] for name, wanted in sidecar["depends_on"].items()}
        assert conditions == {"app": "service_healthy", "certs": "service_completed_successfully"}

    def test_has_more_time_to_stop_than_it_takes(self, sidecar: dict[str, Any]) -> None:
        """Compose kills later than the sidecar gives up on requests in flight."""
        grace = re.fullmatch(r"([0-9]+)s", sidecar["stop_grace_period"])
        assert grace is not None
        assert int(grace[1]) >= settings_of(sidecar).timeouts.drain + 5

    def test_reads_certificates_and_no_other_key(self, sidecar: dict[str, Any]) -> None:
        """The CA's key is in a volume that no sidecar has, and what it has it cannot write."""
        assert sidecar["volumes"] == ["certs:/certs:ro"]

    def test_two_of_them_do_not_meet(self) -> None:
        """They share a network, so their listeners differ."""
        addresses = [
            (settings.listen, settings.admin) for settings in (settings_of(sidecar) for sidecar in SIDECARS.values())
        ]
        assert len({str(address) for pair in addresses for address in pair}) == 2 * len(SIDECARS)

    def test_one_serves_everybody_and_one_demands_a_certificate(self) -> None:
        """Without a profile it is TLS; `--profile mtls` adds the one with client certificates."""
        found = {name: (s.get("profiles"), settings_of(s).client.cert.value) for name, s in SIDECARS.items()}
        assert found == {"sidecar": (None, "none"), "sidecar-mtls": (["mtls"], "required")}


class TestOneShots:
    @pytest.mark.parametrize("name", ONE_SHOTS)
    def test_has_no_network(self, name: str) -> None:
        """What handles the CA's key talks to nobody."""
        assert ONE_SHOTS[name]["network_mode"] == "none"

    @pytest.mark.parametrize("name", ONE_SHOTS)
    def test_is_not_asked_for_its_health(self, name: str) -> None:
        """The image's health check asks a listener, and here is none: `up --wait` must not wait for it."""
        assert ONE_SHOTS[name]["healthcheck"] == {"disable": True}
