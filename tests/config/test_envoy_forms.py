"""`sidecar.config.envoy_forms`: shapes that recur in bootstrap files."""

from __future__ import annotations

import pytest

from sidecar.config.envoy_forms import address, duration, extension, host_of, seconds, source
from sidecar.config.envoy_nodes import Findings, Node, parse


def tree(content: str) -> Node:
    return parse(content, Findings("x"))


def problems(node: Node) -> list[str]:
    node.report()
    return [problem.setting for problem in node.findings.problems]


class TestDuration:
    @pytest.mark.parametrize(
        ("text", "ours"),
        [
            ("0.5s", "500ms"),
            ("0s", "0s"),
            ("1.000s", "1s"),
            ("75s", "75s"),
            ("0.0000001s", "1ms"),
            ("0.250999s", "251ms"),
            ("999999999s", "86400s"),
            ("{seconds: 1, nanos: 500000000}", "1500ms"),
            ("{nanos: 1}", "1ms"),
            ("{}", "0s"),
        ],
    )
    def test_duration_is_written_as_ours(self, text: str, ours: str) -> None:
        """Never shorter than it was, as 0 would turn some of them off."""
        assert duration(tree(f"a: {text}"), "a") == ours

    @pytest.mark.parametrize("text", ["5", "5ms", "-1s", "1.s", "s", "[]", "1.0000000001s", "x"])
    def test_other_text_is_refused(self, text: str) -> None:
        """Durations of protobuf end in an s."""
        node = tree(f"a: {text}")

        assert duration(node, "a") in ("", "0s")
        assert problems(node) == ["a"] or text == "[]"

    def test_missing_duration_is_empty(self) -> None:
        """Nobody has chosen one."""
        assert duration(tree("a: 1s"), "b") == ""

    def test_seconds_of_it(self) -> None:
        """Two durations can be compared."""
        assert seconds("1500ms") == 1.5


class TestAddress:
    @pytest.mark.parametrize(
        ("text", "ours", "host"),
        [
            ("{socket_address: {address: 0.0.0.0, port_value: 443}}", "0.0.0.0:443", "0.0.0.0"),
            ("{socketAddress: {address: '::', portValue: 443}}", "[::]:443", "::"),
            (
                "{socket_address: {address: app.internal, port_value: 80, protocol: tcp}}",
                "app.internal:80",
                "app.internal",
            ),
            ("{pipe: {path: /run/app.sock, mode: 384}}", "unix:/run/app.sock", ""),
        ],
    )
    def test_address_is_written_as_ours(self, text: str, ours: str, host: str) -> None:
        """TCP addresses and Unix sockets."""
        node = tree(f"address: {text}")

        assert address(node) == ours
        assert host_of(ours) == host
        assert problems(node) == []

    @pytest.mark.parametrize(
        "text",
        [
            "{socket_address: {address: 0.0.0.0, port_value: 443, protocol: UDP}}",
            "{socket_address: {address: 0.0.0.0}}",
            "{socket_address: {address: 0.0.0.0, port_value: 0}}",
            "{socket_address: {address: 0.0.0.0, named_port: https}}",
            "{socket_address: {address: 'a b', port_value: 1}}",
            "{socket_address: {address: a, port_value: 1, network_namespace_filepath: /x}}",
            "{pipe: {path: '@abstract'}}",
            "{envoy_internal_address: {server_listener_name: x}}",
            "{}",
        ],
    )
    def test_other_address_is_refused(self, text: str) -> None:
        """There is no other address in place of one that cannot be carried over."""
        node = tree(f"address: {text}")
        address(node)

        assert problems(node)

    def test_missing_address_is_refused(self) -> None:
        """Nothing listens nowhere."""
        node = tree("a: 1")

        assert address(node) == ""
        assert problems(node)


class TestSource:
    @pytest.mark.parametrize(
        ("text", "ours"),
        [
            ("{filename: /etc/ssl/a.pem}", "/etc/ssl/a.pem"),
            ("{filename: a.pem, watched_directory: {path: /etc}}", "a.pem"),
            ("{inline_string: 'x\n\ny'}", "x\ny"),
            ("{inlineBytes: eHl6}", "xyz"),
            ("{}", ""),
        ],
    )
    def test_source_is_path_or_content(self, text: str, ours: str) -> None:
        """Files stay files; what is in the file is decoded."""
        node = tree(f"a: {text}")

        assert source(node, "a") == ours
        assert problems(node) == []

    @pytest.mark.parametrize(
        "text",
        [
            "{environment_variable: KEY}",
            "{filename: 'a,b'}",
            "{filename: none}",
            "{filename: ' a'}",
            "{inline_bytes: '%%%'}",
            "{inline_bytes: '/w=='}",
            "{filename: a, other: b}",
            "{inline_string: ''}",
        ],
    )
    def test_other_source_is_refused(self, text: str) -> None:
        """A setting could not say it, or would mean something else."""
        node = tree(f"a: {text}")
        source(node, "a")

        assert problems(node)


class TestExtension:
    @pytest.mark.parametrize(
        ("text", "kind", "family"),
        [
            ("name: envoy.tcp_proxy", "TcpProxy", "tcp_proxy"),
            ("name: envoy.filters.network.tcp_proxy\nconfig: {}", "TcpProxy", "tcp_proxy"),
            ("name: x\ntyped_config: {'@type': t/envoy.filters.http.cors.v3.Cors}", "Cors", "cors"),
            ("name: cors\ntyped_config: {'@type': t/envoy.filters.http.rbac.v3.RBAC}", "RBAC", "rbac"),
            ("name: tls\ntyped_config: {'@type': RBAC}", "RBAC", ""),
            ("name: envoy.filters.http.lua", "", "lua"),
        ],
    )
    def test_type_says_what_it_is(self, text: str, kind: str, family: str) -> None:
        """With a type, the name is free and means nothing: a filter cannot pass for a harmless one."""
        found = extension(tree(text))

        assert (found.kind, found.family) == (kind, family)
