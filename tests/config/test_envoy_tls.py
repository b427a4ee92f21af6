"""`sidecar.config.envoy_tls`: TLS contexts."""

from __future__ import annotations

from typing import Any

import pytest

from tests.config.bootstraps import (
    CERTIFICATE,
    UPSTREAM,
    Json,
    bootstrap,
    chain,
    cluster,
    extension,
    left_out,
    listener,
    read,
    refusals,
)

CA: Json = {"trusted_ca": {"filename": "ca.pem"}}


def server(common: Json, **fields: Any) -> Json:
    """A bootstrap with a TLS listener, whose certificate *common* may replace."""
    context = {"common_tls_context": {"tls_certificates": [CERTIFICATE]} | common, **fields}
    return bootstrap(listener(chain(tls=context)))


def upstream(common: Json, **fields: Any) -> Json:
    """A bootstrap with a cluster that speaks TLS."""
    context = {"common_tls_context": common, **fields}
    return bootstrap(clusters=[cluster(transport_socket=extension(UPSTREAM, **context))])


def upstream_tls(common: Json, **fields: Any) -> Any:
    return read(upstream(common, **fields)).values["clusters"][0]["tls"]


class TestServer:
    @pytest.mark.parametrize(
        ("params", "policy"),
        [
            ({"tls_minimum_protocol_version": "TLSv1_3"}, "modern"),
            ({"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"}, None),
            ({"tls_minimum_protocol_version": "TLS_AUTO"}, None),
        ],
    )
    def test_minimum_version_is_a_policy(self, params: Json, policy: str | None) -> None:
        """TLS 1.3 alone is a policy; from 1.2 on is the default."""
        assert read(server({"tls_params": params})).values.get("tls_policy") == policy
        assert left_out(server({"tls_params": params})) == []

    def test_older_and_other_suites_are_left_out(self) -> None:
        """What is spoken here is not weaker than what was asked for."""
        params = {"tls_minimum_protocol_version": "TLSv1_0", "tls_maximum_protocol_version": "TLSv1_2"}

        assert left_out(
            server({"tls_params": params | {"cipher_suites": ["AES128-SHA"], "ecdh_curves": ["P-256"]}})
        ) == [
            "common_tls_context.tls_params.tls_minimum_protocol_version",
            "common_tls_context.tls_params.tls_maximum_protocol_version",
            "common_tls_context.tls_params.cipher_suites",
            "common_tls_context.tls_params.ecdh_curves",
        ]

    def test_certificates_keep_their_keys(self) -> None:
        """Several are lists in the same order."""
        other = {"certificate_chain": {"filename": "d.pem"}, "private_key": {"filename": "l.pem"}}
        values = read(server({"tls_certificates": [CERTIFICATE, other]})).values

        assert (values["tls_cert"], values["tls_key"]) == (["c.pem", "d.pem"], ["k.pem", "l.pem"])

    def test_keystore_has_its_password(self) -> None:
        """A PKCS#12 file is certificate and key in one; a password in a file stays there."""
        keystore = {"pkcs12": {"filename": "a.p12"}, "password": {"filename": "secret"}}
        values = read(server({"tls_certificates": [keystore]})).values

        assert (values["tls_cert"], values["tls_key_password"]) == ("a.p12", "./secret")
        assert "tls_key" not in values

    @pytest.mark.parametrize(
        "common",
        [
            {"tls_certificate_sds_secret_configs": [{"name": "x"}]},
            {"tls_certificates": [CERTIFICATE | {"private_key_provider": {"provider_name": "x"}}]},
            {"tls_certificates": [{"private_key": {"filename": "k.pem"}}]},
            {"tls_certificates": [CERTIFICATE | {"password": {"inline_string": "/not/a/path"}}]},
            {"tls_certificates": [{"pkcs12": {"filename": "a.p12"}}, CERTIFICATE]},
            {"tls_params": {"compliance_policies": ["FIPS_202205"]}},
            {"validation_context_sds_secret_config": {"name": "x"}},
            {"combined_validation_context": {"default_validation_context": CA}},
            {"validation_context": CA | {"custom_validator_config": {"name": "spiffe"}}},
            {"validation_context": CA | {"trust_chain_verification": "ACCEPT_UNTRUSTED"}},
            {"validation_context": {"verify_certificate_hash": ["ab" * 32]}},
            {"validation_context": {"ca_certificate_provider_instance": {"instance_name": "x"}}},
        ],
        ids=lambda common: next(iter(common)),
    )
    def test_what_decides_about_trust_is_never_left_out(self, common: Json) -> None:
        """Certificates that cannot be had, and checks that cannot be made, are refused."""
        assert refusals(server(common))

    def test_listener_that_requires_certificates_needs_a_ca(self) -> None:
        """Without one, Envoy takes any certificate."""
        assert refusals(server({}, require_client_certificate=True)) == {
            "filter_chains[0].transport_socket.typed_config": (
                "clients are asked for certificates, but there is no CA to check them with"
            )
        }

    @pytest.mark.parametrize(
        ("validation", "is_required", "mode"),
        [
            ({}, True, "required"),
            ({}, False, "optional"),
            ({"match_subject_alt_names": [{"exact": "a.b"}]}, False, "required"),
            ({"verify_certificate_hash": ["ab" * 32]}, False, "required"),
            ({"verify_certificate_spki": ["A" * 43 + "="]}, False, "required"),
        ],
        ids=["told", "not-told", "names", "certificates", "keys"],
    )
    def test_certificates_are_required_as_in_envoy(self, validation: Json, is_required: bool, mode: str) -> None:
        """With a CA clients are asked; they must answer if the context says so, or if it wants certain certificates."""
        values = read(server({"validation_context": CA | validation}, require_client_certificate=is_required)).values

        assert values["client_cert"] == mode

    def test_client_settings_are_carried_over(self) -> None:
        """What is checked of their certificates are settings of ours."""
        validation = CA | {
            "crl": {"filename": "crl.pem"},
            "max_verify_depth": 2,
            "match_subject_alt_names": [{"exact": "a.b"}],
        }
        values = read(server({"validation_context": validation}, require_client_certificate=True)).values

        assert {name: value for name, value in values.items() if name.startswith("client")} == {
            "client_cert": "required",
            "client_ca": "ca.pem",
            "client_crl": "crl.pem",
            "client_crl_scope": "chain",
            "client_depth": "2",
            "client_allow": "dns=a.b",
            "client_refusal": "handshake",
        }

    def test_expired_certificates_stay_refused(self) -> None:
        """What Envoy would let in longer is noted."""
        notes = read(server({"validation_context": CA | {"allow_expired_certificate": True}})).notes

        assert any("expired" in note for note in notes)

    def test_list_for_leaves_only(self) -> None:
        """Whose revocation lists there must be is carried over."""
        validation = CA | {"crl": {"filename": "crl.pem"}, "only_verify_leaf_cert_crl": True}

        assert read(server({"validation_context": validation})).values["client_crl_scope"] == "leaf"

    def test_missing_certificate_is_made(self) -> None:
        """A certificate is made at start, which is noted."""
        assert any("one is made at start" in note for note in read(server({"tls_certificates": []})).notes)


class TestUpstream:
    def test_without_validation_nothing_is_verified(self) -> None:
        """As in Envoy, which the operator is told."""
        assert upstream_tls({}) == {"verify": "off"}
        assert any("does not verify" in note for note in read(upstream({})).notes)

    def test_names_are_required_that_envoy_requires(self) -> None:
        """CA, names, server name and our own certificate."""
        validation = CA | {"match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": "spiffe://a/b"}}]}
        common = {"validation_context": validation, "tls_certificates": [CERTIFICATE], "alpn_protocols": ["http/1.1"]}

        assert upstream_tls(common, sni="app.internal") == {
            "ca": "ca.pem",
            "names": ["spiffe://a/b"],
            "sni": "app.internal",
            "alpn": ["http/1.1"],
            "cert": "c.pem",
            "key": "k.pem",
        }

    def test_without_names_that_of_the_server_is_required(self) -> None:
        """Envoy would take any name of that CA; here it must be the one asked for, which is noted."""
        values = upstream({"validation_context": CA}, sni="app.internal")

        assert upstream_tls({"validation_context": CA}, sni="app.internal")["names"] == ["app.internal"]
        assert any("must name app.internal here" in note for note in read(values).notes)

    def test_system_roots_are_the_default(self) -> None:
        """No CA of ours means those of the system."""
        assert "ca" not in upstream_tls({"validation_context": {"system_root_certs": {}}}, sni="a.b")

    def test_other_versions_of_http_are_left_out(self) -> None:
        """Requests go out in HTTP/1.1."""
        values = upstream({"alpn_protocols": ["h2", "http/1.1"]})

        assert left_out(values) == ["transport_socket.typed_config.common_tls_context.alpn_protocols[0]"]
        assert read(values).values["clusters"][0]["tls"]["alpn"] == ["http/1.1"]

    @pytest.mark.parametrize(
        "common",
        [
            {"validation_context": {"match_subject_alt_names": [{"exact": "a.b"}]}},
            {"validation_context": CA | {"crl": {"filename": "crl.pem"}}},
            {"validation_context": CA | {"verify_certificate_hash": ["ab" * 32]}},
            {"validation_context": CA | {"match_subject_alt_names": [{"suffix": "b"}]}},
            {"combined_validation_context": {"default_validation_context": CA}},
            {"validation_context_sds_secret_config": {"name": "x"}},
            {"validation_context_certificate_provider_instance": {"instance_name": "x"}},
            {"tls_params": {"tls_minimum_protocol_version": "TLSv1_3"}},
            {"tls_certificates": [CERTIFICATE, CERTIFICATE]},
            {"tls_certificates": [CERTIFICATE | {"password": {"filename": "x"}}]},
            {"tls_certificates": [CERTIFICATE | {"private_key": {"inline_string": "-----BEGIN PRIVATE KEY-----"}}]},
        ],
    )
    def test_what_decides_about_trust_is_never_left_out(self, common: Json) -> None:
        """A check of upstreams that cannot be made here is refused."""
        assert refusals(upstream(common))

    def test_other_transport_socket_is_refused(self) -> None:
        """Nothing is spoken in place of what was asked for."""
        socket = extension("t/envoy.extensions.transport_sockets.alts.v3.Alts")

        assert refusals(bootstrap(clusters=[cluster(transport_socket=socket)]))

    def test_plain_socket_is_none(self) -> None:
        """raw_buffer says what is the case without it."""
        values = bootstrap(clusters=[cluster(transport_socket={"name": "envoy.transport_sockets.raw_buffer"})])

        assert "tls" not in read(values).values["clusters"][0]
