"""`sidecar.inject.container`: what runs in a pod."""

from __future__ import annotations

from typing import Any

import pytest

from tests.inject.manifests import POD_SPEC, injected_pod


def sidecar(**options: Any) -> Any:
    """The container, native or classic."""
    spec = injected_pod(**options)
    return spec["containers" if options.get("classic") else "initContainers"][-1]


def env(**options: Any) -> dict[str, str]:
    return {each["name"]: each["value"] for each in sidecar(**options)["env"]}


class TestContainer:
    @pytest.mark.parametrize("classic", [False, True])
    def test_it_meets_the_restricted_standard(self, classic: bool) -> None:
        """Not root, nothing to write to, no capabilities, no way to more."""
        context = sidecar(classic=classic)["securityContext"]
        assert context == {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        }

    def test_only_the_native_form_restarts_by_itself(self) -> None:
        """A container among the app's must not have a restart policy of its own."""
        assert sidecar()["restartPolicy"] == "Always"
        assert "restartPolicy" not in sidecar(classic=True)

    def test_only_the_native_form_is_told_to_stop_by_a_hook(self) -> None:
        """Its signal comes when the app is gone; a classic one has it together with the app."""
        assert sidecar()["lifecycle"] == {"preStop": {"exec": {"command": ["sh", "-c", "kill 1"]}}}
        assert "lifecycle" not in sidecar(classic=True)

    @pytest.mark.parametrize("shared", ["shareProcessNamespace", "hostPID"])
    def test_hook_is_left_out_where_it_would_hit_another(self, shared: str) -> None:
        """Process 1 is then the pod's or the node's."""
        assert "lifecycle" not in sidecar(spec=f"{POD_SPEC}{shared}: true\n")
        assert "lifecycle" in sidecar(spec=f"{POD_SPEC}{shared}: false\n")

    def test_start_does_not_wait_for_the_app(self) -> None:
        """The app starts after the startup probe: one that asks for readiness could wait for it for ever."""
        container = sidecar()
        assert container["startupProbe"]["httpGet"] == {"path": "/live", "port": "health"}
        assert container["livenessProbe"]["httpGet"]["path"] == "/live"
        assert container["readinessProbe"]["httpGet"]["path"] == "/ready"

    def test_probes_follow_the_health_listener(self) -> None:
        """Another health port is that of the probes."""
        ports = {port["name"]: port["containerPort"] for port in sidecar(settings={"health": ":9000"})["ports"]}
        assert ports == {"https": 8443, "health": 9000}

    def test_limits_are_there(self) -> None:
        """Namespaces with a quota refuse a container without requests."""
        assert sidecar()["resources"]["requests"].keys() == {"cpu", "memory"}


class TestSettings:
    def test_least_is_told(self) -> None:
        """Without secrets: addresses, and a number of connections that the memory limit bears."""
        assert env() == {
            "SIDECAR_LISTEN": "0.0.0.0:8443",
            "SIDECAR_UPSTREAM": "http://127.0.0.1:8080",
            "SIDECAR_HEALTH": "0.0.0.0:8082",
            "SIDECAR_MAX_CONNECTIONS": "4000",
        }

    @pytest.mark.parametrize(
        ("options", "told"),
        [
            pytest.param({"port": 9443}, {"SIDECAR_LISTEN": "0.0.0.0:9443"}, id="port"),
            pytest.param({"app_port": 5000}, {"SIDECAR_UPSTREAM": "http://127.0.0.1:5000"}, id="app-port"),
            pytest.param({"secret": "tls"}, {"SIDECAR_TLS_CERT": "/certs"}, id="secret"),
            pytest.param(
                {"client_ca_secret": "ca"},
                {"SIDECAR_CLIENT_CERT": "required", "SIDECAR_CLIENT_CA": "/client-ca"},
                id="client-ca",
            ),
            pytest.param(
                {"secret": "one", "client_ca_secret": "one"},
                {"SIDECAR_TLS_CERT": "/certs", "SIDECAR_CLIENT_CERT": "required", "SIDECAR_CLIENT_CA": "/certs/ca.crt"},
                id="both-in-one",
            ),
            pytest.param(
                {"client_ca_secret": "ca", "settings": {"client_cert": "optional"}},
                {"SIDECAR_CLIENT_CERT": "optional", "SIDECAR_CLIENT_CA": "/client-ca"},
                id="optional",
            ),
        ],
    )
    def test_options_become_settings(self, options: dict[str, Any], told: dict[str, str]) -> None:
        """Each option is told to the program, and nothing but it."""
        assert set(env(**options).items()) - set(env().items()) == set(told.items())

    @pytest.mark.parametrize(
        ("name", "upstream"), [("grpc", "h2c://127.0.0.1:8080"), ("h2c-api", "h2c://127.0.0.1:8080")]
    )
    def test_protocol_is_read_from_the_name_of_the_port(self, name: str, upstream: str) -> None:
        """As service meshes read it."""
        [container] = injected_pod(POD_SPEC.replace("name: http", f"name: {name}"))["initContainers"]
        assert container["env"][1] == {"name": "SIDECAR_UPSTREAM", "value": upstream}


class TestVolumes:
    def test_secrets_are_directories_that_only_the_sidecar_has(self) -> None:
        """A renewed certificate gets in by itself; what is mounted by subPath never changes."""
        spec = injected_pod(secret="web-tls", client_ca_secret="clients")
        [container] = spec["initContainers"]
        assert container["volumeMounts"] == [
            {"name": "sidecar-certs", "mountPath": "/certs", "readOnly": True},
            {"name": "sidecar-client-ca", "mountPath": "/client-ca", "readOnly": True},
        ]
        assert not any("volumeMounts" in each for each in spec["containers"])

    def test_key_of_the_client_ca_stays_outside(self) -> None:
        """The Secret of a CA may hold its key: nothing but the certificate is mounted."""
        [volume] = injected_pod(client_ca_secret="clients")["volumes"]
        assert volume["secret"] == {"secretName": "clients", "items": [{"key": "ca.crt", "path": "ca.crt"}]}

    def test_one_secret_for_both_is_one_volume(self) -> None:
        """The Secret that cert-manager makes has the CA in it."""
        [volume] = injected_pod(secret="one", client_ca_secret="one")["volumes"]
        assert volume == {"name": "sidecar-certs", "secret": {"secretName": "one"}}

    def test_pod_keeps_its_groups(self) -> None:
        """No fsGroup is set: it would change the owner of the app's own volumes."""
        assert "securityContext" not in injected_pod(secret="web-tls")
