"""
Which virtual host a request is for: domain patterns, and the order in which they are looked for, which is Envoy's.

Hosts are compared as `conditions.plain_host` gives them, in lower case, without port and final dot; a host that names
nothing, as an HTTP/1.0 request may have it, is only found by ``*``.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Final, Generic, TypeVar

import attrs

from sidecar.policy.conditions import ConditionError
from sidecar.values import Value

T = TypeVar("T")

ANY: Final = "*"

LONGEST_NAME: Final = 253
"""Characters of a host name (RFC 1035 section 2.3.4, less what only the wire form has)."""

# Letters, digits and hyphens (RFC 1123), and underscores, which service names have.
_NAME: Final = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")

_BRACKETED: Final = re.compile(r"\[[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*\]")


def check_domain(pattern: str) -> str:
    """
    Return a domain of a virtual host in the form that hosts are compared with.

    Args:
        pattern: A host name or address, ``*.SUFFIX``, ``PREFIX.*``, or ``*``.

    Raises:
        ConditionError: It is none of them.
    """
    plain = pattern.lower() if pattern.isascii() else pattern
    if plain == ANY:
        return plain
    if plain.startswith("*."):
        return f"*.{_check_name(plain[2:], pattern)}"
    if plain.endswith(".*"):
        return f"{_check_name(plain[:-2], pattern)}.*"
    return check_host(plain)


def check_host(host: str) -> str:
    """
    Return a host name or address without port, in the form that hosts are compared with: addresses have no brackets.

    Raises:
        ConditionError: It is neither.
    """
    bare = host[1:-1] if _BRACKETED.fullmatch(host) else host
    try:
        return str(ipaddress.ip_address(bare)) if "%" not in bare else _check_name(bare, host)
    except ValueError:
        return _check_name(host.lower() if host.isascii() else host, host)


def _check_name(name: str, shown: str) -> str:
    quoted = ascii(shown[:60])
    if not name.isascii():
        raise ConditionError(f"{quoted} has letters that are not ASCII", "write the form that begins with xn--")
    if len(name) > LONGEST_NAME:
        raise ConditionError(f"{quoted}… has {len(name):,} characters, limit {LONGEST_NAME}", "write a shorter name")
    if "*" in name:
        fix = "write * alone, or in place of the first labels or the last, as in *.example.org or example.*"
        raise ConditionError(f"{quoted} has a * where none can be", fix)
    if name.endswith(".") and _NAME.fullmatch(name[:-1]):
        raise ConditionError(f"{quoted} ends with a dot", "leave it out: hosts are compared without it")
    if _NAME.fullmatch(name) is None:
        fix = "write a name or an address without scheme, port and path, as api.example.org"
        raise ConditionError(f"{quoted} is no host", fix)
    return name


@attrs.frozen(eq=False, repr=False)
class DomainTable(Value, Generic[T]):
    """
    Values by domain; `find` takes as long as there are different lengths of wildcards, not domains.

    Attributes:
        hosts: By whole name.
        suffixes: By what follows the star, with its dot.
        prefixes: By what precedes the star, with its dot.
        default: For ``*``.
    """

    hosts: Mapping[str, T]
    suffixes: Mapping[str, T]
    prefixes: Mapping[str, T]
    default: T | None
    _suffix_lengths: tuple[int, ...] = attrs.field(init=False, eq=False, repr=False)
    _prefix_lengths: tuple[int, ...] = attrs.field(init=False, eq=False, repr=False)

    @_suffix_lengths.default
    def _measure_suffixes(self) -> tuple[int, ...]:
        return _lengths(self.suffixes)

    @_prefix_lengths.default
    def _measure_prefixes(self) -> tuple[int, ...]:
        return _lengths(self.prefixes)

    @classmethod
    def of(cls, values: Mapping[str, T]) -> DomainTable[T]:
        """
        Make a table.

        Args:
            values: By domain, as `check_domain` returns it.
        """
        return cls(
            hosts={domain: value for domain, value in values.items() if "*" not in domain},
            suffixes={domain[1:]: value for domain, value in values.items() if domain.startswith("*.")},
            prefixes={domain[:-1]: value for domain, value in values.items() if domain.endswith(".*")},
            default=values.get(ANY),
        )

    @property
    def is_for_any(self) -> bool:
        """Whether hosts make no difference: there is no domain but ``*``."""
        return not (self.hosts or self.suffixes or self.prefixes)

    def find(self, host: str) -> T | None:
        """
        The value of the domain that *host* belongs to; None if there is none.

        Args:
            host: As `conditions.plain_host` returns it.
        """
        found = self.hosts.get(host)
        if found is not None:
            return found
        size = len(host)
        for length in self._suffix_lengths:
            # A host that is nothing but the suffix has no label in place of the star.
            if length < size and (found := self.suffixes.get(host[-length:])) is not None:
                return found
        for length in self._prefix_lengths:
            if length < size and (found := self.prefixes.get(host[:length])) is not None:
                return found
        return self.default


def _lengths(keys: Mapping[str, object]) -> tuple[int, ...]:
    return tuple(sorted({len(key) for key in keys}, reverse=True))
