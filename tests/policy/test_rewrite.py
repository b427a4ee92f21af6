"""`sidecar.policy.rewrite`: what a proxy changes in a head, and that it changes nothing else."""

from __future__ import annotations

import pytest

from sidecar.policy import rewrite
from sidecar.policy.forwarding import Hop
from sidecar.settings import HostPort, UnderscoreHeaders
from sidecar.wire.events import BodyKind, RequestHead, ResponseHead
from sidecar.wire.fields import Fields
from sidecar.wire.head import parse_request_head, parse_response_head

FORWARDING = Hop(peer="192.0.2.1", local=HostPort("192.0.2.9", 8443)).common_lines
NONE, LENGTH, CHUNKED, CLOSE = BodyKind.NONE, BodyKind.LENGTH, BodyKind.CHUNKED, BodyKind.UNTIL_CLOSE

OURS = ("X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Forwarded-Host", "X-Request-Id")
CLAIMS = (
    "Forwarded",
    "Client-Cert",
    "Client-Cert-Chain",
    "X-Real-IP",
    "X-Forwarded",
    "X-Forwarded-Access-Token",
    "X-Forwarded-By",
    "X-Forwarded-Client-Cert",
    "X-Forwarded-Email",
    "X-Forwarded-Groups",
    "X-Forwarded-Method",
    "X-Forwarded-Path",
    "X-Forwarded-Prefix",
    "X-Forwarded-Preferred-Username",
    "X-Forwarded-Protocol",
    "X-Forwarded-Scheme",
    "X-Forwarded-Server",
    "X-Forwarded-Ssl",
    "X-Forwarded-Uri",
    "X-Forwarded-User",
    "X-Forwarded-Tls-Client-Cert-Info",
    "X-Forwarded-Anything",
    "Front-End-Https",
    "Remote-User",
    "SSL-Client-Cert",
    "SSL-Client-Verify",
    "SSL-Client",
    "True-Client-IP",
    "X-Amzn-Mtls-Clientcert",
    "X-Amzn-Mtls-Clientcert-Subject",
    "X-Client-IP",
    "X-SSL-Cert",
    "X-SSL-Client-S-DN",
)
HOP_BY_HOP = (
    "Connection",
    "HTTP2-Settings",
    "Keep-Alive",
    "Proxy-Authenticate",
    "Proxy-Authorization",
    "Proxy-Connection",
    "TE",
    "Upgrade",
)

SPELLINGS = {
    "as it is": str,
    "lower": str.lower,
    "upper": str.upper,
    "underscores": lambda name: name.replace("-", "_"),
    "one underscore": lambda name: name.replace("-", "_", 1),
    "upper with underscores": lambda name: name.replace("-", "_").upper(),
    "points": lambda name: name.replace("-", "."),
    "one tilde": lambda name: name.replace("-", "~", 1),
    "each differently": lambda name: "".join("!#$%&'*+.^_`|~"[i % 14] if c == "-" else c for i, c in enumerate(name)),
}


def request(section: bytes, start: bytes = b"GET / HTTP/1.1") -> RequestHead:
    return parse_request_head(start + b"\r\n" + section + b"\r\n", 100)


def response(section: bytes, start: bytes = b"HTTP/1.1 200 OK", method: bytes = b"GET") -> ResponseHead:
    head = parse_response_head(start + b"\r\n" + section + b"\r\n", 100, method)
    assert isinstance(head, ResponseHead)
    return head


def forwarded(
    section: bytes,
    start: bytes = b"GET / HTTP/1.1",
    underscores: UnderscoreHeaders = UnderscoreHeaders.DROP,
) -> bytes:
    """The section for the app, less the fields that all requests get."""
    result = rewrite.request_section(request(section, start), FORWARDING, underscores)
    before, ours, behind = result.partition(FORWARDING)
    assert ours
    assert behind.startswith(b"X-Forwarded-Host: ")
    return before + behind.partition(b"\r\n")[2]


class TestRequestIdLine:
    def test_request_id_is_a_field_line(self) -> None:
        """The request id is one line."""
        assert rewrite.request_id_line(b"abc") == b"X-Request-Id: abc\r\n"


class TestRequestSection:
    def test_other_fields_stay_byte_for_byte(self) -> None:
        """What nobody has to change keeps its bytes, order and case, repeated and odd fields too."""
        section = b"hOST: a\r\nX-B:2\r\nX-A:   1\t \r\nx-b: \xff\r\nEMPTY:\r\nX-B: 2\r\n"
        assert forwarded(section) == section

    def test_other_fields_stay_byte_for_byte_beside_those_that_go(self) -> None:
        """Taking fields away changes no byte of the others."""
        section = b"hOST: a\r\nTE: gzip\r\nX-A:   1\t \r\nX-Forwarded-For: 1\r\nEMPTY:\r\n"
        assert forwarded(section) == b"hOST: a\r\nX-A:   1\t \r\nEMPTY:\r\n"

    @pytest.mark.parametrize("spelling", SPELLINGS)
    @pytest.mark.parametrize("name", [*OURS, *CLAIMS, *HOP_BY_HOP])
    @pytest.mark.parametrize("underscores", UnderscoreHeaders)
    def test_field_that_a_client_must_not_send_goes(
        self, name: str, spelling: str, underscores: UnderscoreHeaders
    ) -> None:
        """Fields that we set, that claim what others verified, or that are of one connection go, however spelt."""
        line = f"{SPELLINGS[spelling](name)}: 6.6.6.6\r\n".encode()
        section = b"Host: a\r\n" + line + b"X: y\r\n" + line
        assert forwarded(section, underscores=underscores) == b"Host: a\r\nX: y\r\n"

    @pytest.mark.parametrize(
        "name",
        [
            *(
                "X-Forwardedly",
                "X-Forward-For",
                "XX-Forwarded-For",
                "My-X-Forwarded-For",
                "SSL-Protocol",
                "OpenSSL-Client",
            ),
            *("X-SSLv3", "X-Amzn-Trace-Id", "X-Mtls-Version", "Client-Certificate", "Remote-Users", "X.Y", "x~y|z"),
        ],
    )
    def test_field_of_a_similar_name_stays(self, name: str) -> None:
        """What only resembles a claim, or has odd characters of its own, is the app's business."""
        section = f"Host: a\r\n{name}: 1\r\n".encode()
        assert forwarded(section) == section

    @pytest.mark.parametrize(
        "name", [b"Content_Length", b"Transfer_Encoding", b"TRANSFER_encoding", b"Content.Length", b"Transfer~Encoding"]
    )
    def test_framing_field_with_underscores_goes(self, name: bytes) -> None:
        """What an app may take for a framing field, though it is none, goes."""
        assert forwarded(b"Host: a\r\n%b: 5\r\n" % name) == b"Host: a\r\n"

    def test_nominated_fields_go(self) -> None:
        """Whatever Connection names goes with it, in any case, from any of its lines."""
        section = b"Host: a\r\nX-One: 1\r\nConnection: x-ONE, close\r\nX-Two: 2\r\nconnection: x-two\r\nX-Three: 3\r\n"
        assert forwarded(section) == b"Host: a\r\nX-Three: 3\r\n"

    @pytest.mark.parametrize(
        ("lines", "start"),
        [
            (b"Connection: Host\r\n", b"GET / HTTP/1.1"),
            (b"Content-Length: 5\r\nConnection: content-length, host\r\n", b"POST / HTTP/1.1"),
            (b"Transfer-Encoding: chunked\r\nConnection: Transfer-Encoding\r\n", b"POST / HTTP/1.1"),
        ],
    )
    def test_connection_cannot_nominate_framing_or_host(self, lines: bytes, start: bytes) -> None:
        """The fields that say where the message ends and whom it is for stay, whatever Connection says."""
        section = b"Host: a\r\n" + lines
        assert forwarded(section, start) == section.partition(b"Connection")[0]

    @pytest.mark.parametrize("name", OURS[:4])
    def test_connection_cannot_nominate_what_we_set(self, name: str) -> None:
        """The fields that we set reach the app once, whatever Connection says."""
        head = request(b"Host: a\r\n%b: 6\r\nConnection: %b\r\n" % (name.encode(), name.encode()))
        fields = Fields(rewrite.request_section(head, FORWARDING))
        assert len(fields.values(name.lower().encode())) == 1
        assert b"6" not in fields.values(name.lower().encode())

    def test_host_is_forwarded_as_asked_for(self) -> None:
        """X-Forwarded-Host is the Host of the request, port and all."""
        section = rewrite.request_section(request(b"Host:  [::1]:8443 \r\n"), FORWARDING)
        assert section == b"Host:  [::1]:8443 \r\n" + FORWARDING + b"X-Forwarded-Host: [::1]:8443\r\n"

    def test_absolute_target_names_the_forwarded_host(self) -> None:
        """The authority of an absolute-form target is the host; the Host field stays as it came."""
        section = rewrite.request_section(request(b"Host: a\r\n", b"GET http://A/ HTTP/1.1"), FORWARDING)
        assert section == b"Host: a\r\n" + FORWARDING + b"X-Forwarded-Host: A\r\n"

    @pytest.mark.parametrize("own", [b"", b"X-Forwarded-Host: evil\r\n"], ids=["none", "the client's"])
    def test_host_that_is_not_there_is_not_told(self, own: bytes) -> None:
        """A request of HTTP/1.0 without a host has no X-Forwarded-Host, least of all the client's own."""
        section = rewrite.request_section(request(own, b"GET / HTTP/1.0"), FORWARDING)
        assert FORWARDING in section
        assert b"x-forwarded-host" not in section.lower()

    @pytest.mark.parametrize(
        ("start", "host"), [(b"GET / HTTP/1.0", b"localhost"), (b"GET http://a:1/ HTTP/1.0", b"a:1")]
    )
    def test_http_1_0_without_host_gets_one(self, start: bytes, host: bytes) -> None:
        """An app is sent HTTP/1.1, which needs a Host: that of the target, or localhost."""
        section = rewrite.request_section(request(b"X: y\r\n", start), FORWARDING)
        assert section.startswith(b"Host: " + host + b"\r\nX: y\r\n")

    def test_upgrade_is_forwarded_as_ours(self) -> None:
        """An upgrade that the client offered is offered to the app, in our words, nothing else of Connection."""
        section = b"Host: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Key: x\r\n"
        assert forwarded(section) == (
            b"Host: a\r\nSec-WebSocket-Key: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        )

    @pytest.mark.parametrize(
        "lines",
        [
            b"Upgrade: websocket\r\n",
            b"Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n",
            b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: \xa0h2c\r\nHTTP2-Settings: AAA\r\n",
        ],
    )
    def test_upgrade_that_is_none_goes(self, lines: bytes) -> None:
        """An upgrade that is not nominated, or to h2c, does not reach the app."""
        assert forwarded(b"Host: a\r\n" + lines) == b"Host: a\r\n"


class TestTransferEncoding:
    @pytest.mark.parametrize(
        "line",
        [b"Transfer-Encoding: Chunked", b"transfer-encoding:chunked", b"TE_X: 1\r\nTransfer-Encoding:  chunked "],
    )
    def test_unusual_spelling_is_made_usual(self, line: bytes) -> None:
        """The app is shown the framing that we saw, in the words that every parser knows."""
        section = rewrite.request_section(request(b"Host: a\r\n" + line + b"\r\n", b"POST / HTTP/1.1"), FORWARDING)
        assert section.lower().count(b"transfer-encoding") == 1
        assert b"\r\nTransfer-Encoding: chunked\r\n" in section

    def test_usual_spelling_stays_in_its_place(self) -> None:
        """What needs no change is not moved."""
        sent = b"transfer-encoding: chunked\r\nHost: a\r\n"
        assert rewrite.request_section(request(sent, b"POST / HTTP/1.1"), FORWARDING).startswith(sent)


class TestResponseSection:
    def test_other_fields_stay_byte_for_byte(self) -> None:
        """What nobody has to change keeps its bytes, order and case."""
        section = b"sErVer: x\r\nSet-Cookie: a\r\nset-cookie:b \r\nContent-Length: 5\r\nX-Forwarded-For: 1\r\n"
        assert rewrite.response_section(response(section), LENGTH, 1, True) == section

    @pytest.mark.parametrize("name", HOP_BY_HOP)
    def test_hop_by_hop_fields_go(self, name: str) -> None:
        """Fields of the app's connection are not the client's."""
        section = f"Content-Length: 5\r\n{name.upper()}: x\r\nA: b\r\n".encode()
        assert rewrite.response_section(response(section), LENGTH, 1, True) == b"Content-Length: 5\r\nA: b\r\n"

    def test_nominated_fields_go_but_not_framing(self) -> None:
        """Whatever Connection names goes, save what says where the message ends."""
        section = b"Content-Length: 5\r\nX-One: 1\r\nConnection: x-one, content-length\r\nA: b\r\n"
        assert rewrite.response_section(response(section), LENGTH, 1, True) == b"Content-Length: 5\r\nA: b\r\n"

    @pytest.mark.parametrize(
        ("minor_version", "keep_alive", "line"),
        [
            (1, True, b""),
            (1, False, b"Connection: close\r\n"),
            (0, True, b"Connection: keep-alive\r\n"),
            (0, False, b"Connection: close\r\n"),
        ],
    )
    def test_client_is_told_whether_its_connection_goes_on(
        self, minor_version: int, keep_alive: bool, line: bytes
    ) -> None:
        """Connection says to the client what holds for its own connection, where its version does not say it."""
        for said in (b"", b"Connection: close\r\n", b"Connection: Keep-Alive\r\nKeep-Alive: timeout=5\r\n"):
            head = response(b"Content-Length: 5\r\n" + said)
            section = rewrite.response_section(head, LENGTH, minor_version, keep_alive)
            assert section == b"Content-Length: 5\r\n" + line

    def test_chunked_for_http_1_0_loses_its_framing(self) -> None:
        """A client of HTTP/1.0 knows no chunks: their fields go, and the connection's end is the body's."""
        head = response(b"Transfer-Encoding: chunked\r\nTrailer: X\r\nA: b\r\n")
        assert rewrite.response_section(head, CLOSE, 0, False) == b"A: b\r\nConnection: close\r\n"

    @pytest.mark.parametrize(
        ("method", "start"), [(b"HEAD", b"HTTP/1.1 200 OK"), (b"GET", b"HTTP/1.1 304 Not Modified")]
    )
    def test_http_1_0_is_told_nothing_of_chunks(self, method: bytes, start: bytes) -> None:
        """A client of HTTP/1.0 is sent no Transfer-Encoding, also where there is no body (RFC 9112 section 6.1)."""
        head = response(b"Transfer-Encoding: chunked\r\nA: b\r\n", start, method)
        assert rewrite.response_section(head, NONE, 0, True) == b"A: b\r\nConnection: keep-alive\r\n"
        assert rewrite.response_section(head, NONE, 1, True) == b"Transfer-Encoding: chunked\r\nA: b\r\n"

    def test_until_close_becomes_chunked(self) -> None:
        """A client of HTTP/1.1 gets chunks where the app's body ended with its connection."""
        head = response(b"A: b\r\n")
        assert rewrite.response_section(head, CHUNKED, 1, True) == b"A: b\r\nTransfer-Encoding: chunked\r\n"
        assert rewrite.response_section(head, CLOSE, 0, False) == b"A: b\r\nConnection: close\r\n"

    def test_connection_nominating_framing_of_an_unframed_body_changes_nothing(self) -> None:
        """The framing that we write is not the app's to take away."""
        head = response(b"Connection: transfer-encoding\r\n")
        assert rewrite.response_section(head, CHUNKED, 1, True) == b"Transfer-Encoding: chunked\r\n"

    @pytest.mark.parametrize(
        "line", [b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n"]
    )
    def test_204_has_no_framing_fields(self, line: bytes) -> None:
        """A 204 has no body, and no field that a client could wait for one by (RFC 9112 section 6)."""
        head = response(b"A: b\r\n" + line, b"HTTP/1.1 204 No Content")
        assert rewrite.response_section(head, NONE, 1, True) == b"A: b\r\n"

    def test_304_and_head_keep_the_length(self) -> None:
        """Where the fields describe another response's body, they stay."""
        section = b"Content-Length: 5\r\n"
        assert rewrite.response_section(response(section, b"HTTP/1.1 304 X"), NONE, 1, True) == section
        assert rewrite.response_section(response(section, method=b"HEAD"), NONE, 1, True) == section

    def test_101_names_the_protocol_and_no_framing(self) -> None:
        """A switch of protocols goes to the client with the app's protocol, and nothing about a body."""
        head = response(
            b"upgrade: websocket\r\nconnection: upgrade\r\nContent-Length: 5\r\nSec-WebSocket-Accept: x\r\n",
            b"HTTP/1.1 101 Switching Protocols",
        )
        assert rewrite.response_section(head, NONE, 1, False) == (
            b"Sec-WebSocket-Accept: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        )


class TestInterimSection:
    def test_interim_fields_are_forwarded_less_those_of_the_connection(self) -> None:
        """A 1xx response keeps its fields but hop-by-hop ones."""
        assert rewrite.interim_section(Fields(b"Link: a\r\nConnection: x\r\nA:b\r\n")) == b"Link: a\r\nA:b\r\n"

    @pytest.mark.parametrize("line", [b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"])
    def test_interim_response_has_no_framing_fields(self, line: bytes) -> None:
        """A 1xx response has no body, and no field that a client could wait for one by (RFC 9112 section 6)."""
        assert rewrite.interim_section(Fields(b"Link: a\r\n" + line)) == b"Link: a\r\n"


class TestUnderscores:
    SECTION = b"Host: a\r\nuser_id: 1\r\nX-A: b\r\n_: 2\r\nAPI_KEY_: 3\r\n"

    @pytest.mark.parametrize("underscores", [UnderscoreHeaders.DROP, UnderscoreHeaders.REJECT])
    def test_names_with_an_underscore_are_dropped(self, underscores: UnderscoreHeaders) -> None:
        """By default the app never sees a name that it could take for another."""
        assert forwarded(self.SECTION, underscores=underscores) == b"Host: a\r\nX-A: b\r\n"

    def test_names_with_an_underscore_stay_where_allowed(self) -> None:
        """An operator whose app needs them can have them."""
        assert forwarded(self.SECTION, underscores=UnderscoreHeaders.ALLOW) == self.SECTION

    def test_first_such_name_is_found(self) -> None:
        """A refusal names the field."""
        assert rewrite.underscored_name(request(self.SECTION)) == b"user_id"
        assert rewrite.underscored_name(request(b"Host: a_b\r\nX-A: b_c\r\n")) is None


class TestAcceptsTrailers:
    @pytest.mark.parametrize(
        ("value", "accepts"),
        [
            (b"trailers", True),
            (b"Trailers", True),
            (b"deflate;q=0.5,\ttrailers ", True),
            (b"gzip\r\nTE: trailers", True),
            (b"", False),
            (b"gzip", False),
            (b"trailers;q=0", False),
            (b"notrailers", False),
            (b"trailers gzip", False),
        ],
    )
    def test_only_the_word_itself_counts(self, value: bytes, accepts: bool) -> None:
        """A client accepts trailers if TE lists the word, in any case, among whatever else."""
        assert rewrite.accepts_trailers(request(b"Host: a\r\nTE: %b\r\n" % value)) is accepts

    def test_no_te_is_no(self) -> None:
        """Without TE nothing was said."""
        assert not rewrite.accepts_trailers(request(b"Host: a\r\n"))

    def test_app_is_told(self) -> None:
        """The app learns that trailers are welcome, and nothing else of TE."""
        section = b"Host: a\r\nTE: gzip;q=1, trailers\r\nConnection: te, close\r\nClose: x\r\n"
        assert forwarded(section) == b"Host: a\r\nConnection: TE\r\nTE: trailers\r\n"

    def test_upgrade_comes_first(self) -> None:
        """An upgraded connection has no trailers, and apps look for one word in Connection."""
        section = b"Host: a\r\nTE: trailers\r\nConnection: te, upgrade\r\nUpgrade: websocket\r\n"
        assert forwarded(section) == b"Host: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"


class TestTrailerSections:
    def test_harmless_trailers_stay_byte_for_byte(self) -> None:
        """A trailer field that says nothing about framing, routing or identity is forwarded as it came."""
        section = b"X-Sum:  1 \r\ngrpc-status: 0\r\nServer-Timing: a\r\nETag: x\r\n"
        assert rewrite.response_trailer_section(Fields(section)) == section

    @pytest.mark.parametrize("spelling", SPELLINGS)
    @pytest.mark.parametrize(
        "name",
        [
            *("Content-Length", "Transfer-Encoding", "Host", "Trailer", "Content-Type", "Content-Encoding"),
            *("Authorization", "Cookie", "Set-Cookie", "Cache-Control", "Expect", "Range", "Location", "If-Match"),
            *OURS,
            *CLAIMS,
            *HOP_BY_HOP,
        ],
    )
    def test_forbidden_trailers_go(self, name: str, spelling: str) -> None:
        """Fields that must be known before the body, or that a client must not send, are no trailers, however spelt."""
        line = f"{SPELLINGS[spelling](name)}: 5\r\n".encode()
        fields = Fields(b"A: b\r\n" + line + b"C: d\r\n")
        assert rewrite.response_trailer_section(fields) == b"A: b\r\nC: d\r\n"
        for underscores in UnderscoreHeaders:
            assert rewrite.request_trailer_section(fields, underscores) == b"A: b\r\nC: d\r\n"

    def test_underscores_are_treated_as_in_heads(self) -> None:
        """A trailer of a request is as good as a field of its head to many apps; the app's own are its business."""
        fields = Fields(b"A: b\r\nuser_id: 1\r\n")
        assert rewrite.request_trailer_section(fields, UnderscoreHeaders.DROP) == b"A: b\r\n"
        assert rewrite.request_trailer_section(fields, UnderscoreHeaders.REJECT) == b"A: b\r\n"
        assert rewrite.request_trailer_section(fields, UnderscoreHeaders.ALLOW) == fields.section
        assert rewrite.response_trailer_section(fields) == fields.section
