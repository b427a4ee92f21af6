"""`observe.jsonline`: what an operator needs of an exchange, as JSON that no client can forge."""

from __future__ import annotations

import json
from typing import Any, cast

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.observe.accesslog import AccessLog
from sidecar.observe.escaping import MAX_VALUE_BYTES
from sidecar.policy.forwarding import Hop, TrustedProxies
from sidecar.policy.identity import PeerIdentity, identity_of
from sidecar.proxy.connect import ConnectFailed
from sidecar.proxy.exchange import Exchange
from sidecar.proxy.intake import Forwarding
from sidecar.proxy.routing import Destination, Router
from sidecar.proxy.tunnel import Tunnel
from sidecar.settings import AccessLogFormat, HostPort
from sidecar.tls.session import NO_TLS
from sidecar.tls.verify import Verification, VerifyReason
from sidecar.wire.proxyproto import ProxyHeader
from tests.support.certs import CLIENT, authority
from tests.support.pump import ADMITTED, SESSION, Pump

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

IDENTITY = PeerIdentity(
    uri=("spiffe://prod/ns/a", "spiffe://prod/ns/b"),
    subject="CN=ci",
    issuer="CN=Private CA",
    serial="5e26",
    sha256="ab" * 32,
    spki_sha256="cd" * 32,
    not_before=0.0,
    not_after=0.0,
)


class Logged:
    """A pump whose access log writes JSON into a list."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.pump = Pump()
        self.log = self.pump.service.access_log = AccessLog(
            self.lines.append,
            AccessLogFormat.JSON,
            wall_clock=lambda: 1_000_000_000.125 + self.pump.clock.seconds(),
        )

    def identify(self, identity: PeerIdentity | None, reason: VerifyReason | None = None) -> None:
        """Let the client have shown a certificate that says *identity*, and was not accepted if there is a *reason*."""
        downstream = self.pump.downstream
        downstream.session = attrs.evolve(downstream.session, verification=Verification(None, reason, identity))

    def ask(self) -> Exchange:
        """Send a request that is not answered yet, and return its exchange."""
        self.pump.start_exchange(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        return cast(Exchange, self.pump.pool.opened[-1].lessee)

    def serve(self, request: bytes, response: bytes = OK) -> str:
        self.pump.start_exchange(request)
        self.pump.app_sends(response)
        return self.line

    @property
    def line(self) -> str:
        (line,) = self.lines
        return line

    @property
    def record(self) -> dict[str, Any]:
        record: dict[str, Any] = json.loads(self.line)
        return record


@pytest.fixture
def as_json() -> Logged:
    return Logged()


class TestJsonFormat:
    def test_all_fields_are_there(self, as_json: Logged) -> None:
        """What an operator needs of an exchange, and numbers as numbers."""
        as_json.pump.start_exchange(
            b"POST /x HTTP/1.1\r\nHost: a.example\r\nUser-Agent: t/1\r\nContent-Length: 3\r\n\r\nab"
        )
        as_json.pump.pass_time(0.25)
        as_json.pump.client_sends(b"c")
        as_json.pump.app_sends(OK[:-1])
        as_json.pump.pass_time(0.5)
        as_json.pump.app_sends(OK[-1:])
        record = as_json.record
        assert len(record.pop("request_id")) == 32
        assert {name: value for name, value in record.items() if name not in ("trace_id", "upstream")} == {
            "time": "2001-09-09T01:46:40.875Z",
            "client": "192.0.2.7",
            "status": 200,
            "tls_version": "TLSv1.3",
            "tls_cipher": "TLS_AES_256_GCM_SHA384",
            "tls_resumed": False,
            "sni": "localhost",
            "method": "POST",
            "path": "/x",
            "protocol": "HTTP/1.1",
            "host": "a.example",
            "bytes_received": 3,
            "bytes_sent": 2,
            "duration_ms": 750.0,
            "upstream_ms": 250.0,
            "user_agent": "t/1",
        }

    def test_request_id_is_the_apps(self, as_json: Logged) -> None:
        """The line can be found from the app's own log."""
        as_json.pump.start_exchange()
        sent = as_json.pump.app_receives()
        as_json.pump.app_sends(OK)
        assert b"X-Request-Id: %b\r\n" % as_json.record["request_id"].encode() in sent

    def test_own_answer_has_its_reason(self, as_json: Logged) -> None:
        """Why we answered, and the detail that the client does not get."""
        as_json.pump.client_sends(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        as_json.pump.pool.refuse("upstream_unreachable", "No route to host")
        assert as_json.record["status"] == 502
        assert as_json.record["reason"] == "upstream_unreachable"
        assert as_json.record["detail"] == "No route to host"
        assert "upstream_ms" not in as_json.record

    def test_refused_head_shows_nothing_of_it(self, as_json: Logged) -> None:
        """A request that breaks a rule cannot be trusted in any part."""
        as_json.pump.client_sends(b"GET /s3cret HTTP/1.1\r\nHost: a\r\nBad Name: s3cret\r\n\r\n")
        assert as_json.record["status"] == 400
        assert as_json.record["reason"]
        assert "s3cret" not in as_json.line

    def test_refused_head_of_http2_says_so(self, as_json: Logged) -> None:
        """It was agreed on before there was a request."""
        downstream = as_json.pump.downstream
        downstream.session = attrs.evolve(downstream.session, alpn="h2")
        as_json.pump.client_sends(b"GET / HTTP/1.1\r\nHost: a\r\nBad Name: x\r\n\r\n")
        assert as_json.record["protocol"] == "HTTP/2"

    def test_balancer_is_told_from_its_client(self, as_json: Logged) -> None:
        """Whom a PROXY header named, who really connected, and what else the header said."""
        peer = as_json.pump.peer
        peer.via = HostPort("10.0.0.9", 1)
        peer.proxied = ProxyHeader(
            version=2, tlvs=((0x02, b"a.example"), (0x05, b"\x01id"), (0xEA, b"\x01vpce-08d2bf15fac5001c9"))
        )
        as_json.serve(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        record = as_json.record
        assert (record["client"], record["via"]) == ("192.0.2.7", "10.0.0.9")
        assert record["proxy_authority"] == "a.example"
        assert record["proxy_unique_id"] == "016964"
        assert record["vpc_endpoint_id"] == "vpce-08d2bf15fac5001c9"

    def test_header_that_says_nothing_is_not_shown(self, as_json: Logged) -> None:
        """Nor is a balancer that spoke for itself a proxy of anybody."""
        as_json.pump.peer.proxied = ProxyHeader(version=2, is_local=True)
        as_json.serve(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert not [name for name in as_json.record if name == "via" or name.startswith(("proxy", "vpc"))]

    def test_trusted_proxy_is_told_from_its_client(self, as_json: Logged) -> None:
        """Each request on its connection may be another's."""
        hop = Hop(peer="192.0.2.7", local=HostPort("192.0.2.1", 443), is_trusted=True)
        as_json.pump.judge_again(forwarding=Forwarding(b"", b"", hop, TrustedProxies(("192.0.2.0/24",))))
        for number in (8, 9):
            forwarded = b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.%d\r\n\r\n" % number
            as_json.pump.client_sends(forwarded)
            if as_json.pump.pool.waiting:
                as_json.pump.pool.accept()
            as_json.pump.app_sends(OK)
        records = [json.loads(line) for line in as_json.lines]
        assert [(record["client"], record["via"]) for record in records] == [
            ("203.0.113.8", "192.0.2.7"),
            ("203.0.113.9", "192.0.2.7"),
        ]

    def test_route_is_shown_where_there_are_several(self, as_json: Logged) -> None:
        """With the cluster that it leads to."""
        only = as_json.pump.service.router.only
        assert isinstance(only, Destination)
        as_json.pump.service.router = Router(
            None, {}, Destination(name="static", cluster=only.cluster, timeouts=only.timeouts)
        )
        as_json.serve(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (as_json.record["route"], as_json.record["cluster"]) == ("static", "app")

    def test_connection_in_the_clear_has_no_tls(self, as_json: Logged) -> None:
        """Not even as an empty text."""
        as_json.pump.downstream.session = NO_TLS
        as_json.serve(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert not [name for name in as_json.record if name.startswith("tls") or name == "sni"]

    def test_tunnel_is_an_object_too(self, as_json: Logged) -> None:
        """Who, where to, how much and how long; the same names where they mean the same."""
        pump = as_json.pump
        pump.clock.advance(10)
        tunnel = Tunnel(
            pump.tls, pump.peer, pump.service, SESSION, admission=ADMITTED, proxy_header=lambda *arguments: b""
        )
        pump.pool.accept_raw().deliver(b"hello")
        tunnel.dataReceived(b"abc")
        pump.clock.advance(1.5)
        tunnel.end()
        assert as_json.record == {
            "time": "2001-09-09T01:46:51.625Z",
            "client": "192.0.2.7",
            "status": 0,
            "reason": "drain_timeout",
            "tls_version": "TLSv1.3",
            "tls_cipher": "TLS_AES_256_GCM_SHA384",
            "tls_resumed": False,
            "sni": "localhost",
            "protocol": "tcp",
            "upstream": "127.0.0.1:8080",
            "bytes_received": 3,
            "bytes_sent": 5,
            "duration_ms": 1500.0,
        }

    def test_tunnel_that_came_to_nothing_says_why(self, as_json: Logged) -> None:
        """There is no upstream where there was none."""
        pump = as_json.pump
        pump.cluster.refusal = ConnectFailed("no_healthy_upstream", 'cluster "app": none')
        Tunnel(pump.tls, pump.peer, pump.service, SESSION, admission=ADMITTED, proxy_header=lambda *arguments: b"")
        assert (as_json.record["reason"], as_json.record["detail"]) == ("no_healthy_upstream", 'cluster "app": none')
        assert "upstream" not in as_json.record

    def test_client_certificate_is_named(self, as_json: Logged) -> None:
        """Whoever shows a certificate is in the log by its subject, cut to size."""
        certificate = authority().issue("ci", purposes=CLIENT).certificate
        as_json.identify(identity_of(certificate))
        as_json.pump.judge_again(attrs.evolve(ADMITTED, principal="ci"))
        as_json.serve(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert as_json.record["client_subject"] == "CN=ci"
        assert as_json.record["client_serial"] == f"{certificate.serial_number:x}"
        assert as_json.record["principal"] == "ci"
        assert "client_uri" not in as_json.record

    def test_client_that_was_not_accepted_has_no_name(self, as_json: Logged) -> None:
        """Anybody can write anything into a certificate: it stands where nobody takes it for a fact."""
        as_json.identify(IDENTITY, VerifyReason.UNKNOWN_CA)
        as_json.serve(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert as_json.record["client_unverified_subject"] == IDENTITY.subject
        assert not {"client_subject", "client_serial", "client_uri"} & as_json.record.keys()

    def test_first_uri_of_a_client_is_its_name(self, as_json: Logged) -> None:
        """A workload is known by its SPIFFE ID."""
        as_json.identify(IDENTITY)
        as_json.serve(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert as_json.record["client_uri"] == "spiffe://prod/ns/a"

    @pytest.mark.parametrize(
        ("change", "field", "value"),
        [
            ({"principal": "other"}, "principal", "other"),
            ({"identity": attrs.evolve(IDENTITY, subject="CN=other")}, "client_subject", "CN=other"),
            ({"identity": attrs.evolve(IDENTITY, serial="1")}, "client_serial", "1"),
            ({"identity": attrs.evolve(IDENTITY, uri=("urn:other",))}, "client_uri", "urn:other"),
            ({"host": "192.0.2.8"}, "client", "192.0.2.8"),
            ({"resumed": True}, "tls_resumed", True),
            ({"version": "TLSv1.2"}, "tls_version", "TLSv1.2"),
            ({"cipher": "ECDHE"}, "tls_cipher", "ECDHE"),
            ({"server_name": "b"}, "sni", "b"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_no_client_is_logged_as_another(
        self, as_json: Logged, change: dict[str, Any], field: str, value: object
    ) -> None:
        """Of two clients, or one before and after a change, that differ in one thing, each line has its own."""
        downstream = as_json.pump.downstream
        as_json.identify(IDENTITY)
        exchange = as_json.ask()
        as_json.log.exchange(exchange, 200, "", "", 1.0)
        downstream.principal = change.pop("principal", "")
        as_json.pump.peer.host = change.pop("host", "192.0.2.7")
        as_json.identify(change.pop("identity", IDENTITY))
        downstream.session = attrs.evolve(downstream.session, **change)
        as_json.log.exchange(exchange, 200, "", "", 1.0)
        before, after = map(json.loads, as_json.lines)
        assert after[field] == value
        assert {key for key in before | after if before.get(key) != after.get(key)} == {field}

    def test_each_request_of_a_connection_has_its_own_head(self, as_json: Logged) -> None:
        """What is kept of the last head is not in the line of another, and nothing of it where the other has none."""
        heads = (
            b"GET /a HTTP/1.1\r\nHost: a\r\nUser-Agent: t/1\r\n\r\n",
            b"GET /a HTTP/1.1\r\nHost: a\r\nUser-Agent: t/1\r\n\r\n",
            b"HEAD /b HTTP/1.1\r\nHost: b\r\n\r\n",
            b"GET /a HTTP/1.1\r\nHost: a\r\nUser-Agent: t/1\r\n\r\n",
        )
        for head in heads:
            as_json.pump.client_sends(head)
            if as_json.pump.pool.waiting:
                as_json.pump.pool.accept()
            as_json.pump.app_sends(OK if head.startswith(b"GET") else OK[:-2])
        a, b = ("GET", "/a", "a", "t/1"), ("HEAD", "/b", "b", None)
        records = [json.loads(line) for line in as_json.lines]
        assert [(r["method"], r["path"], r["host"], r.get("user_agent")) for r in records] == [a, a, b, a]

    @pytest.mark.parametrize(
        ("seconds", "text"),
        [
            (0.0, "0.000"),
            (0.000_000_4, "0.000"),
            (0.000_000_6, "0.001"),
            (0.000_042, "0.042"),
            (0.000_999_4, "0.999"),
            (0.000_999_6, "1.000"),
            (0.001, "1.000"),
            (12.345_678_9, "12345.679"),
            (-0.012, "-12.000"),
        ],
    )
    def test_duration_is_milliseconds_with_three_places(self, as_json: Logged, seconds: float, text: str) -> None:
        """Rounded; below zero where the clock was set back."""
        exchange = as_json.ask()
        as_json.log.exchange(exchange, 200, "", "", exchange.started_at + seconds)
        assert f'"duration_ms":{text}}}' in as_json.line

    def test_trace_and_upstream_are_shown_if_known(self, as_json: Logged) -> None:
        """The line can be found from the trace, and says where the request went."""
        exchange = as_json.ask()
        as_json.log.exchange(exchange, 200, "", "", 1.0, upstream="unix:/a b", trace_id="4bf9")
        assert as_json.record["upstream"] == "unix:/a b"
        assert as_json.record["trace_id"] == "4bf9"

    def test_lost_client_has_status_0(self, as_json: Logged) -> None:
        """Nothing was answered."""
        as_json.pump.start_exchange()
        as_json.pump.client_vanishes()
        assert (as_json.record["status"], as_json.record["reason"]) == (0, "downstream_lost")


class TestHostileValues:
    def test_json_keeps_its_status(self, as_json: Logged) -> None:
        """A value that looks like JSON stays a value."""
        as_json.serve(b'GET /x HTTP/1.1\r\nHost: a\r\nUser-Agent: ","status":500,"x":"\r\n\r\n')
        assert as_json.record["status"] == 200
        assert as_json.record["user_agent"] == '","status":500,"x":"'

    def test_long_path_and_method_are_cut(self, as_json: Logged) -> None:
        """Each value has its limit."""
        as_json.serve(b"%b /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"M" * 30, b"p" * 5000))
        assert len(as_json.record["path"]) == MAX_VALUE_BYTES

    def test_empty_value_is_there(self, as_json: Logged) -> None:
        """An empty user agent is no missing one."""
        as_json.serve(b"GET / HTTP/1.1\r\nHost: a\r\nUser-Agent:\r\n\r\n")
        assert as_json.record["user_agent"] == ""

    @given(
        agent=st.binary(max_size=400).map(lambda value: bytes(o for o in value if o > 31 and o != 127).strip()),
        path=st.text(alphabet=st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="#?")),
        subject=st.text(),
        detail=st.text(),
    )
    def test_json_reads_back_what_was_sent(self, agent: bytes, path: str, subject: str, detail: str) -> None:
        """One line of JSON holds every value as it was, up to its limit; bytes that are not UTF-8 are escaped."""
        logged = Logged()
        logged.identify(attrs.evolve(IDENTITY, subject=subject))
        logged.pump.client_sends(b"GET /%b?q HTTP/1.1\r\nHost: a\r\nUser-Agent: %b\r\n\r\n" % (path.encode(), agent))
        logged.pump.pool.refuse("upstream_unreachable", detail)
        assert logged.line.count("\n") == 1
        assert logged.line[:-1].isprintable()
        record = logged.record
        assert record["user_agent"] == agent[:MAX_VALUE_BYTES].decode("utf-8", "backslashreplace")
        assert record["path"] == f"/{path}"[:MAX_VALUE_BYTES]
        assert record.get("client_subject", "") == subject[:MAX_VALUE_BYTES]
        assert record.get("detail", "") == detail
        assert (record["status"], record["reason"]) == (502, "upstream_unreachable")
