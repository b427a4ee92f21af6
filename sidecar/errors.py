"""
Every exception class of the project.

Whose fault it is, is in the class; what to answer with is on the class. Text is for people: decisions look at
the class and its attributes, never at the message.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from sidecar.values import Value

EXIT_CONFIG = 78
"""Exit status for settings or key material that cannot work (EX_CONFIG of sysexits.h): a restart will not help."""


class SidecarError(Exception):
    """Base of everything that this package raises on purpose."""


# -- start-up: the operator's fault -----------------------------------------------------------------------------


@attrs.frozen(eq=False, repr=False)
class Problem(Value):
    """
    One thing that is wrong with the settings.

    Attributes:
        setting: What the operator wrote or should write, e.g. ``SIDECAR_TLS_KEY``.
        source: Where the value came from: ``environment``, ``--tls-key``, ``FILE:LINE``, ``default``.
        fact: What is wrong, with the value and the limit.
        fix: What to do about it.
    """

    setting: str
    source: str
    fact: str
    fix: str

    def __str__(self) -> str:
        return f"{self.setting} ({self.source}): {self.fact}; {self.fix}"


class ConfigError(SidecarError):
    """The settings cannot work. Carries *all* problems found, so that one round of mending is enough."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


class MaterialError(SidecarError):
    """
    A certificate, key, CA bundle, revocation list or passphrase cannot be used.

    Attributes:
        role: Which of them is wrong: ``cert``, ``key``, ``ca``, ``crl`` or ``passphrase``; the caller knows which
            setting that is.
        fact: What is wrong, naming the file; never any key material.
        fix: What to do about it.
    """

    def __init__(self, role: str, fact: str, fix: str) -> None:
        super().__init__(f"{fact}; {fix}")
        self.role = role
        self.fact = fact
        self.fix = fix


class ListenError(SidecarError):
    """
    A listening socket cannot be opened.

    Attributes:
        fact: Address and the operating system's reason.
        fix: What to do about it.
    """

    def __init__(self, fact: str, fix: str) -> None:
        super().__init__(f"{fact}; {fix}")
        self.fact = fact
        self.fix = fix


# -- protocol: a peer's fault -----------------------------------------------------------------------------------


class ProtocolError(SidecarError):
    """
    A peer sent something that HTTP does not allow or that is over a limit.

    Attributes:
        reason: Short token for logs and metrics, e.g. ``header_too_large``.
        status: What the downstream client is answered with.
    """

    status = 400

    def __init__(self, reason: str, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        if status is not None:
            self.status = status


class RequestError(ProtocolError):
    """The downstream client's fault: answered with 400 or the status given, then its connection closes."""

    status = 400


class ResponseError(ProtocolError):
    """The app's fault: answered with 502 if nothing was sent yet, else the downstream connection is aborted."""

    status = 502


class ProxyHeaderError(SidecarError):
    """
    What a connection begins with is a header of the PROXY protocol, and not a valid one; nothing behind it is read.

    Attributes:
        reason: Short token for logs and metrics, e.g. ``bad_checksum``.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class TlsError(SidecarError):
    """
    TLS with the downstream peer failed; the connection cannot go on.

    Attributes:
        reason: Short token for logs and metrics, e.g. ``no_shared_cipher``.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
