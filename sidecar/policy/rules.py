"""
Rules as an operator writes them -> `authz.Rules`, or everything that is wrong with them at once.

The entries are what a YAML file holds, as plain values: mappings with these keys, of which each may be left out::

    rules:
      - path: [/service, /static/*]     # or one; see `conditions.Condition`
        client_cert: none               # none, optional or required; required if not given
      - name: operators
        path: /admin/*
        method: [GET, POST]
        host: "*.example.org"
        allow: ou=operations, dns=*.ops.example.org     # a matcher, or a list of them
        deny: [serial=0a1b]

A rule without client_cert requires one, whatever holds elsewhere: its author thought of clients that show one, and
would not expect an allow list to let in those that show none. A rule without an allow list has that of the default, and
whom the default denies every rule denies: nobody thinks of a rule about paths as a way around them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import attrs

from sidecar.errors import ConfigError, Problem
from sidecar.policy import matchers
from sidecar.policy.authz import Rule, Rules
from sidecar.policy.conditions import Condition, ConditionError, check_method, check_path, compile_host
from sidecar.policy.matchers import Matcher, MatcherError
from sidecar.settings import ClientCertMode

T = TypeVar("T")

MOST_RULES: Final = 500
"""Rules of a listener: the conditions of each are compared with every request."""

KEYS: Final = ("name", "path", "method", "host", "client_cert", "allow", "deny")

_MODES: Final = {mode.value: mode for mode in ClientCertMode}

# It stands in log lines and metrics.
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,59}")


def read_rules(entries: object, default: Rule, source: str, place: str = "rules") -> Rules:
    """
    Read the rules of a listener.

    Args:
        entries: A list of mappings of texts, and of lists of texts.
        default: For requests that none of them is about; its lists hold for the others too, see above.
        source: Where they stand, for problems, e.g. the name of a file.
        place: What the list is called there.

    Raises:
        ConfigError: With every problem; `Problem.setting` is the place, e.g. ``rules[2].path``.
    """
    reader = _Reader(source, default)
    if not isinstance(entries, Sequence) or isinstance(entries, str):
        reader.refuse(place, "this is not a list", "write each rule as an entry of a list, behind a hyphen")
        entries = ()
    if len(entries) > MOST_RULES:
        reader.refuse(place, f"there are {len(entries):,} rules, limit {MOST_RULES}", "use wildcards")
        entries = ()
    rules = [rule for i, entry in enumerate(entries) if (rule := reader.rule(f"{place}[{i}]", entry)) is not None]
    if not reader.problems:
        _check_order(rules, reader, place)
    if reader.problems:
        raise ConfigError(reader.problems)
    return Rules(tuple(rules), default)


def _check_order(rules: list[Rule], reader: _Reader, place: str) -> None:
    names: dict[str, int] = {}
    final: int | None = None
    for i, rule in enumerate(rules):
        here = f"{place}[{i}]"
        if rule.name in names:
            fact = f"{place}[{names[rule.name]}] is called {rule.name} already"
            reader.refuse(f"{here}.name", fact, "call one of them otherwise")
        names.setdefault(rule.name, i)
        if final is not None:
            reader.refuse(here, f"it is never reached: {place}[{final}] is about every request", "move it up")
        elif rule.condition.is_always_true:
            final = i


@attrs.define(eq=False, repr=False)
class _Reader:
    """Collects problems while reading entries; what has one is read as None."""

    source: str
    default: Rule
    problems: list[Problem] = attrs.field(factory=list)

    def refuse(self, place: str, fact: str, fix: str) -> None:
        self.problems.append(Problem(place, self.source, fact, fix))

    def rule(self, place: str, entry: object) -> Rule | None:
        """The rule that *entry* stands for; None if there is a problem with it."""
        if not isinstance(entry, Mapping):
            self.refuse(place, "this is not a rule", f"write it as KEY: VALUE lines; the keys are {', '.join(KEYS)}")
            return None
        before = len(self.problems)
        for key in entry:
            if key not in KEYS:
                self._unknown(place, key)
        name = self._name(place, entry)
        paths = self._texts(place, entry, "path", check_path)
        methods = self._texts(place, entry, "method", check_method)
        hosts = self._texts(place, entry, "host", compile_host)
        mode = self._mode(place, entry)
        allow = self._matcher(place, entry, "allow")
        deny = self._matcher(place, entry, "deny")
        if deny is not None and deny.has_field("sha256"):
            self.refuse(f"{place}.deny", matchers.NO_FINGERPRINTS_TO_DENY, "write serial and issuer, or spki")
        if mode is ClientCertMode.NONE:
            for key in {"allow", "deny"} & entry.keys():
                fact = "it would be ignored: client_cert is none, so no certificate is looked at"
                self.refuse(f"{place}.{key}", fact, "set client_cert to optional or required, or remove this")
        if len(self.problems) > before:
            return None
        try:
            condition = Condition(paths, methods, hosts)
        except ConditionError as error:
            self.refuse(place, error.fact, error.fix)
            return None
        if mode is not ClientCertMode.NONE:
            allow = self.default.allow if allow is None else allow
            lists = [each for each in (deny, self.default.deny) if each is not None]
            deny = matchers.any_of(lists) if lists else None
        return Rule(name=name, condition=condition, mode=mode, allow=allow, deny=deny)

    def _unknown(self, place: str, key: object) -> None:
        word = str(key)[:60]
        import difflib  # only a mistake needs it

        close = difflib.get_close_matches(word.lower().replace("-", "_"), KEYS, n=1)
        fix = f"did you mean {close[0]}?" if close else f"the keys are {', '.join(KEYS)}"
        self.refuse(place, f"there is no key {word!a}", fix)

    def _name(self, place: str, entry: Mapping[Any, object]) -> str:
        value = entry.get("name", place)
        if "name" in entry and not (isinstance(value, str) and _NAME.fullmatch(value)):
            fact = "this is not a name"
            self.refuse(f"{place}.name", fact, "write up to 60 letters, digits, points, slashes, hyphens, underscores")
        return str(value)

    def _mode(self, place: str, entry: Mapping[Any, object]) -> ClientCertMode:
        value = entry.get("client_cert", ClientCertMode.REQUIRED.value)
        mode = _MODES.get(value) if isinstance(value, str) else None
        if mode is None:
            fact = f"{_shown(value)} is none of its values"
            self.refuse(f"{place}.client_cert", fact, "write none, optional or required")
        return mode or ClientCertMode.REQUIRED

    def _texts(
        self, place: str, entry: Mapping[Any, object], key: str, check: Callable[[str], object]
    ) -> tuple[str, ...]:
        """The patterns behind *key*, each of which *check* accepts."""
        found = []
        for where, text in self._listed(place, entry, key):
            try:
                check(text)
            except ConditionError as error:
                self.refuse(where, error.fact, error.fix)
            else:
                found.append(text)
        if key in entry and entry[key] in ([], ()):
            # An empty list would be about no request, and read as if it were about every one.
            self.refuse(f"{place}.{key}", "the list is empty", f"remove it if the rule is about every {key}")
        return tuple(found)

    def _matcher(self, place: str, entry: Mapping[Any, object], key: str) -> Matcher | None:
        """The matcher behind *key*; None if it is not given. An empty list matches nobody."""
        if key not in entry:
            return None
        found = []
        for where, text in self._listed(place, entry, key):
            try:
                found.append(matchers.compile(text))
            except MatcherError as error:
                self.refuse(where, error.fact, error.fix)
        joined = matchers.any_of(found)
        if len(joined.terms) > matchers.MOST_TERMS:
            fact = f"there are {len(joined.terms):,} terms, limit {matchers.MOST_TERMS:,}"
            self.refuse(f"{place}.{key}", fact, "use wildcards, or several rules")
        return joined

    def _listed(self, place: str, entry: Mapping[Any, object], key: str) -> list[tuple[str, str]]:
        """The texts behind *key*, each with its place."""
        if key not in entry:
            return []
        value = entry[key]
        where = f"{place}.{key}"
        if isinstance(value, str):
            items = [(where, value)]
        elif isinstance(value, Sequence):
            items = [(f"{where}[{i}]", item) for i, item in enumerate(value)]
        else:
            # Also null: a list whose entries are all commented out means nothing that could be relied on.
            self.refuse(where, f"{_shown(value)} is no text", "write a text or a list of texts, or remove the key")
            return []
        for here, item in items:
            if not isinstance(item, str) or not item.strip():
                self.refuse(here, f"{_shown(item)} is no text", "write one, in quotes if it looks like something else")
        return [(here, item) for here, item in items if isinstance(item, str) and item.strip()]


def _shown(value: object) -> str:
    if value is None or value == "":
        return "nothing"
    return ascii(value)[:60] if isinstance(value, str | int | float | bool) else f"a {type(value).__name__}"
