"""The settings under check: what rules between them look at, and how they say what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime

import attrs

from sidecar.config.load import Loaded
from sidecar.config.names import DEFAULT, SETTINGS
from sidecar.config.topology import Reading
from sidecar.errors import Problem
from sidecar.settings import ClientCertMode
from sidecar.values import Value


@attrs.frozen(eq=False, repr=False)
class Case(Value):
    """
    Attributes:
        now: The moment that certificates must be valid at.
        reading: What `config.topology` made of the settings.
        resolve: Says whether a host name has an address; None: names are not looked up.
    """

    loaded: Loaded
    now: datetime
    reading: Reading
    resolve: Callable[[str], bool] | None = None

    def has(self, *names: str) -> bool:
        """Whether the values of all *names* are known."""
        return all(name in self.loaded.sources for name in names)

    def is_given(self, name: str) -> bool:
        """Whether a setting has another value than the default."""
        setting = SETTINGS[name]
        return self.has(name) and bool(setting.of(self.loaded.settings) != setting.default)

    @property
    def asking(self) -> str:
        """The setting by which clients are asked for a certificate, if one does."""
        client, downstream = self.loaded.settings.client, self.loaded.settings.downstream
        if client.cert is not ClientCertMode.NONE:
            return "client_cert"
        if client.rules:
            return "client_rules"
        return "listeners" if downstream.listeners else "virtual_hosts"

    def problem(self, name: str, fact: str, fix: str, beside: str | None = None) -> Problem:
        """
        A problem with setting *name*, named as the operator wrote it, or wrote *beside* it if it is not set.

        Either may also be a place within a structured setting.
        """
        if name not in SETTINGS:
            return Problem(name, self.loaded.source_of(name), fact, fix)
        source = self.loaded.sources[name]
        style = self.loaded.sources[beside] if beside in SETTINGS and source == DEFAULT else source
        return Problem(SETTINGS[name].written_in(style), source, fact, fix)

    def written(self, name: str, beside: str) -> str:
        """How *name* is called where *beside* was set; a place is called the same everywhere."""
        if name not in SETTINGS:
            return name
        return SETTINGS[name].written_in(self.loaded.source_of(beside))


Rule = Callable[[Case], Iterator[Problem]]
"""Finds what is wrong."""
