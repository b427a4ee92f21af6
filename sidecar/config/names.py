"""
The registry of settings, derived from the classes in `sidecar.settings`.

Everything that reads or shows settings (environment, flags, file, help, tables) walks `SETTINGS`, so a new setting
is one declaration there. A type that no setting had before needs one row in `_FORMS`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, TypeVar, get_type_hints

import attrs

from sidecar.config import addresses, units
from sidecar.settings import (
    AlpnNames,
    Authority,
    ByteCount,
    ClustersText,
    DenyText,
    HealthCheckText,
    HostPort,
    IdentityDialect,
    ListenersText,
    MatcherText,
    Networks,
    Password,
    PathPatterns,
    RulesText,
    Seconds,
    ServerName,
    Settings,
    Source,
    TlsNames,
    TlsPolicy,
    Upstream,
    VirtualHostsText,
)
from sidecar.values import Value

T = TypeVar("T")

PREFIX = "SIDECAR_"
CONFIG_VARIABLE = "SIDECAR_CONFIG"
CONFIG_FLAG = "--config"
CONFIG_HELP = "YAML file with the same settings in lower case"

ENVOY_VARIABLE = "SIDECAR_ENVOY"
ENVOY_FLAG = "--envoy"
ENVOY_HELP = "Envoy bootstrap file in place of that file; what is not carried over is listed"
STRICT_FLAG = "--strict"
STRICT_HELP = "with an Envoy bootstrap file: what is not carried over is an error"

DEFAULT = "default"
ENVIRONMENT = "environment"
FLAG = "flag"
"""Sources of a value; the fourth is ``FILE:LINE``."""

MASK = "***"

SEE_HELP = "remove it, or see sidecar --help"
"""The fix for an unknown name that is like no other."""


@attrs.frozen(eq=False, repr=False)
class Given(Value):
    """
    What an operator wrote for one setting.

    Attributes:
        text: The value, without surrounding blanks, never empty: an empty value is as good as none given.
        written: The name it was given under: ``SIDECAR_TLS_KEY``, ``--tls-key`` or ``tls_key``.
        source: ``environment``, ``flag`` or ``FILE:LINE``.
        places: For a structured setting from a file: what stands where in it, such as ``clusters[0].endpoints[1]`` ->
            ``FILE:LINE``.
    """

    text: str
    written: str
    source: str
    places: Mapping[str, str] = attrs.field(factory=dict, repr=False)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Setting(Value):
    """
    One setting as the outside world sees it.

    Attributes:
        name: Its public name, e.g. ``tls_cert``.
        path: The attributes that lead to it from the root object, e.g. ``("tls", "cert")``.
        type: The type of its value.
        group: What the settings declared beside it have in common, for ``--help``: from their class's docstring.
        default, help, bounds, zero_is_off, secret: As declared, see `sidecar.settings.setting`.
    """

    name: str
    path: tuple[str, ...]
    type: Any  # a type form: a class, a union, a NewType
    group: str
    default: Any
    help: str
    bounds: tuple[float, float] | None
    zero_is_off: bool
    secret: bool

    @property
    def variable(self) -> str:
        """``SIDECAR_TLS_CERT``."""
        return PREFIX + self.name.upper()

    @property
    def flag(self) -> str:
        """``--tls-cert``."""
        return "--" + self.name.replace("_", "-")

    @property
    def is_list(self) -> bool:
        """Whether the file may give it as a list of single values."""
        return self.type in _LISTS

    @property
    def is_structured(self) -> bool:
        """Whether the file gives it as a list of mappings."""
        return self.type in _STRUCTURES

    def may_be_secret(self, text: str) -> bool:
        """Whether *text*, given for it, is something that nobody else is to see: key material or a password itself."""
        if not text.strip() or self.type not in (Password | None, Source | None, tuple[Source, ...]):
            return False
        try:
            return _form(self.type).text(self.parse(text.strip())) not in (text.strip(), "none")
        except units.UnitError:
            return True

    def written_in(self, source: str) -> str:
        """How its name is written in *source*; for a default, how it most likely would be: as a variable."""
        return {ENVIRONMENT: self.variable, DEFAULT: self.variable, FLAG: self.flag}.get(source, self.name)

    def parse(self, text: str) -> Any:
        """
        The value that *text* stands for.

        Raises:
            UnitError: It stands for none, or for one out of bounds. Does not show the text of a secret.
        """
        try:
            value = _form(self.type).parse(text)
        except units.UnitError as error:
            if self.secret:
                raise units.UnitError("the value is not of the right form", "mend it") from None
            raise error
        self._require_within_bounds(value)
        return value

    def text(self, value: Any) -> str:
        """The canonical text of a value; masked if it is secret and not the default."""
        if self.secret and value != self.default:
            return MASK
        return _form(self.type).text(value)

    def of(self, root: Any) -> Any:
        """Its value in *root*, an instance of the class the registry was made from."""
        for attribute in self.path:
            root = getattr(root, attribute)
        return root

    def put(self, root: T, value: Any) -> T:
        """A copy of *root* in which it has *value*."""
        changed: T = _put(root, self.path, value)
        return changed

    def _require_within_bounds(self, value: Any) -> None:
        if self.bounds is None or value is None or (self.zero_is_off and value == 0):
            return
        low, high = self.bounds
        if not low <= value <= high:
            text = _form(self.type).text
            shown = "the value" if self.secret else text(value)
            off = "; 0 turns it off" if self.zero_is_off else ""
            raise units.UnitError(f"{shown} is out of bounds", f"write a value from {text(low)} to {text(high)}{off}")


def _put(root: Any, path: tuple[str, ...], value: Any) -> Any:
    head, *rest = path
    inner = _put(getattr(root, head), tuple(rest), value) if rest else value
    return attrs.evolve(root, **{head: inner})


@attrs.frozen(eq=False, repr=False)
class _Form(Value):
    """How values of one type are written."""

    parse: Callable[[str], Any]
    text: Callable[[Any], str]


_FORMS: dict[Any, _Form] = {
    Seconds: _Form(units.parse_duration, units.duration_text),
    ByteCount: _Form(units.parse_size, units.size_text),
    Seconds | None: _Form(units.parse_optional_duration, units.optional_duration_text),
    int: _Form(units.parse_count, str),
    int | None: _Form(units.parse_optional_count, units.optional_count_text),
    str: _Form(units.parse_log_format, units.text_or_none),
    HostPort: _Form(addresses.parse_listener, str),
    HostPort | None: _Form(addresses.parse_optional_listener, addresses.optional_listener_text),
    Upstream: _Form(addresses.parse_upstream, addresses.upstream_text),
    Networks: _Form(addresses.parse_networks, addresses.names_text),
    tuple[str, ...]: _Form(addresses.parse_names, addresses.names_text),
    TlsNames: _Form(addresses.parse_tls_names, addresses.names_text),
    ServerName: _Form(addresses.parse_server_name, units.text_or_none),
    Authority: _Form(addresses.parse_authority, units.text_or_none),
    AlpnNames: _Form(addresses.parse_alpn, addresses.names_text),
    HealthCheckText: _Form(addresses.parse_health_check, units.text_or_none),
    tuple[Source, ...]: _Form(units.parse_sources, units.sources_text),
    Source | None: _Form(units.parse_source, units.source_text),
    Password | None: _Form(units.parse_password, units.password_text),
    TlsPolicy: _Form(units.parse_tls_policy, lambda value: str(value.value)),
    tuple[IdentityDialect, ...]: _Form(partial(units.parse_words, IdentityDialect), units.words_text),
    PathPatterns: _Form(units.parse_paths, addresses.names_text),
    MatcherText: _Form(units.parse_matcher, units.text_or_none),
    DenyText: _Form(units.parse_deny, units.text_or_none),
    RulesText: _Form(partial(units.parse_structure, "rules"), units.text_or_none),
    ListenersText: _Form(partial(units.parse_structure, "listeners"), units.text_or_none),
    VirtualHostsText: _Form(partial(units.parse_structure, "virtual hosts"), units.text_or_none),
    ClustersText: _Form(partial(units.parse_structure, "clusters"), units.text_or_none),
}

_LISTS = (
    *(tuple[str, ...], tuple[Source, ...], tuple[IdentityDialect, ...]),
    *(PathPatterns, MatcherText, DenyText, Upstream, Networks, TlsNames, AlpnNames),
)

_STRUCTURES = (RulesText, ListenersText, VirtualHostsText, ClustersText)


def _form(type_: Any) -> _Form:
    if isinstance(type_, type) and issubclass(type_, enum.Enum) and type_ not in _FORMS:
        return _Form(partial(units.parse_word, type_), lambda value: str(value.value))
    return _FORMS[type_]


def registry(root: type, path: tuple[str, ...] = ()) -> dict[str, Setting]:
    """Every setting of an attrs class and of the classes nested in it, by name, in the order of declaration."""
    hints = get_type_hints(root)
    group = (root.__doc__ or "").strip().partition(".")[0] if path else "Addresses"
    found: dict[str, Setting] = {}
    for field in attrs.fields(root):
        here = (*path, field.name)
        if "name" not in field.metadata:
            found |= registry(hints[field.name], here)
            continue
        declared = {key: value for key, value in field.metadata.items() if key != "unit"}
        declared |= {"path": here, "type": hints[field.name], "group": group, "default": field.default}
        found[declared["name"]] = Setting(**declared)
    return found


def is_group(name: str, settings: Iterable[str]) -> bool:
    """Whether *name* is the beginning of settings' names, as ``tls`` is of ``tls_cert``."""
    return any(setting.startswith(f"{name}_") for setting in settings)


def did_you_mean(word: str, options: Iterable[str], otherwise: str = SEE_HELP) -> str:
    """The fix for an unknown *word*."""
    meant = units.closest(word, options)
    return f"did you mean {meant}?" if meant else otherwise


SETTINGS: dict[str, Setting] = registry(Settings)
