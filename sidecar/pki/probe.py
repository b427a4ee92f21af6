"""
A TLS handshake with a server, without any checks, to see what it has.

Everything that it takes is bounded: time, addresses tried, bytes read.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import TypeVar

import attrs
from cryptography import x509
from OpenSSL import SSL, crypto

from sidecar.errors import MaterialError

CONNECT_SECONDS = 5.0
"""For the connection, the handshake and a last look at it; the resolver has the system's own time limit."""

REFUSAL_SECONDS = 0.5
"""How long a server with TLS 1.3, where that comes after the handshake, has to refuse a client without certificate."""

MAX_HANDSHAKE_BYTES = 512 * 1024
"""OpenSSL takes a chain of up to 100 KiB."""

_Result = TypeVar("_Result")


@attrs.frozen
class Seen:
    """
    What a handshake without any checks has shown.

    Attributes:
        version: Of TLS; empty if the handshake did not end well.
        cipher: The same.
        is_certificate_asked: Whether a client certificate is asked for.
        client_certificate: The same in words, with what is known of the consequences.
        chain: The server's certificates in DER, as sent.
        error: Why it did not end well; empty if it did.
    """

    version: str
    cipher: str
    is_certificate_asked: bool
    client_certificate: str
    chain: tuple[bytes, ...]
    error: str


def probe(host: str, port: int, name: x509.GeneralName, target: str) -> Seen:
    """
    Connect to *host* and shake hands.

    Args:
        host: A name for the resolver, or an address; its addresses are tried in turn.
        port: Of TCP.
        name: What the server is asked for in SNI, if it is a DNS name.
        target: How messages call the server.

    Raises:
        MaterialError: With role ``cert``: it cannot be reached, or has no certificate to show.
    """
    deadline = time.monotonic() + CONNECT_SECONDS
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise MaterialError("cert", f"{host} has no address: {reason}", "correct the name") from None
    failure = ""
    for family, kind, protocol, _, address in addresses:
        with socket.socket(family, kind, protocol) as sock:
            try:
                sock.settimeout(_left(deadline))
                sock.connect(address)
                return Handshake(sock, deadline).look(name)
            except TimeoutError:
                failure = f"no answer within {CONNECT_SECONDS:g} s"
                break
            except OSError as error:
                failure = error.strerror or str(error)
    raise MaterialError("cert", f"{target}: {failure}", "check the address, and that a TLS server listens there")


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


class Handshake:
    """
    One handshake with a server, over memory BIOs so that the deadline holds for all of it and all is counted.

    Args:
        sock: Connected; stays with the caller.
        deadline: On the monotonic clock.
    """

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._socket = sock
        self._deadline = deadline
        self._received = 0
        self._is_asked = False
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_cipher_list(b"DEFAULT:@SECLEVEL=0")  # to see what is weak there, not to be kept from it
        context.set_verify(SSL.VERIFY_NONE)
        context.set_info_callback(self._note_state)
        self._connection = SSL.Connection(context, None)
        self._connection.set_connect_state()

    def look(self, name: x509.GeneralName) -> Seen:
        """Shake hands; raises OSError if the server has no certificate to show, TimeoutError past the deadline."""
        if isinstance(name, x509.DNSName):
            self._connection.set_tlsext_host_name(name.value.encode())
        error = ""
        try:
            self._run(self._connection.do_handshake)
        except SSL.Error as failure:
            error = _reason(failure)
        chain = self._connection.get_peer_cert_chain() or []
        if not chain:
            raise OSError(f"the TLS handshake failed: {error or 'the server has no certificate'}")
        asked = "not asked for"
        if self._is_asked:
            asked = "required" if error or self._is_refused() else "asked for (optional, or refused later)"
        version = "" if error else self._connection.get_protocol_version_name()
        cipher = self._connection.get_cipher_name() or ""
        return Seen(version, cipher, self._is_asked, asked, tuple(_der(found) for found in chain), error)

    def _note_state(self, connection: SSL.Connection, where: int, status: int) -> None:
        if b"read server certificate request" in connection.get_state_string():
            self._is_asked = True

    def _is_refused(self) -> bool:
        self._deadline = min(self._deadline, time.monotonic() + REFUSAL_SECONDS)
        try:
            self._run(lambda: self._connection.recv(1))
        except SSL.ZeroReturnError:
            return False
        except SSL.Error:
            return True
        except OSError:  # nothing came, or the connection went
            return False
        return False

    def _run(self, step: Callable[[], _Result]) -> _Result:
        while True:
            try:
                result = step()
            except SSL.WantReadError:
                self._send()
                self._receive()
            else:
                self._send()
                return result

    def _send(self) -> None:
        while True:
            try:
                data = self._connection.bio_read(65_536)
            except SSL.WantReadError:
                return
            self._socket.settimeout(_left(self._deadline))
            self._socket.sendall(data)

    def _receive(self) -> None:
        self._socket.settimeout(_left(self._deadline))
        data = self._socket.recv(16_384)
        self._received += len(data)
        if not data:
            raise OSError("the server closed the connection during the TLS handshake")
        if self._received > MAX_HANDSHAKE_BYTES:
            raise OSError(f"the server sent over {MAX_HANDSHAKE_BYTES:,} bytes and the TLS handshake is not done")
        self._connection.bio_write(data)


def _reason(error: Exception) -> str:
    """What OpenSSL says, e.g. ``wrong version number``: does the server speak TLS at all?"""
    queue = error.args[0] if error.args else ()
    return str(queue[0][2]) if isinstance(queue, list) and queue else "the connection was closed"


def _der(certificate: crypto.X509) -> bytes:
    return crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)
