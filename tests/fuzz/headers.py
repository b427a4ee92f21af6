"""
What must hold for every beginning of a connection, whatever it is: the oracles for `wire.proxyproto`, and for
`proxy.preface` around it.

`read_again` is another reader, written down from the specification alone, with the C library for addresses. Ours must
accept what it accepts, read the same, and refuse all else.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from typing import Any, Final

import attrs

from sidecar.errors import ProxyHeaderError
from sidecar.proxy.preface import Preface
from sidecar.wire.proxyproto import Parsed, ProxyHeader, SocketAddress, Unparsed, encode_v1, encode_v2, parse
from tests.fuzz.inputs import HeaderInput, segments
from tests.support.proxyheaders import MAX_HEADER_BYTES, MAX_TLVS, SIGNATURE, checksum

_MAX_LINE_BYTES: Final = 107
_ONCE: Final = {1, 2, 3, 5, 0x20}
_ONCE_IN_SSL: Final = {0x21, 0x22, 0x23}

# The 14th byte -> family, bytes of an address, bytes of all addresses.
_KINDS: Final = {
    0x00: (None, 0, 0),
    0x01: (None, 0, 0),
    0x11: (socket.AF_INET, 4, 12),
    0x21: (socket.AF_INET6, 16, 36),
    0x31: (None, 0, 216),
}


class Malformed(Exception):  # noqa: N818 - a verdict of the reader, like the other two
    """It begins as a header, and is none."""


class Partial(Exception):  # noqa: N818
    """It takes more bytes to tell."""


class Foreign(Exception):  # noqa: N818
    """It is something else."""


@attrs.frozen
class Again:
    """What another reader makes of a header; `ends` are packed addresses and ports, none if it has none."""

    size: int
    is_local: bool = False
    ends: tuple[tuple[bytes, int], ...] = ()
    tlvs: tuple[tuple[int, bytes], ...] = ()


def read_again(data: bytes) -> Again:
    """Read the header at the beginning of *data*."""
    if data[:6] == b"PROXY ":
        return _read_line(data)
    if data[:12] == SIGNATURE:
        return _read_block(data)
    if data == b"PROXY "[: len(data)] or data == SIGNATURE[: len(data)]:
        raise Partial
    raise Foreign


def _read_line(data: bytes) -> Again:
    line, end, _ = data[:_MAX_LINE_BYTES].partition(b"\n")
    if not end:
        raise Partial if len(data) < _MAX_LINE_BYTES else Malformed
    if not line.endswith(b"\r") or b"\r" in line[:-1]:
        raise Malformed
    size = len(line) + 1
    fields = line[:-1].split(b" ")
    if fields[1] == b"UNKNOWN":
        return Again(size)
    if len(fields) != 6 or fields[1] not in (b"TCP4", b"TCP6"):
        raise Malformed
    family = socket.AF_INET if fields[1] == b"TCP4" else socket.AF_INET6
    hosts = [_packed(family, text) for text in fields[2:4]]
    ports = [_number(text) for text in fields[4:]]
    return Again(size, ends=tuple(zip(hosts, ports, strict=True)))


def _packed(family: socket.AddressFamily, text: bytes) -> bytes:
    try:
        packed = socket.inet_pton(family, text.decode("ascii"))
    except (OSError, ValueError):
        raise Malformed from None
    if family is socket.AF_INET6 and b"." in text and text.lower().rpartition(b":")[0] != b"::ffff":
        raise Malformed
    return _without_mapping(packed)


def _without_mapping(packed: bytes) -> bytes:
    is_mapped = len(packed) == 16 and packed[:12] == b"\0" * 10 + b"\xff\xff"
    return packed[12:] if is_mapped else packed


def _number(text: bytes) -> int:
    if not text.isdigit() or len(text) > 5 or int(text) > 0xFFFF or text != b"%d" % int(text):
        raise Malformed
    return int(text)


def _read_block(data: bytes) -> Again:
    if len(data) < 16:
        raise Partial
    _, version_and_command, kind, length = struct.unpack_from("!12sBBH", data)
    if version_and_command not in (0x20, 0x21):
        raise Malformed
    is_local = version_and_command == 0x20
    if not is_local and (kind not in _KINDS or _KINDS[kind][2] > length):
        raise Malformed
    size = 16 + length
    if size > MAX_HEADER_BYTES:
        raise Malformed
    if len(data) < size:
        raise Partial
    if is_local:
        return Again(size, is_local=True)
    header = data[:size]
    family, width, taken = _KINDS[kind]
    ends: tuple[tuple[bytes, int], ...] = ()
    if family is not None:
        source, destination, source_port, destination_port = struct.unpack_from(f"!{width}s{width}sHH", header, 16)
        ends = ((_without_mapping(source), source_port), (_without_mapping(destination), destination_port))
    return Again(size, ends=ends, tlvs=_check_tlvs(header, _cut(header[16 + taken :], _ONCE)))


def _cut(vector: bytes, once: set[int]) -> list[tuple[int, bytes]]:
    found: list[tuple[int, bytes]] = []
    while vector:
        if len(vector) < 3 or len(found) == MAX_TLVS:
            raise Malformed
        kind, length = struct.unpack_from("!BH", vector)
        value, vector = vector[3 : 3 + length], vector[3 + length :]
        if len(value) < length or (kind in once and any(kind == other for other, _ in found)):
            raise Malformed
        found.append((kind, value))
    return found


def _check_tlvs(header: bytes, tlvs: list[tuple[int, bytes]]) -> tuple[tuple[int, bytes], ...]:
    behind = 0
    for kind, value in reversed(tlvs):
        if kind == 3:
            at = len(header) - behind - 4
            if len(value) != 4 or value != checksum(header[:at] + bytes(4) + header[at + 4 :]).to_bytes(4, "big"):
                raise Malformed
        if kind == 0x20:
            if len(value) < 5:
                raise Malformed
            _cut(value[5:], _ONCE_IN_SSL)
        behind += 3 + len(value)
    return tuple(tlv for tlv in tlvs if tlv[0] not in (3, 4))


# -- rules ------------------------------------------------------------------------------------------------------


def judge_header(input: HeaderInput) -> tuple[object, ...]:
    """Hold *input* against every rule; return its signature."""
    data = input.data
    heard = _listen([data], input)
    assert _listen(segments(data, input.cuts), input) == heard, "what is heard depends on the cuts"
    few = data[: MAX_HEADER_BYTES + 1]
    assert _listen([few[at : at + 1] for at in range(len(few))] + [data[len(few) :]], input) == heard, (
        "what is heard depends on the cuts"
    )
    outcome = _outcome(data)
    _check_heard(heard, outcome, input)
    if not isinstance(outcome, Parsed):
        return ("headers", outcome, heard[0], input.is_required)
    header = outcome.header
    _check_shown(header)
    _check_written(header)
    kinds = tuple(sorted({kind for kind, _ in header.tlvs if kind in _ONCE | {0xEA}}))
    return (
        *("headers", header.version, header.is_local, heard[0], kinds, len(header.tlvs).bit_length()),
        *(outcome.size.bit_length(), header.source is not None and ":" in header.source.host),
        *(bool(header.authority), bool(header.unique_id), header.ssl is not None and bool(header.ssl.common_name)),
    )


def _outcome(data: bytes) -> Parsed | Unparsed | str:
    """What `parse` says, compared with the other reader."""
    again = _again(data)
    try:
        found: Parsed | Unparsed | str = parse(data)
    except ProxyHeaderError as error:
        found = error.reason
    if isinstance(found, Parsed):
        assert isinstance(again, Again), f"accepted, and {again}"
        header = found.header
        ends = [end for end in (header.source, header.destination) if end is not None]
        assert found.size == again.size, "another size"
        assert (header.is_local, header.tlvs) == (again.is_local, again.tlvs), "another content"
        assert tuple(map(_pack, ends)) == again.ends, "other addresses"
    elif isinstance(found, Unparsed):
        assert again is (Partial if found is Unparsed.INCOMPLETE else Foreign), f"{found}, and {again}"
    else:
        assert again is Malformed, f"refused ({found}), and {again}"
    return found


def _again(data: bytes) -> Again | type[Exception]:
    try:
        return read_again(data)
    except (Malformed, Partial, Foreign) as verdict:
        return type(verdict)


def _pack(end: SocketAddress) -> tuple[bytes, int]:
    return socket.inet_pton(socket.AF_INET6 if ":" in end.host else socket.AF_INET, end.host), end.port


def _listen(pieces: Sequence[bytes], input: HeaderInput) -> tuple[Any, ...]:
    """Feed *pieces* to a new `Preface`; return its one call-back, with all that goes to the next protocol."""
    heard: list[tuple[Any, ...]] = []
    preface = Preface(
        is_required=input.is_required,
        may_have=input.is_trusted,
        received=lambda header, rest: heard.append(("received", header, rest)),
        refused=lambda reason, text: heard.append(("refused", reason, text)),
        gone=lambda count: heard.append(("gone", count)),
    )
    for at, piece in enumerate(pieces):
        preface.dataReceived(piece)
        assert heard or len(preface._data) < MAX_HEADER_BYTES, "more is held than a header may be"
        if heard and heard[0][0] == "received":
            call, header, rest = heard[0]
            return call, header, rest + b"".join(pieces[at + 1 :])
    preface.eofReceived()
    (call,) = heard
    return call


def _check_heard(heard: tuple[Any, ...], outcome: Parsed | Unparsed | str, input: HeaderInput) -> None:
    """Fail unless the owner of the connection was told what its listener asks for."""
    data = input.data
    is_header = data.startswith((b"PROXY ", SIGNATURE))
    if is_header and not input.is_trusted:
        assert heard[:2] == ("refused", "proxy_header_untrusted"), f"an untrusted header: {heard}"
    elif isinstance(outcome, Parsed):
        assert heard == ("received", outcome.header, data[outcome.size :]), "not what was read"
    elif outcome is Unparsed.INCOMPLETE:
        assert heard == ("gone", len(data)), f"more is needed to tell: {heard}"
    elif outcome is Unparsed.ABSENT and not input.is_required:
        assert heard == ("received", None, data), "what came is not handed on"
    else:
        reason = "proxy_header_missing" if outcome is Unparsed.ABSENT else "proxy_header_invalid"
        assert heard[:2] == ("refused", reason), f"{outcome}: {heard}"
        assert heard[2].isprintable(), "a text that breaks its line"


def _check_shown(header: ProxyHeader) -> None:
    """Fail if a name can be had that breaks a line or is without limit."""
    facts = header.ssl
    names = [header.authority, header.vpc_endpoint_id]
    if facts is not None:
        names += [facts.version, facts.common_name, facts.cipher]
    for name in names:
        assert name.isprintable(), "a name that cannot be shown"
        assert len(name.encode()) <= 255, "a name without limit"
    assert len(header.unique_id) <= 128, "a unique id without limit"
    assert len(header.alpn) <= 255, "a protocol without limit"


def _check_written(header: ProxyHeader) -> None:
    """Fail unless a header that is written again is read as it was; without addresses it says nothing."""
    source, destination = header.source, header.destination
    line, block = encode_v1(source, destination), encode_v2(source, destination, header.tlvs)
    as_line = ProxyHeader(version=1, source=source, destination=destination)
    as_block = attrs.evolve(as_line, version=2, is_local=source is None, tlvs=header.tlvs if source else ())
    assert parse(line + b"x") == Parsed(as_line, len(line)), "another line"
    assert parse(block + b"x") == Parsed(as_block, len(block)), "another block"
