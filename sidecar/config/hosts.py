"""Which addresses are the same, or lie behind one another, as far as that is known without asking a resolver."""

from __future__ import annotations

import ipaddress

_LOOPBACK = ("127.0.0.1", "::1")
_ANY_IPV4 = "0.0.0.0"  # noqa: S104 - compared with, not bound
_ANY = "::"
"""An IPv6 wildcard listener takes IPv4 too, unless the kernel is told otherwise."""

_CONNECTED = {_ANY_IPV4: "127.0.0.1", _ANY: "::1"}
"""Where a connection to a wildcard address ends."""


def collide(one: str, other: str) -> bool:
    """Whether two listeners with these hosts cannot have the same port."""
    pairs = [(a, b) for a in _addresses(one) for b in _addresses(other)]
    return any(_covers(a, b) or _covers(b, a) for a, b in pairs)


def reaches(target: str, listener: str) -> bool:
    """
    Whether a connection to host *target* is sure to end at a listener on host *listener*.

    A wildcard listener has all addresses of this machine, of which we know the loopback ones.
    """
    targets = [_CONNECTED.get(address, address) for address in _addresses(target)]
    pairs = [(a, b) for a in _addresses(listener) for b in targets]
    return any(a == b or (_is_loopback(b) and _covers(a, b)) for a, b in pairs)


def is_local(host: str) -> bool:
    """Whether only this machine, or this pod, reaches a listener on *host*."""
    return all(map(_is_loopback, _addresses(host)))


def _addresses(host: str) -> tuple[str, ...]:
    """What *host* stands for."""
    return _LOOPBACK if host.lower() == "localhost" else (host.lower(),)


def _covers(listener: str, address: str) -> bool:
    """Whether a listener on one host takes what goes to an address of this machine."""
    return listener in (address, _ANY) or (listener == _ANY_IPV4 and _version(address) == 4)


def _is_loopback(address: str) -> bool:
    return _version(address) is not None and ipaddress.ip_address(address).is_loopback


def _version(address: str) -> int | None:
    try:
        return ipaddress.ip_address(address).version
    except ValueError:
        return None
