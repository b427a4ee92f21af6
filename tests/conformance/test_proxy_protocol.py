"""
The PROXY protocol by a table: every header read in every way that bytes can arrive, with and without bytes behind it,
and cut short at every place; the good ones read by another parser too.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv6Address, ip_address

import attrs
import pytest
from twisted.internet.address import IPv4Address as TwistedIPv4
from twisted.internet.address import IPv6Address as TwistedIPv6
from twisted.internet.error import ConnectionDone
from twisted.protocols.haproxy._v1parser import V1Parser
from twisted.protocols.haproxy._v2parser import V2Parser
from twisted.python.failure import Failure

from sidecar.errors import ProxyHeaderError
from sidecar.proxy.preface import Preface
from sidecar.wire.proxyproto import Parsed, ProxyHeader, SocketAddress, Unparsed, encode_v1, encode_v2, parse
from tests.support.cases import WAYS
from tests.support.proxyheaders import BEHIND, INVALID, NONE, VALID, HeaderCase

Outcome = tuple[object, ...]

LOST = Failure(ConnectionDone())  # type: ignore[no-untyped-call]


def read(segments: Sequence[bytes], *, may_have: bool = True, is_required: bool = False) -> tuple[list[Outcome], bytes]:
    """
    Let *segments* arrive on a connection, and then the end of it.

    Returns:
        The call-backs made, and all that was handed on.
    """
    made: list[Outcome] = []
    handed_on: list[bytes] = []

    def received(header: ProxyHeader | None, rest: bytes) -> None:
        made.append(("received", header))
        handed_on.append(rest)

    preface = Preface(
        is_required=is_required,
        may_have=may_have,
        received=received,
        refused=lambda reason, text: made.append(("refused", reason, text)),
        gone=lambda count: made.append(("gone", count)),
    )
    for segment in segments:
        if handed_on:
            handed_on.append(segment)
        else:
            preface.dataReceived(segment)
    preface.eofReceived()
    preface.connectionLost(LOST)
    return made, b"".join(handed_on)


def ids(case: HeaderCase) -> str:
    return case.id


@pytest.mark.parametrize("way", WAYS)
class TestArrival:
    @pytest.mark.parametrize("case", VALID, ids=ids)
    @pytest.mark.parametrize("behind", [b"", *BEHIND])
    def test_valid_header_is_read_and_what_follows_is_handed_on(
        self, case: HeaderCase, way: str, behind: bytes
    ) -> None:
        """However it is cut, the header is the same, and no byte behind it is taken for a part of it or lost."""
        for segments in WAYS[way](case.data + behind):
            assert read(segments, is_required=True) == ([("received", case.expected)], behind)

    @pytest.mark.parametrize("case", INVALID, ids=ids)
    def test_invalid_header_is_refused(self, case: HeaderCase, way: str) -> None:
        """It is refused for its reason, however it is cut, whether or not a header is needed; nothing is handed on."""
        for is_required in (True, False):
            for segments in WAYS[way](case.data):
                (made,), handed_on = read(segments, is_required=is_required)
                assert made[:2] == ("refused", "proxy_header_invalid")
                assert f"({case.expected})" in str(made[2])
                assert handed_on == b""

    @pytest.mark.parametrize("case", NONE, ids=ids)
    def test_no_header_is_none(self, case: HeaderCase, way: str) -> None:
        """What cannot be a header is handed on whole where none is needed, and refused where one is."""
        for segments in WAYS[way](case.data):
            assert read(segments) == ([("received", None)], case.data)
            (made,), handed_on = read(segments, is_required=True)
            assert made[:2] == ("refused", "proxy_header_missing")
            assert handed_on == b""

    @pytest.mark.parametrize("case", [*VALID, *INVALID], ids=ids)
    def test_header_of_an_untrusted_peer_is_refused(self, case: HeaderCase, way: str) -> None:
        """Good or not, it is refused, also where a header is needed."""
        for segments in WAYS[way](case.data):
            for is_required in (True, False):
                (made,), handed_on = read(segments, may_have=False, is_required=is_required)
                assert made[:2] == ("refused", "proxy_header_untrusted")
                assert handed_on == b""

    @pytest.mark.parametrize("case", NONE, ids=ids)
    def test_untrusted_peer_without_header_is_served(self, case: HeaderCase, way: str) -> None:
        """Clients beside the balancer are served as if there were no such thing."""
        for segments in WAYS[way](case.data):
            assert read(segments, may_have=False) == ([("received", None)], case.data)


class TestTruncation:
    @pytest.mark.parametrize("case", VALID, ids=ids)
    def test_header_cut_short_is_none(self, case: HeaderCase) -> None:
        """Cut at whatever place, it takes more bytes to tell; if the peer goes, nothing was received."""
        for size in range(len(case.data)):
            assert parse(case.data[:size]) is Unparsed.INCOMPLETE
        for size in range(0, len(case.data), 1 + len(case.data) // 100):
            assert read([case.data[:size]]) == ([("gone", size)], b"")

    @pytest.mark.parametrize("case", VALID, ids=ids)
    @pytest.mark.parametrize("behind", [b"", *BEHIND])
    def test_size_is_that_of_the_header(self, case: HeaderCase, behind: bytes) -> None:
        """The verdict is given at the last byte of a header, and does not change with what comes behind."""
        assert isinstance(case.expected, ProxyHeader)
        assert parse(case.data + behind) == Parsed(case.expected, len(case.data))

    @pytest.mark.parametrize("case", [*INVALID, *NONE], ids=ids)
    def test_verdict_does_not_change(self, case: HeaderCase) -> None:
        """Up to some byte it takes more to tell; from it on there is one verdict, whatever comes behind."""
        verdicts = [verdict(case.data[:size]) for size in range(len(case.data) + 1)]
        verdicts += [verdict(case.data + behind) for behind in BEHIND]
        decided = [given for given in verdicts if given is not Unparsed.INCOMPLETE]

        assert verdicts[-len(decided) :] == decided
        assert set(decided) == {decided[0]}


def verdict(data: bytes) -> object:
    try:
        return parse(data)
    except ProxyHeaderError as error:
        return error.reason, str(error)


def of_twisted(end: object) -> SocketAddress:
    assert isinstance(end, TwistedIPv4 | TwistedIPv6)
    parsed = ip_address(end.host)
    mapped = parsed.ipv4_mapped if isinstance(parsed, IPv6Address) else None
    return SocketAddress(str(mapped or parsed), end.port)


def read_by_twisted(data: bytes) -> tuple[SocketAddress, SocketAddress] | None:
    """What Twisted's parser takes a whole header for; it knows no TLVs."""
    info = V1Parser.parse(data.removesuffix(b"\r\n")) if data.startswith(b"PROXY") else V2Parser.parse(data)
    if info.source is None or info.destination is None:
        return None
    return of_twisted(info.source), of_twisted(info.destination)


_SHORT_UNKNOWN = b"PROXY UNKNOWN\r\n"
"""Twisted's parser wants a blank behind UNKNOWN, which section 2.1 does not."""


class TestOtherParser:
    @pytest.mark.parametrize(
        "case",
        [
            case
            for case in VALID
            if case.data != _SHORT_UNKNOWN and b"sock" not in case.data  # paths are no addresses of ours
        ],
        ids=ids,
    )
    def test_twisted_reads_the_same_addresses(self, case: HeaderCase) -> None:
        """A valid header says the same to somebody else."""
        assert isinstance(case.expected, ProxyHeader)
        ends = (case.expected.source, case.expected.destination)
        assert (read_by_twisted(case.data) or (None, None)) == ends

    @pytest.mark.parametrize(
        "case",
        [case for case in VALID if isinstance(case.expected, ProxyHeader) and case.expected.source],
        ids=ids,
    )
    def test_what_we_write_reads_the_same(self, case: HeaderCase) -> None:
        """Written again in either version, addresses are read as they were, by us and by Twisted."""
        header = case.expected
        assert isinstance(header, ProxyHeader)
        assert header.source is not None
        assert header.destination is not None
        line = encode_v1(header.source, header.destination)
        block = encode_v2(header.source, header.destination, header.tlvs)

        assert parse(line) == Parsed(attrs.evolve(header, version=1, tlvs=()), len(line))
        assert parse(block) == Parsed(attrs.evolve(header, version=2), len(block))
        assert read_by_twisted(line) == read_by_twisted(block) == (header.source, header.destination)
