"""`sidecar.config.envoy_http2`: versions of HTTP, and the options of HTTP/2."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sidecar.config.load import load
from sidecar.config.topology import read as read_topology
from sidecar.config.traffic import doubts
from tests.config.bootstraps import (
    CERTIFICATE,
    TCP,
    UPSTREAM,
    Json,
    bootstrap,
    chain,
    cluster,
    extension,
    http,
    left_out,
    listener,
    read,
    refusals,
)

OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
ALPN = "common_tls_context.alpn_protocols"
HTTP2: Json = {"explicit_http_config": {"http2_protocol_options": {}}}
TLS: Json = {"transport_socket": extension(UPSTREAM)}


def serving(*alpn: str, port: int = 443, **fields: Any) -> Json:
    """A listener with TLS."""
    tls = {"common_tls_context": {"tls_certificates": [CERTIFICATE]} | ({"alpn_protocols": alpn} if alpn else {})}
    return listener(chain(http(**fields), tls=tls), port=port)


def plain(**fields: Any) -> Json:
    """A listener without TLS."""
    return listener(chain(http(**fields)))


def limited(**options: Any) -> Json:
    return bootstrap(serving("h2", "http/1.1", http2_protocol_options=options))


def defining(**fields: Any) -> Json:
    return bootstrap(clusters=[cluster(**fields)])


def typed(options: Json) -> Json:
    return {"typed_extension_protocol_options": {OPTIONS: {"@type": f"t/{OPTIONS}", **options}}}


def chosen(values: Json) -> dict[str, Any]:
    """Settings about HTTP/2."""
    return {name: value for name, value in read(values).values.items() if name.startswith("http2")}


class TestCodec:
    @pytest.mark.parametrize(
        "file",
        [
            bootstrap(serving("h2", "http/1.1")),
            bootstrap(serving("h2", "http/1.1", codec_type="AUTO")),
            bootstrap(serving("http/1.1", "h2"), serving("h2", "http/1.1", port=444)),
            bootstrap(plain(codec_type="HTTP1")),
            bootstrap(listener(chain(extension(TCP, cluster="app")))),
        ],
        ids=["usual", "auto", "two", "plain", "tcp"],
    )
    def test_listener_with_http2_needs_no_setting(self, file: Json) -> None:
        """It is on unless somebody says otherwise; without TLS there is nothing to agree on."""
        assert chosen(file) == {}
        assert left_out(file) == []

    @pytest.mark.parametrize(
        "file",
        [
            bootstrap(serving("h2", "http/1.1", codec_type="HTTP1")),
            bootstrap(serving("http/1.1")),
            bootstrap(serving()),
            bootstrap(serving(codec_type="HTTP1"), serving("http/1.1", port=444)),
            bootstrap(serving(), listener(chain(), port=80)),
        ],
        ids=["codec", "alpn", "no alpn", "two", "beside a plain one"],
    )
    def test_listeners_without_http2_turn_it_off(self, file: Json) -> None:
        """Clients that agreed on it in no case do not do so now; nothing is lost."""
        assert chosen(file) == {"http2": "off"}
        assert left_out(file) == []

    def test_options_of_what_is_not_spoken_are_nothing(self) -> None:
        """They would be refused beside the setting that turns it off."""
        file = bootstrap(serving("http/1.1", http2_protocol_options={"max_concurrent_streams": 10}))

        assert chosen(file) == {"http2": "off"}
        assert left_out(file) == []

    def test_http1_on_one_of_two_listeners_is_left_out(self) -> None:
        """One setting holds for both, and gRPC must come in where it did."""
        file = bootstrap(serving("h2"), serving("h2", codec_type="HTTP1", port=444))
        item = read(file).left_out[0]

        assert chosen(file) == {}
        assert item.path.endswith("listeners[1].filter_chains[0].filters[0].typed_config.codec_type")
        assert "there is one http2 for all listeners" in item.reason

    def test_one_of_two_listeners_that_does_not_offer_it_is_noted(self) -> None:
        """There is no field that says so, which could be left out."""
        notes = read(bootstrap(serving("h2"), serving("http/1.1", port=444))).notes

        assert any("listeners[1]" in note and "one http2 for all" in note for note in notes)

    @pytest.mark.parametrize(
        ("file", "reason"),
        [
            (bootstrap(serving("h2", codec_type="HTTP2")), "clients may agree on HTTP/1.1 too"),
            (bootstrap(plain(codec_type="HTTP2")), "without TLS, HTTP/1.1 is spoken with clients"),
            (bootstrap(plain(codec_type="HTTP3")), "there is no HTTP/3"),
        ],
        ids=["tls", "plain", "HTTP/3"],
    )
    def test_version_that_cannot_be_had_alone_is_left_out(self, file: Json, reason: str) -> None:
        """With what is done in its stead."""
        (item,) = read(file).left_out

        assert item.path.endswith(".codec_type")
        assert item.reason == reason

    def test_http2_alone_in_alpn_is_noted(self) -> None:
        """HTTP/1.1 is agreed to beside it."""
        assert any("may agree on http/1.1 too" in note for note in read(bootstrap(serving("h2"))).notes)
        assert not any("may agree" in note for note in read(bootstrap(serving("h2", "http/1.1"))).notes)

    def test_other_protocols_are_left_out(self) -> None:
        """What nobody speaks here cannot be agreed on."""
        (item,) = read(bootstrap(serving("h2", "h3"))).left_out

        assert item.path.endswith(f"{ALPN}[1]")


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "ours"),
        [
            ({}, {}),
            ({"max_concurrent_streams": 100}, {"http2_max_streams": "100"}),
            ({"max_concurrent_streams": 2147483647}, {"http2_max_streams": "1000"}),
            (
                {"initial_stream_window_size": 65536, "initial_connection_window_size": 1048576},
                {"http2_stream_window": "64KiB", "http2_connection_window": "1MiB"},
            ),
            ({"initial_stream_window_size": 131072}, {"http2_stream_window": "128KiB"}),
            (
                {"initial_stream_window_size": 4194304},
                {"http2_stream_window": "4MiB", "http2_connection_window": "4MiB"},
            ),
            (
                {"initial_connection_window_size": 65535},
                {"http2_stream_window": "65535", "http2_connection_window": "65535"},
            ),
            (
                {"initial_stream_window_size": 1048576, "initial_connection_window_size": 131072},
                {"http2_stream_window": "128KiB", "http2_connection_window": "128KiB"},
            ),
            ({"allow_connect": True}, {}),
        ],
        ids=[
            "none",
            "streams",
            "streams without end",
            "both",
            "stream",
            "large",
            "least",
            "wrong way round",
            "connect",
        ],
    )
    def test_option_becomes_a_setting(self, options: Json, ours: Json) -> None:
        """The connection has at least what a stream has, here and in what is made of a file."""
        assert chosen(limited(**options)) == ours
        assert left_out(limited(**options)) == []

    def test_more_streams_than_there_can_be_are_noted(self) -> None:
        """1,000 can be."""
        assert not any("1,000" in note for note in read(limited(max_concurrent_streams=1000)).notes)
        assert any(
            "1,001 is more than there can be here" in n for n in read(limited(max_concurrent_streams=1001)).notes
        )

    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("max_outbound_control_frames", "http2_max_control_bytes"),
            ("max_inbound_priority_frames_per_stream", "http2_max_priorities"),
            ("hpack_table_size", "fixed"),
            ("connection_keepalive", "idle_timeout"),
        ],
    )
    def test_other_option_is_left_out(self, name: str, reason: str) -> None:
        """With the setting that has its place, if there is one."""
        value = {"interval": "1s"} if name == "connection_keepalive" else 7
        (item,) = read(limited(**{name: value})).left_out

        assert item.path.endswith(f"http2_protocol_options.{name}")
        assert reason in item.reason

    def test_different_options_of_two_listeners_are_left_out(self) -> None:
        """The first holds for both."""
        first, second = (
            serving("h2", "http/1.1", port=port, http2_protocol_options={"max_concurrent_streams": port})
            for port in (443, 444)
        )

        assert chosen(bootstrap(first, second)) == {"http2_max_streams": "443"}
        assert len(left_out(bootstrap(first, second))) == 1

    def test_options_without_tls_are_left_out(self) -> None:
        """HTTP/2 is agreed on inside TLS alone."""
        assert left_out(bootstrap(plain(http2_protocol_options={"max_concurrent_streams": 7}))) == [
            "http2_protocol_options"
        ]


class TestProtocol:
    @pytest.mark.parametrize("fields", [{"http2_protocol_options": {}}, typed(HTTP2)], ids=["direct", "typed"])
    def test_options_ask_for_http2_by_being_there(self, fields: Json) -> None:
        """Without TLS it is h2c; nothing else is to be written."""
        assert read(defining(**fields)).values["clusters"][0]["protocol"] == "h2c"
        assert left_out(defining(**fields)) == []

    @pytest.mark.parametrize("fields", [{"http2_protocol_options": {}}, typed(HTTP2)], ids=["direct", "typed"])
    def test_http2_over_tls_is_refused(self, fields: Json) -> None:
        """Most servers that it is written for would not understand HTTP/1.1."""
        ((path, fact),) = refusals(defining(**fields, **TLS)).items()

        assert path.endswith("http2_protocol_options")
        assert fact == "HTTP/2 is spoken with upstreams without TLS alone"

    def test_bytes_are_passed_on_as_they_come(self) -> None:
        """Of a cluster that gets no requests, its version is left out; the file can be used."""
        file = bootstrap(listener(chain(extension(TCP, cluster="app"))), clusters=[cluster(http2_protocol_options={})])

        assert "protocol" not in read(file).values["clusters"][0]
        assert left_out(file) == ["http2_protocol_options"]

    @pytest.mark.parametrize(
        ("options", "lost"),
        [
            ({"explicit_http_config": {"http_protocol_options": {}}}, []),
            ({"common_http_protocol_options": {"idle_timeout": "1s"}}, []),
            ({"auto_config": {"http2_protocol_options": {}}}, ["auto_config"]),
            ({"use_downstream_protocol_config": {"http2_protocol_options": {}}}, ["use_downstream_protocol_config"]),
            ({"explicit_http_config": {"http3_protocol_options": {"x": 1}}}, ["http3_protocol_options"]),
        ],
        ids=["HTTP/1.1", "common", "auto", "as clients", "HTTP/3"],
    )
    def test_everything_else_is_http1(self, options: Json, lost: list[str]) -> None:
        """Asking for what is done anyway is silent."""
        assert "protocol" not in read(defining(**typed(options))).values["clusters"][0]
        assert [path.rpartition(".")[2] for path in left_out(defining(**typed(options)))] == lost

    def test_windows_of_upstreams_are_left_out(self) -> None:
        """They are fixed."""
        options = {"initial_stream_window_size": 65536}

        assert left_out(defining(http2_protocol_options=options)) == [
            "http2_protocol_options.initial_stream_window_size"
        ]

    def test_health_check_of_h2c_is_a_connection(self) -> None:
        """A path is asked for in HTTP/1.1, which such an app does not speak; the file can be used."""
        check = {"http_health_check": {"path": "/healthz", "codec_client_type": "HTTP2"}, "interval": "2s"}
        fields = {"health_checks": [check], "http2_protocol_options": {}}

        assert read(defining(**fields)).values["clusters"][0]["health_check"] == {"jitter": "0", "interval": "2s"}
        assert left_out(defining(**fields)) == ["health_checks[0].http_health_check"]


class TestResult:
    def test_everything_together_can_be_used(self) -> None:
        """A gRPC front proxy as Envoy's users have it is accepted, and nothing about it is doubted."""
        options = {"max_concurrent_streams": 100, "initial_stream_window_size": 2097152}
        got = read(bootstrap(serving("h2", http2_protocol_options=options), clusters=[cluster(**typed(HTTP2))]))
        flags = {name: v if isinstance(v, str) else json.dumps(v) for name, v in got.values.items()}
        loaded = load(flags, {})
        reading = read_topology(loaded)

        assert reading.problems == ()
        assert list(doubts(loaded, reading)) == []
