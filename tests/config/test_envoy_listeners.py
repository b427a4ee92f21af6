"""`sidecar.config.envoy_listeners`: addresses, filter chains, and what they share."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.config.bootstraps import (
    CERTIFICATE,
    TCP,
    Json,
    bootstrap,
    chain,
    extension,
    http,
    left_out,
    listener,
    read,
    refusals,
    virtual_hosts,
)

TLS: Json = {"common_tls_context": {"tls_certificates": [CERTIFICATE]}}
PROXY_PROTOCOL = "t/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol"


def tls(cert: str = "c.pem", key: str = "k.pem", **common: Any) -> Json:
    certificate = {"certificate_chain": {"filename": cert}, "private_key": {"filename": key}}
    return {"common_tls_context": {"tls_certificates": [certificate]} | common}


def first(values: Json) -> Any:
    return read(values).values["listeners"][0]


class TestListener:
    def test_listener_speaks_tls_if_its_chain_does(self) -> None:
        """TLS is the default here, and none the default there."""
        assert "tls" not in first(bootstrap(listener(chain(tls=TLS))))
        assert first(bootstrap(listener(chain())))["tls"] == "off"

    def test_names_are_kept_apart(self) -> None:
        """A name that is missing, taken or none of ours is replaced by its place."""
        named = [listener(port=port, **name) for port, name in ((1, {"name": "a"}), (2, {"name": "a"}), (3, {}))]

        assert [each["name"] for each in read(bootstrap(*named)).values["listeners"]] == [
            "a",
            "listener_1",
            "listener_2",
        ]

    @pytest.mark.parametrize(
        "fields",
        [
            {"address": {"pipe": {"path": "/run/x"}}},
            {"use_original_dst": True},
            {"bind_to_port": False},
            {"filter_chains": []},
            {"filter_chains": [{"filters": []}]},
            {"listener_filters": [{"name": "envoy.filters.listener.local_ratelimit"}]},
            {"listener_filters": [{"name": "envoy.filters.listener.original_dst"}]},
        ],
    )
    def test_listener_that_cannot_be_had_is_refused(self, fields: Json) -> None:
        """Connections must not come in another way, or past a filter."""
        assert refusals(bootstrap(listener(**fields)))

    def test_inspectors_are_silent(self) -> None:
        """What a client asks for is always known."""
        filters = [
            {"name": "envoy.listener.tls_inspector", "config": {}},
            {"name": "envoy.filters.listener.http_inspector"},
        ]
        values = bootstrap(listener(traffic_direction="INBOUND", listener_filters=filters))

        assert left_out(values) == []

    def test_tuning_is_left_out(self) -> None:
        """Buffers and backlogs are fixed here."""
        values = bootstrap(listener(per_connection_buffer_limit_bytes=32768, tcp_backlog_size=10))

        assert left_out(values) == ["per_connection_buffer_limit_bytes", "tcp_backlog_size"]


class TestProxyProtocol:
    @pytest.mark.parametrize(
        ("filter_", "mode"),
        [
            (extension(PROXY_PROTOCOL), "required"),
            ({"name": "envoy.listener.proxy_protocol"}, "required"),
            (extension(PROXY_PROTOCOL, allow_requests_without_proxy_protocol=True), "trusted"),
        ],
    )
    def test_header_is_required_or_for_the_trusted(self, filter_: Json, mode: str) -> None:
        """Where Envoy takes a header from anybody, here somebody must be trusted."""
        got = read(bootstrap(listener(listener_filters=[filter_])))

        assert got.values["listeners"][0]["proxy_protocol"] == mode
        assert any("may send a PROXY header" in note for note in got.notes) == (mode == "trusted")

    def test_chain_of_v2_may_require_it(self) -> None:
        """Files for v2 say it in the chain."""
        assert first(bootstrap(listener(chain(use_proxy_proto=True))))["proxy_protocol"] == "required"

    def test_chains_must_agree_about_it(self) -> None:
        """A listener cannot tell before the header whether there will be one."""
        values = bootstrap(listener(chain(tls=TLS, use_proxy_proto=True), chain(tls=TLS)))

        assert list(refusals(values)) == ["filter_chains[1]"]


class TestChains:
    def test_chains_by_server_name_are_one_listener(self) -> None:
        """Their certificates are chosen by the names in them."""
        chains = [
            chain(tls=tls(f"{name}.pem", f"{name}.key"), filter_chain_match={"server_names": [name]}) for name in "ab"
        ]
        got = read(bootstrap(listener(*chains)))

        assert (got.values["tls_cert"], got.values["tls_key"]) == (["a.pem", "b.pem"], ["a.key", "b.key"])
        assert len(got.values["listeners"][0]["virtual_hosts"]) == 1
        assert got.left_out == ()
        assert any("certificates are chosen" in note for note in got.notes)

    def test_default_chain_has_the_first_certificate(self) -> None:
        """It is the one for names that nobody has."""
        values = bootstrap(listener(chain(tls=tls("a.pem")), default_filter_chain=chain(tls=tls("b.pem"))))

        assert read(values).values["tls_cert"] == ["b.pem", "a.pem"]

    def test_same_certificate_is_named_once(self) -> None:
        """As for two listeners with one certificate."""
        assert read(bootstrap(listener(chain(tls=TLS), chain(tls=TLS)))).values["tls_cert"] == "c.pem"

    def test_losses_in_chains_that_are_alike_are_told(self) -> None:
        """Comparing the filters is not reading them."""
        config = http(server_name="x")

        assert left_out(bootstrap(listener(chain(config, tls=TLS), chain(copy.deepcopy(config), tls=TLS)))) == [
            "server_name"
        ]

    def test_chains_with_other_filters_are_refused(self) -> None:
        """One of them would serve what is the other's."""
        other = http(route_config=virtual_hosts(name="other"))

        assert list(refusals(bootstrap(listener(chain(tls=TLS), chain(other, tls=TLS))))) == ["filter_chains[1]"]

    def test_chains_with_and_without_tls_are_refused(self) -> None:
        """A listener speaks TLS or does not."""
        assert list(refusals(bootstrap(listener(chain(tls=TLS), chain())))) == ["filter_chains[1]"]

    @pytest.mark.parametrize(
        "match",
        [
            {"source_prefix_ranges": [{"address_prefix": "10.0.0.0", "prefix_len": 8}]},
            {"destination_port": 443},
            {"application_protocols": ["h2"]},
            {"transport_protocol": "raw_buffer"},
        ],
    )
    def test_chain_for_some_connections_is_refused(self, match: Json) -> None:
        """It would be for all of them."""
        assert refusals(bootstrap(listener(chain(tls=TLS, filter_chain_match=match))))

    @pytest.mark.parametrize(
        "filters",
        [
            [{"name": "envoy.filters.network.rbac"}, http()],
            [{"name": "envoy.client_ssl_auth", "config": {}}, http()],
            [extension("t/envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit"), http()],
            [http(), http()],
            [extension("t/envoy.extensions.filters.network.redis_proxy.v3.RedisProxy")],
        ],
    )
    def test_filter_that_is_not_here_is_refused(self, filters: list[Json]) -> None:
        """Connections would pass without it."""
        assert refusals(bootstrap(listener(chain(*filters))))

    def test_protocols_of_http_are_no_list_of_the_listener(self) -> None:
        """With HTTP it is known what clients may agree on."""
        values = bootstrap(listener(chain(tls=tls(alpn_protocols=["h2", "http/1.1"]))))

        assert left_out(values) == []
        assert "alpn" not in first(values)

    def test_protocols_of_tcp_are_kept(self) -> None:
        """What is inside of TLS is between client and app."""
        values = bootstrap(listener(chain(extension(TCP, cluster="app"), tls=tls(alpn_protocols=["h2", "mqtt"]))))

        assert first(values)["alpn"] == ["h2", "mqtt"]


class TestTlsOfAll:
    def test_listeners_share_their_certificates(self) -> None:
        """Certificates of all listeners are settings of the program."""
        values = bootstrap(listener(chain(tls=tls("a.pem"))), listener(chain(tls=tls("b.pem")), port=444))

        assert read(values).values["tls_cert"] == ["a.pem", "b.pem"]

    def test_listeners_that_ask_clients_differently_are_refused(self) -> None:
        """Nobody may come in without a certificate because another listener asks for none."""
        asking = tls(validation_context={"trusted_ca": {"filename": "ca.pem"}}) | {"require_client_certificate": True}
        values = bootstrap(listener(chain(tls=TLS)), listener(chain(tls=asking), port=444))

        assert list(refusals(values)) == ["listeners[1].filter_chains[0].transport_socket.typed_config"]

    def test_versions_that_are_written_out_are_no_disagreement(self) -> None:
        """The default is the same whether it is written or not."""
        written = tls(tls_params={"tls_minimum_protocol_version": "TLSv1_2"})

        assert read(bootstrap(listener(chain(tls=TLS)), listener(chain(tls=written), port=444))).left_out == ()

    def test_different_versions_are_refused(self) -> None:
        """TLS 1.2 must not be spoken where 1.3 was asked for."""
        modern = tls(tls_params={"tls_minimum_protocol_version": "TLSv1_3"})

        assert refusals(bootstrap(listener(chain(tls=TLS)), listener(chain(tls=modern), port=444)))

    def test_listener_without_tls_is_no_disagreement(self) -> None:
        """It asks for nothing."""
        asking = tls(validation_context={"trusted_ca": {"filename": "ca.pem"}}) | {"require_client_certificate": True}

        assert read(bootstrap(listener(chain(tls=asking)), listener(port=80))).values["client_cert"] == "required"

    @pytest.mark.parametrize("field", ["certificate_chain", "private_key"])
    def test_several_certificates_must_be_in_files(self, field: str) -> None:
        """A setting holds one value or several paths."""
        inline = CERTIFICATE | {field: {"inline_string": "-----BEGIN X-----"}}
        values = bootstrap(listener(chain(tls={"common_tls_context": {"tls_certificates": [CERTIFICATE, inline]}})))

        assert refusals(values)

    def test_different_passwords_are_refused(self) -> None:
        """There is one for all keys."""
        locked = [CERTIFICATE | {"password": {"inline_string": text}} for text in ("one", "two")]

        assert refusals(bootstrap(listener(chain(tls={"common_tls_context": {"tls_certificates": locked}}))))
