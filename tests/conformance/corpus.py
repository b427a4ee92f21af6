"""
What the proxies are compared on: every request row of the wire tables, and attacks on the seam between two readers.

An attack carries a second request where only one of two readers would look for it, or a field that only the proxy
itself may send. The hidden request is for /smuggled; a field that must not arrive unchanged holds «evil».
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import attrs

from tests.support.cases import BEHIND, REQUESTS


@attrs.frozen
class Input:
    """All that one client sends."""

    id: str
    data: bytes


HIDDEN: Final = b"GET /smuggled HTTP/1.1\r\nHost: b\r\n\r\n"

_GET: Final = b"GET / HTTP/1.1\r\nHost: a\r\n"
_POST: Final = b"POST / HTTP/1.1\r\nHost: a\r\n"
_TE: Final = b"Transfer-Encoding: chunked\r\n"
_LAST: Final = b"0\r\n\r\n"


def _length(body: bytes) -> bytes:
    return b"Content-Length: %d\r\n" % len(body)


def _chunk(payload: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(payload), payload)


_DISGUISES: Final = {
    "plain": _TE,
    "blank before colon": b"Transfer-Encoding : chunked\r\n",
    "tab before colon": b"Transfer-Encoding\t: chunked\r\n",
    "tab behind colon": b"Transfer-Encoding:\tchunked\r\n",
    "vertical tab behind colon": b"Transfer-Encoding: \x0bchunked\r\n",
    "vertical tab at the end": b"Transfer-Encoding: chunked\x0b\r\n",
    "form feed behind colon": b"Transfer-Encoding:\x0cchunked\r\n",
    "NUL behind colon": b"Transfer-Encoding:\0chunked\r\n",
    "NUL at the end": b"Transfer-Encoding: chunked\0\r\n",
    "no-break space": b"Transfer-Encoding: \xa0chunked\r\n",
    "high byte": b"Transfer-Encoding: chunked\xff\r\n",
    "byte order mark": b"\xef\xbb\xbfTransfer-Encoding: chunked\r\n",
    "leading blank": b" Transfer-Encoding: chunked\r\n",
    "leading blank behind a field": b"X: y\r\n Transfer-Encoding: chunked\r\n",
    "folded": b"Transfer-Encoding:\r\n chunked\r\n",
    "folded name": b"Transfer-Encoding\r\n : chunked\r\n",
    "folded by LF": b"Transfer-Encoding:\n chunked\r\n",
    "bare LF before": b"X: y\nTransfer-Encoding: chunked\r\n",
    "bare CR before": b"X: y\rTransfer-Encoding: chunked\r\n",
    "bare CR in value": b"Transfer-Encoding:\rchunked\r\n",
    "bare CR at the end": b"Transfer-Encoding: chunked\r\r\n",
    "quotes": b'Transfer-Encoding: "chunked"\r\n',
    "apostrophes": b"Transfer-Encoding: 'chunked'\r\n",
    "capitals": b"TRANSFER-ENCODING: CHUNKED\r\n",
    "underscore": b"Transfer_Encoding: chunked\r\n",
    "point": b"Transfer.Encoding: chunked\r\n",
    "x before": b"Transfer-Encoding: xchunked\r\n",
    "x behind": b"Transfer-Encoding: chunkedx\r\n",
    "parameter": b"Transfer-Encoding: chunked;x=y\r\n",
    "comma before": b"Transfer-Encoding: ,chunked\r\n",
    "comma behind": b"Transfer-Encoding: chunked,\r\n",
    "identity": b"Transfer-Encoding: identity\r\n",
    "identity, chunked": b"Transfer-Encoding: identity, chunked\r\n",
    "chunked, identity": b"Transfer-Encoding: chunked, identity\r\n",
    "chunked twice": _TE + _TE,
    "identity behind": _TE + b"Transfer-Encoding: identity\r\n",
    "identity before": b"Transfer-Encoding: identity\r\n" + _TE,
    "empty before": b"Transfer-Encoding:\r\n" + _TE,
    "cow behind": _TE + b"Transfer-encoding: cow\r\n",
    "nominated": b"Connection: Transfer-Encoding\r\n" + _TE,
}
"""Transfer-Encoding as request-smuggling research spells it, for one of two readers not to see it, or only one to."""


def _two_framings() -> Iterator[Input]:
    """Content-Length for one reader, Transfer-Encoding for the other, in each disguise."""
    for name, line in _DISGUISES.items():
        body = _LAST + HIDDEN
        yield Input(f"CL.TE {name}", _POST + _length(body) + line + b"\r\n" + body + BEHIND)
        chunks = _chunk(HIDDEN) + _LAST
        short = chunks[: chunks.index(b"\r\n") + 2]
        yield Input(f"TE.CL {name}", _POST + line + _length(short) + b"\r\n" + chunks + BEHIND)
        yield Input(f"TE.0 {name}", _POST + line + b"\r\n" + chunks + BEHIND)


def _lengths() -> Iterator[Input]:
    """A Content-Length that two readers take for two numbers, or that one of them does not see."""
    size = len(HIDDEN)
    for name, lines in {
        "CL.CL small first": b"Content-Length: 0\r\n" + _length(HIDDEN),
        "CL.CL large first": _length(HIDDEN) + b"Content-Length: 0\r\n",
        "CL.CL in a list": b"Content-Length: 0, %d\r\n" % size,
        "CL.CL by underscore": b"Content-Length: 0\r\nContent_Length: %d\r\n" % size,
        "CL.CL by bare LF": b"X: y\nContent-Length: 0\r\n" + _length(HIDDEN),
        "CL.CL by bare CR": b"X: y\rContent-Length: 0\r\n" + _length(HIDDEN),
        "CL.CL folded": b"Content-Length: 0\r\n %d\r\n" % size,
        "0.CL blank before colon": b"Content-Length : %d\r\n" % size,
        "0.CL leading blank": b" Content-Length: %d\r\n" % size,
        "0.CL leading blank behind a field": b"X: y\r\n Content-Length: %d\r\n" % size,
        "0.CL folded": b"Content-Length:\r\n %d\r\n" % size,
        "0.CL plus": b"Content-Length: +%d\r\n" % size,
        "0.CL minus": b"Content-Length: -%d\r\n" % size,
        "0.CL hexadecimal": b"Content-Length: 0x%x\r\n" % size,
        "0.CL leading zeros": b"Content-Length: 0000%d\r\n" % size,
        "0.CL vertical tab": b"Content-Length: \x0b%d\r\n" % size,
        "0.CL NUL": b"Content-Length: %d\0\r\n" % size,
        "0.CL over 64 bits": b"Content-Length: %d\r\n" % (2**64 + size),
        "0.CL over 32 bits": b"Content-Length: %d\r\n" % (2**32 + size),
        "0.CL exponent": b"Content-Length: %de0\r\n" % size,
        "0.CL nominated": b"Connection: Content-Length\r\n" + _length(HIDDEN),
        "0.CL underscore": b"Content_Length: %d\r\n" % size,
    }.items():
        yield Input(name, _POST + lines + b"\r\n" + HIDDEN + BEHIND)
    for method in (b"GET", b"HEAD", b"OPTIONS", b"DELETE", b"PUT"):
        head = method + b" / HTTP/1.1\r\nHost: a\r\n"
        yield Input(f"CL.0 {method.decode()}", head + _length(HIDDEN) + b"\r\n" + HIDDEN + BEHIND)
        yield Input(f"chunks of {method.decode()}", head + _TE + b"\r\n" + _chunk(HIDDEN) + _LAST + BEHIND)
    yield Input("body of a GET without framing", _GET + b"\r\nhello" + BEHIND)
    yield Input("body that takes the next request", _POST + b"Content-Length: 10\r\n\r\nhello" + BEHIND)


def _chunks() -> Iterator[Input]:
    """Chunks that end in one place for one reader and in another for the other."""
    size = b"%x" % (len(HIDDEN) + 7)  # what a reader takes for one chunk: an end of chunks, and what is behind it
    inner = b"\r\n" + _LAST + HIDDEN
    for name, body in {
        "extension ended by LF": b"2;\nxx\r\n" + size + inner + b"\r\n" + _LAST,
        "extension ended by CR": b"2;\rxx\r\n" + size + inner + b"\r\n" + _LAST,
        "size ended by LF": b"2\nxx\r\n" + _LAST + HIDDEN,
        "size ended by CR": b"2\rxx\r\n" + _LAST + HIDDEN,
        "size ended by LF, hidden": size + b"\n" + inner + b"\r\n" + _LAST,
        "quoted line end in extension": b'5;a="\r\n' + _LAST + HIDDEN,
        "chunk without its end": b"5\r\nhello" + _LAST + HIDDEN,
        "chunk ended by two other bytes": b"5\r\nhelloXX" + _LAST + HIDDEN,
        "chunk ended by LF": b"5\r\nhello\n" + _LAST + HIDDEN,
        "chunk ended by CR": b"5\r\nhello\r" + _LAST + HIDDEN,
        "chunk with more than its size": b"5\r\nhello" + HIDDEN + b"\r\n" + _LAST,
        "last chunk ended by LF": b"0\n\n" + HIDDEN,
        "last chunk ended by LF CRLF": b"0\n\r\n" + HIDDEN,
        "last chunk ended by CRLF LF": b"0\r\n\n" + HIDDEN,
        "last chunk ended by CR": b"0\r\r" + HIDDEN,
        "last chunk without the empty line": b"0\r\n" + HIDDEN,
        "last chunk with an extension": b"0;" + b"a" * 30 + b"\r\n\r\n" + HIDDEN,
        "last chunk in many zeros": b"0" * 15 + b"\r\n\r\n" + HIDDEN,
        "size 0x": b"0x" + size + inner + b"\r\n" + _LAST,
        "size over 64 bits is zero": b"1" + b"0" * 16 + b"\r\n\r\n" + HIDDEN,
        "size over 32 bits is zero": b"100000000\r\n\r\n" + HIDDEN,
        "size of all ones": b"ffffffffffffffff\r\n" + HIDDEN,
        "size negative": b"-1\r\n" + HIDDEN,
        "size plus": b"+" + size + inner + b"\r\n" + _LAST,
        "size with blank before": b" " + size + inner + b"\r\n" + _LAST,
        "size with blank behind": size + b" " + inner + b"\r\n" + _LAST,
        "size with NUL behind": size + b"\0" + inner + b"\r\n" + _LAST,
        "size with underscore": b"0_5\r\nhello\r\n" + _LAST + HIDDEN,
        "size not hexadecimal": b"0g\r\n\r\n" + HIDDEN,
        "size empty": b"\r\n\r\n" + HIDDEN,
        "trailer of framing": b"0\r\n" + _length(HIDDEN) + b"\r\n" + HIDDEN,
        "trailer of chunks": b"0\r\n" + _TE + b"\r\n" + _chunk(HIDDEN) + _LAST,
        "trailer folded": b"0\r\nX: y\r\n " + HIDDEN,
        "trailer behind LF": b"0\r\nX: y\n" + HIDDEN,
        "trailer with NUL": b"0\r\nX: \0\r\n\r\n" + HIDDEN,
    }.items():
        yield Input(f"chunks: {name}", _POST + _TE + b"\r\n" + body + BEHIND)
    for name in ("Host", "X-Forwarded-For", "X_Forwarded_For", "X-Real-IP", "Authorization", "Cookie", "Content-Type"):
        trailer = f"{name}: evil\r\n\r\n".encode()
        yield Input(f"trailer {name}", _POST + b"Trailer: X\r\n" + _TE + b"\r\n5\r\nhello\r\n0\r\n" + trailer + BEHIND)


def _injections() -> Iterator[Input]:
    """Line ends and other control characters where a careless reader or writer makes a line of them."""
    for name, data in {
        "encoded line end in target": b"GET /%0d%0aX-Evil:%20evil HTTP/1.1\r\nHost: a\r\n\r\n",
        "version in target": b"GET / HTTP/1.1%0d%0aX: HTTP/1.1\r\nHost: a\r\n\r\n",
        "second version": b"GET /a HTTP/1.0 HTTP/1.1\r\nHost: a\r\n\r\n",
        "bare LF in target": b"GET /a\nX: HTTP/1.1\r\nHost: a\r\n\r\n",
        "bare CR in target": b"GET /a\rX: HTTP/1.1\r\nHost: a\r\n\r\n",
        "bare LF in value": _get(b"X: y\nX-Evil: evil"),
        "bare CR in value": _get(b"X: y\rX-Evil: evil"),
        "bare CR and blank in value": _get(b"X: y\r X-Evil: evil"),
        "NUL in value": _get(b"X: y\0X-Evil: evil"),
        "next line character in value": _get(b"X: y\x85X-Evil: evil"),
        "line separator in value": _get(b"X: y\xe2\x80\xa8X-Evil: evil"),
        "request in value behind LF": _get(b"X: y\n\n" + HIDDEN[:-4]),
        "request in value behind CR": _get(b"X: y\r\r" + HIDDEN[:-4]),
        "name with line feed": _get(b"X\nX-Evil: evil"),
        "name with blank": _get(b"X X-Evil: evil"),
        "name with colon first": _get(b":X-Evil: evil"),
        "head ended by LF CR LF": _GET[:-2] + b"\n\r\n",
        "head ended by CR CR LF": _GET + b"\r\r\n",
        "hidden request behind an LF LF": _GET[:-2] + b"\n\n" + HIDDEN,
        "empty lines in between": _get(b"X: y") + b"\r\n\r\n",
        "bare LF in between": _get(b"X: y") + b"\n",
        "bare CR in between": _get(b"X: y") + b"\r",
        "NUL in between": _get(b"X: y") + b"\0",
        "request line only, then a request": b"GET /smuggled\r\n\r\n",
        "response instead": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    }.items():
        yield Input(f"injection: {name}", data + BEHIND)


def _get(lines: bytes) -> bytes:
    return _GET + lines + b"\r\n\r\n"


def _hosts() -> Iterator[Input]:
    """Two readers that are to take the request for two hosts."""
    for name, first, lines in (
        ("absolute-form of another", b"http://b/", b"Host: a"),
        ("absolute-form, Host empty", b"http://a/", b"Host:"),
        ("absolute-form with the usual port", b"http://a:80/", b"Host: a"),
        ("absolute-form with the usual port of https", b"https://a:443/", b"Host: a"),
        ("absolute-form with user", b"http://a@b/", b"Host: a"),
        ("absolute-form with user and port", b"http://a:80@b/", b"Host: a"),
        ("absolute-form with backslash", b"http://a\\.b/", b"Host: a"),
        ("absolute-form with query for a path", b"http://a?@b/", b"Host: a"),
        ("absolute-form, encoded", b"http://%61/", b"Host: a"),
        ("absolute-form with dot", b"http://a./", b"Host: a"),
        ("absolute-form in path", b"/http://b/", b"Host: a"),
        ("two slashes", b"//b/", b"Host: a"),
        ("slash and backslash", b"/\\b/", b"Host: a"),
        ("at sign", b"@b/", b"Host: a"),
        ("twice", b"/", b"Host: a\r\nHost: b"),
        ("twice, second with blank before colon", b"/", b"Host: a\r\nHost : b"),
        ("twice, first indented", b"/", b" Host: b\r\nHost: a"),
        ("twice, second indented", b"/", b"Host: a\r\n Host: b"),
        ("twice by underscore", b"/", b"Host: a\r\nX_Host: evil"),
        ("list", b"/", b"Host: a, b"),
        ("with user", b"/", b"Host: b@a"),
        ("with path", b"/", b"Host: a/../b"),
        ("with port and name", b"/", b"Host: a:80b"),
        ("with port and user", b"/", b"Host: a:80@b"),
        ("with blank", b"/", b"Host: a b"),
        ("with tab", b"/", b"Host: a\tb"),
        ("with NUL", b"/", b"Host: a\0b"),
        ("with quotes", b"/", b'Host: "a"'),
        ("with markup", b"/", b"Host: <b>"),
        ("named by other fields", b"/", b"Host: a\r\nX-Forwarded-Host: evil\r\nX-Host: evil"),
    ):
        yield Input(f"host: {name}", b"GET %b HTTP/1.1\r\n%b\r\n\r\n" % (first, lines) + BEHIND)


def _claims() -> Iterator[Input]:
    """Fields that speak for the proxy, fields that are for it alone, and fields that it is asked to drop."""
    for name in (
        "X-Forwarded-For",
        "x-forwarded-for",
        "X_Forwarded_For",
        "X-Forwarded_For",
        "X.Forwarded.For",
        "X-Forwarded-Proto",
        "X-Forwarded-Host",
        "X-Forwarded-Port",
        "X-Forwarded-Prefix",
        "X-Forwarded-Client-Cert",
        "Forwarded",
        "X-Real-IP",
        "X_Real_IP",
        "X-Request-Id",
        "Client-Cert",
        "Client_Cert",
        "X-SSL-Client-Verify",
        "SSL_CLIENT_S_DN",
        "X-Amzn-Mtls-Clientcert-Subject",
        "True-Client-IP",
        "Remote-User",
        "X_Custom",
        "X-Custom",
        "Keep-Alive",
        "Proxy-Connection",
        "Proxy-Authorization",
        "Proxy-Authenticate",
        "TE",
        "Upgrade",
        "HTTP2-Settings",
    ):
        yield Input(f"claim {name}", _get(f"{name}: evil".encode()) + BEHIND)
    for name in ("X-Forwarded-For", "X-Request-Id", "Cookie", "Authorization", "X-Custom", "X_Custom"):
        lines = f"Connection: close, {name}\r\n{name}: evil".encode()
        yield Input(f"nominated {name}", _get(lines) + BEHIND)
    yield Input("nominated Host", _get(b"Connection: Host") + BEHIND)
    yield Input("nominated Connection", _get(b"Connection: Connection, X-Custom\r\nX-Custom: evil") + BEHIND)


def _upgrades() -> Iterator[Input]:
    """Ways to make a proxy stop reading requests."""
    settings = b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    socket = b"Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13"
    for name, data in {
        "h2c": _get(b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n" + settings[:-2]),
        "h2c without its settings": _get(b"Connection: Upgrade\r\nUpgrade: h2c"),
        "h2c not nominated": _get(b"Upgrade: h2c\r\n" + settings[:-2]),
        "h2c beside WebSocket": _get(b"Connection: Upgrade\r\nUpgrade: h2c\r\n" + socket),
        "h2c, then its preface": _get(b"Connection: Upgrade\r\nUpgrade: h2c") + preface,
        "preface of HTTP/2": preface,
        "preface of HTTP/2 behind a request": _get(b"X: y") + preface,
        "WebSocket declined": _get(b"Connection: Upgrade\r\n" + socket),
        "WebSocket declined, hidden request": _get(b"Connection: Upgrade\r\n" + socket) + HIDDEN,
        "WebSocket of a wrong version": _get(b"Connection: Upgrade\r\n" + socket.replace(b"13", b"777")) + HIDDEN,
        "WebSocket not nominated": _get(socket),
        "WebSocket by POST": _POST + b"Connection: Upgrade\r\n" + socket + b"\r\n" + _length(HIDDEN) + b"\r\n" + HIDDEN,
        "TLS": _get(b"Connection: Upgrade\r\nUpgrade: TLS/1.2"),
        "CONNECT": b"CONNECT b:443 HTTP/1.1\r\nHost: b:443\r\n\r\n" + HIDDEN,
        "CONNECT with a length": b"CONNECT b:443 HTTP/1.1\r\nHost: b:443\r\n" + _length(HIDDEN) + b"\r\n" + HIDDEN,
    }.items():
        yield Input(f"upgrade: {name}", data + BEHIND)


def _pipelines() -> Iterator[Input]:
    """More than one request, good ones and others."""
    good = _get(b"X: y")
    post = _POST + b"Content-Length: 5\r\n\r\nhello"
    bad = _get(b"X : y")
    expects = b"Expect: 100-continue\r\n"
    for name, data in {
        "three good ones": good + post + good,
        "HEAD in the middle": good + b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n" + post,
        "the same one three times": good * 3,
        "a broken one behind": good + bad,
        "a broken one behind a body": post + bad,
        "rubbish behind": good + b"\x16\x03\x01\x02\r\n\r\n",
        "close in the middle": good + _get(b"Connection: close"),
        "HTTP/1.0 in the middle": good + b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
        "expectation with its body": _POST + expects + b"Content-Length: 5\r\n\r\nhello",
        "expectation of a hidden body": _POST + expects + _length(HIDDEN) + b"\r\n" + HIDDEN,
        "expectation without body": _get(expects[:-2]),
        "expectation of length zero": _POST + expects + b"Content-Length: 0\r\n\r\n",
        "expectation in chunks": _POST + expects + _TE + b"\r\n" + _chunk(HIDDEN) + _LAST,
        "expectation of another kind": _get(b"Expect: 200-ok"),
        "expectation spoilt": _POST + b"Expect: y 100-continue\r\n" + _length(HIDDEN) + b"\r\n" + HIDDEN,
        "OPTIONS with no hops left": b"OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n",
        "TRACE with a body": b"TRACE / HTTP/1.1\r\nHost: a\r\n" + _length(HIDDEN) + b"\r\n" + HIDDEN,
        "HTTP/1.0 with chunks": b"POST / HTTP/1.0\r\nHost: a\r\n" + _TE + b"\r\n" + _chunk(HIDDEN) + _LAST,
        "HTTP/1.0 with both framings": b"POST / HTTP/1.0\r\nHost: a\r\n" + _TE + _length(_LAST) + b"\r\n" + _LAST,
        "HTTP/1.0 keep-alive with a body": b"POST / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n"
        + _length(HIDDEN)
        + b"\r\n"
        + HIDDEN,
    }.items():
        yield Input(f"pipeline: {name}", data + BEHIND)


ATTACKS: Final = (
    *_two_framings(),
    *_lengths(),
    *_chunks(),
    *_injections(),
    *_hosts(),
    *_claims(),
    *_upgrades(),
    *_pipelines(),
)

INPUTS: Final = {
    one.id: one.data
    for one in (*(Input(row.id, row.data + (BEHIND if row.has_end else b"")) for row in REQUESTS), *ATTACKS)
}
"""By id, all of them."""

assert len(INPUTS) == len(REQUESTS) + len(ATTACKS), "an id stands twice"
