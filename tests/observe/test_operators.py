"""`observe.operators`: what each operator shows of an exchange, and what none ever shows."""

from __future__ import annotations

import attrs
import pytest

from sidecar.observe.accesslog import AccessLog
from sidecar.observe.logformat import compile_format
from sidecar.observe.logsyntax import FormatError
from sidecar.observe.operators import FLAGS, OPERATORS
from sidecar.policy.forwarding import Hop, TrustedProxies
from sidecar.policy.identity import PeerIdentity
from sidecar.proxy.intake import Forwarding
from sidecar.proxy.replies import REPLIES
from sidecar.proxy.routing import Destination, Router
from sidecar.settings import AccessLogFormat, HostPort
from sidecar.tls.session import NO_TLS
from sidecar.tls.verify import Verification, VerifyReason
from tests.support.pump import ADMITTED, Pump

REQUEST = (
    b"POST /a?secret HTTP/1.1\r\nHost: a.example:8443\r\nUser-Agent: t/1\r\nContent-Length: 3\r\n"
    b"X-Two: 1\r\nX-Two: 2\r\nReferer: https://b/c?secret\r\nX-Forwarded-For: 203.0.113.9\r\n"
    b"X-Request-Id: forged\r\nX-Real-Ip: 203.0.113.9\r\n"
    b"X-Envoy-Original-Path: /forged\r\nX-Forwarded-Host: forged\r\nX-Empty:\r\n\r\nabc"
)
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/plain\r\nLocation: /d?secret#e\r\n\r\nok"

IDENTITY = PeerIdentity(
    dns=("a.example", "b.example"),
    uri=("spiffe://prod/ns/a",),
    email=("a@example.org",),
    ip=("192.0.2.1", "2001:db8::1"),
    subject="CN=ci,O=Example",
    issuer="CN=Private CA",
    serial="5e26",
    sha256="ab" * 32,
    spki_sha256="cd" * 32,
    not_before=0.0,
    not_after=1767225600.0,
)

BEGIN = 1_000_000_000.125


def is_ours(name: bytes) -> bool:
    return name.startswith(b"x-forwarded-") or name == b"x-real-ip"


class Logged:
    """A pump whose exchanges are logged by a format."""

    def __init__(self, text: str, identity: PeerIdentity | None = IDENTITY) -> None:
        self.lines: list[str] = []
        self.pump = pump = Pump()
        pump.clock.advance(10)
        log = AccessLog(
            self.lines.append,
            AccessLogFormat.TEXT,
            compile_format(text, is_ours),
            wall_clock=lambda: BEGIN - 10 + pump.clock.seconds(),
        )
        pump.service.access_log = log
        pump.peer.remote = HostPort("192.0.2.7", 50123)
        pump.peer.local = HostPort("2001:db8::9", 8443)
        pump.judge_again(attrs.evolve(ADMITTED, principal="ci"))
        pump.downstream.session = attrs.evolve(
            pump.downstream.session, verification=Verification(None, VerifyReason.EXPIRED, identity)
        )

    @property
    def line(self) -> str:
        (line,) = self.lines
        return line.removesuffix("\n")


def shown(text: str, request: bytes = REQUEST, response: bytes = RESPONSE) -> str:
    """What *text* shows of an exchange that took 1.5 s until the response began, and 0.25 s more."""
    logged = Logged(text)
    logged.pump.start_exchange(request)
    logged.pump.pass_time(1.5)
    logged.pump.app_sends(response[:-1])
    logged.pump.pass_time(0.25)
    logged.pump.app_sends(response[-1:])
    return logged.line


VALUES = {
    "%START_TIME%": "2001-09-09T01:46:40.125Z",
    "%START_TIME(%s.%3f)%": "1000000000.125",
    "[%START_TIME(%d/%b/%Y:%T %z)%]": "[09/Sep/2001:01:46:40 +0000]",
    "%GRPC_STATUS%": "-",
    "%REQ(:METHOD)%": "POST",
    "%REQ(:PATH)%": "/a",
    "%REQ(:AUTHORITY)%": "a.example:8443",
    "%REQ(:SCHEME)%": "https",
    "%REQ(user-agent)%": "t/1",
    "%REQ(USER-AGENT):2%": "t/",
    "%REQ(X-NONE?USER-AGENT)%": "t/1",
    "%REQ(X-EMPTY?USER-AGENT)%": "t/1",
    "%REQ(USER-AGENT?HOST)%": "t/1",
    "%REQ(X-NONE)%": "-",
    "%REQ(X-EMPTY)%": "-",
    '"%REQ(X-TWO)%"': '"1, 2"',
    "%REQ(REFERER)%": "https://b/c",
    "%REQ(X-FORWARDED-FOR)%": "192.0.2.7",
    "%REQ(X-FORWARDED-PROTO)%": "https",
    "%REQ(X-FORWARDED-HOST)%": "a.example:8443",
    "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%": "/a",
    "%RESP(:STATUS)%": "200",
    "%RESP(Content-Type)%": "text/plain",
    "%RESP(LOCATION)%": "/d",
    "%RESP(X-NONE?CONTENT-TYPE):4%": "text",
    "%RESP(X-NONE)%": "-",
    "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%": "1500",
    "%PROTOCOL%": "HTTP/1.1",
    "%RESPONSE_CODE%": "200",
    "%RESPONSE_CODE_DETAILS%": "via_upstream",
    "%RESPONSE_FLAGS%": "-",
    "%REASON%": "-",
    "%DETAIL%": "-",
    "%BYTES_RECEIVED%": "3",
    "%BYTES_SENT%": "2",
    "%UPSTREAM_CLUSTER%": "app",
    "%DURATION%": "1750",
    "%DURATION(3)%": "1750.000",
    "%RESPONSE_DURATION%": "1500",
    "%RESPONSE_TX_DURATION(0)%": "250",
    "%DOWNSTREAM_REMOTE_ADDRESS%": "192.0.2.7:50123",
    "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%": "192.0.2.7",
    "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%": "192.0.2.7",
    "%DOWNSTREAM_REMOTE_PORT%": "50123",
    "%DOWNSTREAM_LOCAL_ADDRESS%": "[2001:db8::9]:8443",
    "%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%": "2001:db8::9",
    "%DOWNSTREAM_LOCAL_PORT%": "8443",
    "%REQUESTED_SERVER_NAME%": "localhost",
    "%DOWNSTREAM_TLS_VERSION%": "TLSv1.3",
    "%DOWNSTREAM_TLS_CIPHER%": "TLS_AES_256_GCM_SHA384",
    "%DOWNSTREAM_TLS_GROUP%": "X25519",
    "%DOWNSTREAM_TLS_RESUMED%": "false",
    "%DOWNSTREAM_PEER_SUBJECT%": "CN=ci,O=Example",
    '"%DOWNSTREAM_PEER_ISSUER%"': '"CN=Private CA"',
    "%DOWNSTREAM_PEER_SERIAL%": "5e26",
    "%DOWNSTREAM_PEER_FINGERPRINT_256%": "ab" * 32,
    "%DOWNSTREAM_PEER_URI_SAN%": "spiffe://prod/ns/a",
    "%DOWNSTREAM_PEER_DNS_SAN%": "a.example,b.example",
    "%DOWNSTREAM_PEER_IP_SAN%": "192.0.2.1,2001:db8::1",
    "%DOWNSTREAM_PEER_EMAIL_SAN%": "a@example.org",
    "%DOWNSTREAM_PEER_CERT_V_START%": "1970-01-01T00:00:00.000Z",
    "%DOWNSTREAM_PEER_CERT_V_END(%F)%": "2026-01-01",
    "%PRINCIPAL%": "ci",
}


class TestValues:
    @pytest.mark.parametrize(("text", "value"), VALUES.items(), ids=VALUES)
    def test_operator_shows_its_value(self, text: str, value: str) -> None:
        """With Envoy's meaning; what is missing is a hyphen; queries and what clients only claim are not shown."""
        assert shown(text) == value

    def test_every_operator_is_in_the_table(self) -> None:
        """A new operator needs a row above; those with tests of their own are below."""
        assert {text.strip('"%[]').partition("(")[0].partition("%")[0] for text in VALUES} | {
            "STREAM_ID",
            "TRACE_ID",
            "UPSTREAM_HOST",
            "UPSTREAM_REMOTE_ADDRESS",
            "ROUTE_NAME",
        } == set(OPERATORS)

    def test_request_ids_are_the_apps(self) -> None:
        """What the client calls its request is not what we do."""
        logged = Logged("%STREAM_ID% %REQ(X-REQUEST-ID)%")
        logged.pump.start_exchange(REQUEST)
        sent = logged.pump.app_receives()
        logged.pump.app_sends(RESPONSE)
        first, second = logged.line.split()
        assert first == second
        assert b"X-Request-Id: %b\r\n" % first.encode() in sent

    def test_trace_and_upstream_are_what_the_caller_says(self) -> None:
        """The log does not find out by itself where a request went."""
        logged = Logged("%TRACE_ID% %UPSTREAM_HOST% %UPSTREAM_REMOTE_ADDRESS%")
        log = logged.pump.service.access_log
        assert log is not None
        logged.pump.start_exchange(REQUEST)
        exchange = logged.pump.pool.opened[-1].lessee
        log.exchange(exchange, 200, "", "", 11.0, upstream="192.0.2.3:80", trace_id="4bf9")  # type: ignore[arg-type]
        log.exchange(exchange, 400, "", "", 11.0)  # type: ignore[arg-type]
        assert logged.lines == ["4bf9 192.0.2.3:80 192.0.2.3:80\n", "- - -\n"]

    def test_route_is_shown_where_there_are_several(self) -> None:
        """The only one says nothing."""
        logged = Logged("%ROUTE_NAME% %UPSTREAM_CLUSTER%")
        pump = logged.pump
        only = pump.service.router.only
        assert isinstance(only, Destination)
        named = Destination(name="virtual_hosts[0].routes[1]", cluster=only.cluster, timeouts=only.timeouts)
        for router in (pump.service.router, Router(None, {}, named)):
            pump.service.router = router
            pump.client_sends(REQUEST)
            if pump.pool.waiting:
                pump.pool.accept()
            pump.app_sends(RESPONSE)
        assert logged.lines == ["- app\n", "virtual_hosts[0].routes[1] app\n"]

    def test_client_behind_a_balancer_is_told_from_it(self) -> None:
        """Whom a PROXY header named, and who really connected."""
        logged = Logged("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%")
        logged.pump.peer.via = HostPort("10.0.0.9", 1)
        logged.pump.start_exchange(REQUEST)
        logged.pump.app_sends(RESPONSE)
        assert logged.line == "192.0.2.7 10.0.0.9"

    def test_client_behind_a_trusted_proxy_is_told_from_it(self) -> None:
        """Whom its X-Forwarded-For names, and the proxy itself."""
        logged = Logged("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%")
        hop = Hop(peer="192.0.2.7", local=HostPort("192.0.2.1", 443), is_trusted=True)
        logged.pump.judge_again(forwarding=Forwarding(b"", b"", hop, TrustedProxies(("192.0.2.0/24",))))
        logged.pump.start_exchange(REQUEST)
        logged.pump.app_sends(RESPONSE)
        assert logged.line == "203.0.113.9 192.0.2.7"

    def test_connection_in_the_clear_has_no_tls(self) -> None:
        """And another scheme."""
        logged = Logged("%DOWNSTREAM_TLS_VERSION% %REQ(:SCHEME)% %REQ(X-FORWARDED-PROTO)%")
        logged.pump.downstream.session = NO_TLS
        logged.pump.start_exchange(REQUEST)
        logged.pump.app_sends(RESPONSE)
        assert logged.line == "- http http"

    def test_own_answer_has_no_response(self) -> None:
        """The app has not said anything; why we have is shown."""
        logged = Logged(
            "%RESPONSE_CODE% %RESPONSE_CODE_DETAILS% %RESPONSE_FLAGS% %REASON% '%DETAIL%' %RESP(CONTENT-TYPE)% "
            "%RESPONSE_DURATION% %RESPONSE_TX_DURATION(3)% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%"
        )
        logged.pump.client_sends(REQUEST)
        logged.pump.pool.refuse("upstream_unreachable", "no route")
        assert logged.line == "502 upstream_unreachable UF upstream_unreachable 'no\\u0020route' - - - -"

    def test_client_without_certificate_has_hyphens(self) -> None:
        """Every fact about a certificate is missing without one."""
        operators = [name for name in OPERATORS if "_PEER_" in name]
        logged = Logged(" ".join(f"%{name}%" for name in operators), identity=None)
        logged.pump.start_exchange(REQUEST)
        logged.pump.app_sends(RESPONSE)
        assert logged.line.split() == ["-"] * len(operators)

    def test_refused_head_shows_only_the_connection(self) -> None:
        """Nothing of such a request can be trusted; what the handshake said stands."""
        names = [name for name in OPERATORS if name not in ("REQ", "RESP", "START_TIME", "DETAIL")]
        logged = Logged(" ".join([*(f"%{name}%" for name in names), "%REQ(:PATH)%", "%RESP(:STATUS)%"]))
        logged.pump.client_sends(b"GET /s3cret HTTP/1.1\r\nHost: a\r\nBad Name: s3cret\r\n\r\n")
        *values, path, status = logged.line.split()
        shown = {name: value for name, value in zip(names, values, strict=True) if value != "-"}
        assert (path, status) == ("-", "-")
        assert {name for name in shown if not name.startswith("DOWNSTREAM_")} == {
            "PRINCIPAL",
            "REASON",
            "REQUESTED_SERVER_NAME",
            "RESPONSE_CODE",
            "RESPONSE_CODE_DETAILS",
            "RESPONSE_FLAGS",
        }
        assert (shown["RESPONSE_CODE"], shown["REASON"], shown["RESPONSE_FLAGS"]) == ("400", "bad_header", "DPE")


class TestFlags:
    @pytest.mark.parametrize("reason", [reason for reason in REPLIES if reason.startswith("upstream_")])
    def test_answer_for_the_app_has_one(self, reason: str) -> None:
        """Whatever the app's side does wrong, Envoy has letters for it."""
        assert FLAGS[reason].startswith("U")

    def test_request_that_leads_nowhere_has_envoys(self) -> None:
        """No route, and no endpoint that is healthy."""
        assert (FLAGS["no_route"], FLAGS["no_healthy_upstream"]) == ("NR", "UH")

    def test_late_head_is_no_protocol_error(self) -> None:
        """A refused head's own flag goes before the general one."""
        logged = Logged("%RESPONSE_CODE% %RESPONSE_FLAGS%")
        logged.pump.client_sends(b"GET / HT")
        logged.pump.pass_time(60)
        assert logged.line == "408 SI"


SECRET_FIELDS = (
    *("Authorization", "Proxy-Authorization", "Cookie", "Set-Cookie", "Cookie2", "X-Auth-Token", "X-CSRFToken"),
    *("X-Api-Key", "Api_Key", "ApiKey", "X-Amz-Security-Token", "X-Vault-Token", "X-Client-Secret", "X-Password"),
    *("X-Session-Id", "X-Amzn-Oidc-Data", "X-Goog-Iap-Jwt-Assertion", "Ocp-Apim-Subscription-Key", "DPoP"),
    *("Sec-WebSocket-Protocol", "X-Original-Authorization", "X.Api.Key", "aUTHORIZATION"),
)


class TestSecrets:
    @pytest.mark.parametrize("operator", ["REQ", "RESP"])
    @pytest.mark.parametrize("name", SECRET_FIELDS)
    def test_field_with_a_credential_is_refused(self, operator: str, name: str) -> None:
        """An operator cannot log what nobody should read, not even as the second choice."""
        for text, position in ((f"%{operator}({name})%", 0), (f"%{operator}(Host?{name}):9%", 5)):
            with pytest.raises(FormatError) as caught:
                compile_format(text, is_ours)
            assert caught.value.position == len(operator) + 2 + position
            assert caught.value.fact.endswith(f"{name} may hold a credential, which is never logged")

    @pytest.mark.parametrize(
        "name", ["User-Agent", "Idempotency-Key", "X-Auth-Request-User", "WWW-Authenticate", "Via"]
    )
    def test_other_fields_are_not(self, name: str) -> None:
        """What only looks a little like it can be logged."""
        compile_format(f"%REQ({name})% %RESP({name})%", is_ours)

    @pytest.mark.parametrize("text", ["%REQ(X-REAL-IP)%", "%REQ(x-forwarded-user)%", "%REQ(Host?X-Real-IP)%"])
    def test_field_that_clients_only_claim_is_refused(self, text: str) -> None:
        """What the app must not believe, no reader of the log should."""
        with pytest.raises(FormatError) as caught:
            compile_format(text, is_ours)
        assert caught.value.position == 5
        assert caught.value.fact.endswith(" is what a client only claims")
        assert "DOWNSTREAM" in caught.value.fix

    def test_same_field_of_a_response_is_the_apps(self) -> None:
        """Nobody takes a response's for the client's."""
        response = b"HTTP/1.1 204 No Content\r\nX-Real-IP: 192.0.2.1\r\n\r\n"
        assert shown("%RESP(X-REAL-IP)%", response=response) == "192.0.2.1"


class TestArguments:
    @pytest.mark.parametrize(
        ("text", "position", "fact"),
        [
            ("%PROTOCOL(X)%", 0, "%PROTOCOL% takes no argument"),
            ("%PROTOCOL()%", 0, "%PROTOCOL% takes no argument"),
            ("%PROTOCOL:3%", 0, "%PROTOCOL% takes no limit"),
            ("%DURATION:3%", 0, "%DURATION% takes no limit"),
            ("%START_TIME:3%", 0, "%START_TIME% takes no limit"),
            ("%DURATION(4)%", 0, "'4' is no number of decimals"),
            ("%DURATION()%", 0, "'' is no number of decimals"),
            ("%START_TIME(%H:%Q)%", 15, "there is no time format '%Q'"),
            ("%REQ%", 5, "'' is no field name"),
            ("%REQ()%", 5, "'' is no field name"),
            ("%REQ(X?)%", 7, "'' is no field name"),
            ("%REQ(A B)%", 5, "'A B' is no field name"),
            ("%REQ(X?Y?Z)%", 5, "there are three fields or more"),
            ("%REQ(:QUERY)%", 5, "there is no :QUERY"),
            ("%REQ(X?:STATUS)%", 7, "there is no :STATUS"),
            ("%RESP(:PATH)%", 6, "there is no :PATH"),
        ],
    )
    def test_wrong_argument_is_pointed_at(self, text: str, position: int, fact: str) -> None:
        """The error is found when the format is read, and says what to write instead."""
        with pytest.raises(FormatError) as caught:
            compile_format(f"xy {text}", is_ours)
        assert caught.value.position == position + 3
        assert caught.value.fact == f"at character {position + 4}: {fact}"
        assert caught.value.fix
