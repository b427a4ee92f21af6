"""`sidecar.inject.h2c`: which apps are said to speak HTTP/2 without TLS."""

from __future__ import annotations

import pytest

from sidecar.inject import h2c


class TestPortName:
    @pytest.mark.parametrize("name", ["grpc", "h2c", "grpc-api", "h2c-a-b"])
    def test_protocol_perhaps_with_a_suffix_says_so(self, name: str) -> None:
        """As service meshes read the names of ports."""
        assert h2c.is_port_name(name)

    @pytest.mark.parametrize(
        "name", ["", "http", "http2", "grpcs", "grpcx", "GRPC", "my-grpc", "-grpc", "grpc-web", "grpc-web-ui", "h2"]
    )
    def test_other_names_do_not(self, name: str) -> None:
        """Not what is spoken in TLS, in HTTP/1.1, or perhaps in either."""
        assert not h2c.is_port_name(name)

    def test_suffix_that_begins_like_grpc_web_is_one(self) -> None:
        """Only the whole word is another protocol."""
        assert h2c.is_port_name("grpc-webhooks")


class TestAppProtocols:
    @pytest.mark.parametrize("protocol", ["", "http", "https", "HTTP2", "kubernetes.io/ws", "grpc-web"])
    def test_others_are_not(self, protocol: str) -> None:
        """HTTP2 in capitals is HTTP/2 in TLS to some."""
        assert protocol not in h2c.APP_PROTOCOLS
