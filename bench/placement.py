"""What one instance of a proxy is asked to be: where it lives, what it does there, and how it is started."""

from __future__ import annotations

import enum
from pathlib import Path

import attrs

from bench.certificate import CertificateFiles


class Mode(enum.Enum):
    """
    What a proxy makes of what is inside TLS, HTTP/2 or HTTP/1.1 as ALPN has it.

    It forwards requests over HTTP/1.1, or over HTTP/2 in the clear, or passes bytes on without looking at them.
    """

    HTTP = "http"
    GRPC = "grpc"
    TCP = "tcp"


class ClientCertificates(enum.Enum):
    """What a proxy does about client certificates: each includes what the one before it does."""

    NONE = "none"
    REQUIRED = "required"
    TOLD = "told to the app"


@attrs.frozen(kw_only=True)
class Setup:
    """
    What one instance of a proxy is asked to do: all that differs between rows.

    Attributes:
        is_logging: Whether it writes a line of JSON per request to standard output.
        workers: Processes or threads that serve.
        is_spread: Whether it may use the load generator's core beside its own.
        connections: How many clients' it must be able to hold; for those that would refuse more by their
            configuration, and not by their default.
    """

    mode: Mode = Mode.HTTP
    clients: ClientCertificates = ClientCertificates.NONE
    is_logging: bool = False
    workers: int = 1
    is_spread: bool = False
    connections: int = 4_000


@attrs.frozen(kw_only=True)
class Placement:
    """Where one instance of a proxy lives (folder, ports, certificates, the app's port), and what it does there."""

    folder: Path
    port: int
    admin_port: int
    app_port: int
    certificate: CertificateFiles
    setup: Setup = Setup()

    @property
    def mode(self) -> Mode:
        """What it makes of what is inside TLS."""
        return self.setup.mode

    @property
    def is_relay(self) -> bool:
        """Whether bytes are only passed on."""
        return self.mode is Mode.TCP

    @property
    def is_logging(self) -> bool:
        """Whether it writes an access log."""
        return self.setup.is_logging

    @property
    def are_clients_verified(self) -> bool:
        """Whether clients must show a certificate of the run's client CA."""
        return self.setup.clients is not ClientCertificates.NONE

    @property
    def are_clients_told(self) -> bool:
        """Whether the app is to hear of the certificate; only what speaks HTTP can tell it."""
        return self.setup.clients is ClientCertificates.TOLD


@attrs.frozen(kw_only=True)
class StartLine:
    """How to start a proxy: arguments after the program, and what it wants in its environment."""

    arguments: list[str]
    environment: dict[str, str] = attrs.Factory(dict)
