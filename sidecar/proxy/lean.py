"""
Imports Twisted's reactor, pyOpenSSL and cryptography without what comes with them and is used by nobody here.

`twisted.internet.defer` wants three names of asyncio, `twisted.python.compat` passes `http.cookiejar` on to programs
that once ran on Python 2, Twisted's own TLS brings half of its protocols along, `cryptography.x509` wants one function
of the email package, and compiles patterns for names that are given as text. `typing_extensions` is there
for type checkers, and cryptography reads keys of SSH, too. Together that is a fifth of a start.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import re
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any, Final, TypeVar

_T = TypeVar("_T")


def _late(module: str, name: str) -> Callable[..., object]:
    """Return a function that imports the one it stands for when it is called."""

    def call(*args: object, **kwargs: object) -> object:
        function: Callable[..., object] = getattr(importlib.import_module(module), name)
        return function(*args, **kwargs)

    return call


def _type_variable(name: str, *constraints: object, default: object = None, **named: Any) -> object:
    """Return a type variable; defaults, which `typing` has from Python 3.13 on, are for type checkers."""
    return typing.TypeVar(name, *constraints, **named)


def _unmarked(_message: str) -> Callable[[_T], _T]:
    """Mark nothing as deprecated; we call nothing that is."""
    return lambda marked: marked


_SSH: Final = "cryptography.hazmat.primitives.serialization.ssh"
_SSH_TYPES: Final = (
    *("SSHCertPrivateKeyTypes", "SSHCertPublicKeyTypes", "SSHCertificate", "SSHCertificateBuilder"),
    *("SSHCertificateType", "SSHPrivateKeyTypes", "SSHPublicKeyTypes"),
)
_SSH_FUNCTIONS: Final = (
    "load_ssh_private_key",
    "load_ssh_public_identity",
    "load_ssh_public_key",
    "ssh_key_fingerprint",
)
_TYPING: Final = ("Concatenate", "ParamSpec", "Self", "TypeAlias", "TypedDict")

STAND_INS: Final[Mapping[str, Mapping[str, object]]] = {
    "asyncio": {"AbstractEventLoop": object, "Future": object, "iscoroutine": _late("asyncio", "iscoroutine")},
    _SSH: {**dict.fromkeys(_SSH_TYPES, object), **{name: _late(_SSH, name) for name in _SSH_FUNCTIONS}},
    "email.utils": {"parseaddr": _late("email.utils", "parseaddr")},
    "html": {"escape": _late("html", "escape")},
    "http.cookiejar": {},
    "typing_extensions": {
        **{name: getattr(typing, name) for name in _TYPING},
        "TypeVar": _type_variable,
        "deprecated": _unmarked,
    },
}
"""Modules that are imported for little, or for nothing, and what is wanted of them: types only for annotations."""

LATE: Final = ("twisted.internet.process", "twisted.internet.udp", "twisted.internet.unix")
"""Modules with what our reactor is never asked for; whoever does ask it loads them."""

ABSENT: Final = ("twisted.internet._newtls", "twisted.internet.ssl", "twisted.protocols.tls")
"""Modules without which Twisted does, where there is no pyOpenSSL; we speak TLS by our own."""

PATTERNS_OF: Final = "cryptography.x509.name"
"""The module whose patterns are compiled at their first use: one of them is as dear as twenty of ours."""

_WANTED: Final = (
    "cryptography.x509",
    "cryptography.hazmat.primitives.serialization",
    "OpenSSL.SSL",
    "twisted.internet.posixbase",
)


def import_libraries() -> None:
    """Import them, before anything else does; who wants what is left out here can import that afterwards."""
    try:
        instead = {
            **{name: _stand_in(name) for name in STAND_INS},
            **{name: LateModule(name) for name in LATE},
            **dict.fromkeys(ABSENT),
        }
        with _left_out(instead), _late_patterns():
            for name in _WANTED:
                importlib.import_module(name)
    except (ImportError, TypeError):  # a release that wants more of them
        for name in _WANTED:
            importlib.import_module(name)


class LateModule(ModuleType):
    """A module that is loaded when something in it is used; for importers that do so after they are loaded."""

    def __getattr__(self, name: str) -> Any:
        module = importlib.import_module(self.__name__)
        if module is self:
            raise AttributeError(f"{self.__name__}.{name} is wanted too early")
        return getattr(module, name)


def _stand_in(name: str) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(STAND_INS[name])
    return module


@contextlib.contextmanager
def _left_out(instead: Mapping[str, ModuleType | None]) -> Iterator[None]:
    """Let imports find these; None: that there is no such module. What is loaded already stays."""
    absent = {name: module for name, module in instead.items() if name not in sys.modules}
    known: dict[str, ModuleType | None] = sys.modules  # type: ignore[assignment]  # None is documented, not annotated
    known.update(absent)
    try:
        yield
    finally:
        for name, module in absent.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


class LatePattern:
    """A pattern that is compiled when it is used; for a module that only calls its methods."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self._make = functools.partial(re.compile, *arguments, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._make(), name)  # `re` remembers what it has compiled


@contextlib.contextmanager
def _late_patterns() -> Iterator[None]:
    """Let the module of `PATTERNS_OF` have late patterns; all others get theirs as ever."""
    compile_now = re.compile

    def compile_late(*arguments: Any, **named: Any) -> Any:
        is_late = sys._getframe(1).f_globals.get("__name__") == PATTERNS_OF
        return (LatePattern if is_late else compile_now)(*arguments, **named)

    replaced: Any = re
    replaced.compile = compile_late
    try:
        yield
    finally:
        replaced.compile = compile_now
