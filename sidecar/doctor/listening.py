"""Which TCP addresses of this network namespace are listened on: the text of /proc/net/tcp and tcp6."""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Iterator, Sequence

import attrs

from sidecar.config import hosts

_LISTEN = "0A"  # TCP_LISTEN of include/net/tcp_states.h


@attrs.frozen
class Listening:
    """A socket that connections can be made to; `host` is an IP address, those of IPv4 in their own form."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def listening(*tables: str) -> tuple[Listening, ...]:
    """Read the tables, each with its header line; lines that are none are left out."""
    return tuple(dict.fromkeys(each for table in tables for each in _rows(table)))


def _rows(table: str) -> Iterator[Listening]:
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 3 and fields[3] == _LISTEN:
            host, _, port = fields[1].partition(":")
            try:
                yield Listening(_address(bytes.fromhex(host)), int(port, 16))
            except ValueError:
                continue


def _address(raw: bytes) -> str:
    """Each 32 bits are written as a number of this machine."""
    words = [raw[at : at + 4] for at in range(0, len(raw), 4)]
    if sys.byteorder == "little":
        words = [word[::-1] for word in words]
    address = ipaddress.ip_address(b"".join(words))
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(address if mapped is None else mapped)


def takes(table: Sequence[Listening], host: str, port: int) -> bool:
    """Whether a connection to *host*, an address of this machine, ends at one of *table*."""
    return any(each.port == port and (each.host == host or hosts.reaches(host, each.host)) for each in table)
