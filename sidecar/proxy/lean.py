"""
Imports Twisted's reactor without two modules that come with it and are used by nobody here.

`twisted.python.compat` passes `http.cookiejar` on to programs that once ran on Python 2, with urllib.request and
http.client behind it; the reactor keeps `twisted.internet.ssl` for where there is no `twisted.protocols.tls`, with
service_identity behind it. Together they are a tenth of the CPU time of a start, and 2.5 MB.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Final

UNUSED: Final = ("http.cookiejar", "twisted.internet.ssl")


def import_reactor() -> None:
    """Import it, before anything else imports Twisted; who wants what is left out here can import that afterwards."""
    absent = [name for name in UNUSED if name not in sys.modules]
    sys.modules.update((name, ModuleType(name)) for name in absent)
    try:
        importlib.import_module("twisted.internet.posixbase")
    finally:
        for name in absent:
            del sys.modules[name]
