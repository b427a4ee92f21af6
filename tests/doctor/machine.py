"""A machine of which everything is known."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import attrs

from sidecar.doctor.app import Answer, Spoken
from sidecar.doctor.looking import Machine
from sidecar.doctor.ports import Binding
from sidecar.settings import HostPort, UnixPath

LOOPBACK_8080 = "header\n0: 0100007F:1F90 00000000:0000 0A\n"


@attrs.define
class KnownMachine(Machine):
    """
    Files of key material are looked at for real; the rest is as given.

    Attributes:
        texts: What stands in /proc.
        pages: Bodies of our own pages, by path without query.
        answer: Of the app.
        bindings: By port; others are free.
        time: What a web server tells.
        asked: Addresses that the app was looked for at.
    """

    texts: Mapping[str, str] = attrs.field(factory=dict)
    pages: Mapping[str, bytes] = attrs.field(factory=dict)
    answer: Answer = attrs.field(default=Answer(Spoken.HTTP, 200))
    bindings: Mapping[int, Binding] = attrs.field(factory=dict)
    time: datetime | str = "nobody was asked"
    asked: list[tuple[str, bytes, Spoken, bool]] = attrs.field(factory=list)

    def text(self, path: str) -> str:
        return self.texts.get(path, "")

    def exists(self, path: str) -> bool:
        return path in self.texts

    def binding(self, address: HostPort) -> Binding:
        return self.bindings.get(address.port, Binding.FREE)

    def page(self, address: HostPort, path: str) -> bytes | None:
        return self.pages.get(path.partition("?")[0])

    def ask(self, address: HostPort | UnixPath, first: bytes, wanted: Spoken, *, is_http: bool) -> Answer:
        self.asked.append((str(address), first, wanted, is_http))
        return self.answer

    def clock(self, address: HostPort) -> datetime | str:
        return self.time
