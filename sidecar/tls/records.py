"""
TLS records over memory BIOs: ciphertext in, plaintext out, and back. No transport, no clock.

One contract, `Records`, by pyOpenSSL's public calls. `fastpath.DirectRecords` is the same contract with fewer calls;
`fastpath.records_for` picks it where it is available. The same tests run over both.
"""

from __future__ import annotations

from typing import Final

from OpenSSL import SSL

from sidecar.tls.failures import translate

READ_SIZE: Final = 65_536
"""Most bytes asked of OpenSSL in one call; a record holds at most 16,384."""


class Records:
    """One TLS connection in the server role."""

    __slots__ = ("connection",)

    def __init__(self, connection: SSL.Connection) -> None:
        """
        Args:
            connection: Made without a socket, so that it works on memory BIOs.
        """
        connection.set_accept_state()
        self.connection = connection

    def handshake(self, data: bytes) -> bool:
        """
        Go on with the handshake; call `take` afterwards, also after an error, for what is to be sent.

        Returns:
            True once it is complete. Plaintext that came in the same bytes is then read by ``open(b"")``.

        Raises:
            TlsError: It failed.
        """
        try:
            self.connection.bio_write(data)
            self.connection.do_handshake()
        except SSL.WantReadError:
            return False
        except SSL.Error as error:
            raise translate(error) from None
        return True

    def open(self, data: bytes) -> tuple[bytes, bool]:
        """
        Decrypt.

        Returns:
            (plaintext, ended): what the bytes complete; True once the peer has sent close_notify.

        Raises:
            TlsError: A record is not authentic or breaks the protocol. `take` has the alert.
        """
        pieces: list[bytes] = []
        ended = False
        try:
            if data:
                self.connection.bio_write(data)
            while True:
                pieces.append(self.connection.recv(READ_SIZE))
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:
            ended = True
        except SSL.Error as error:
            raise translate(error) from None
        return b"".join(pieces), ended

    def seal(self, data: bytes) -> bytes:
        """
        Encrypt *data*, which must not be empty, and return it with whatever else is to be sent.

        Raises:
            TlsError: The connection is no longer able to send.
        """
        try:
            self.connection.sendall(data)
        except SSL.Error as error:
            raise translate(error) from None
        return self.take()

    def take(self) -> bytes:
        """Return the ciphertext that is to be sent: handshake messages, alerts, records."""
        pieces: list[bytes] = []
        try:
            while True:
                pieces.append(self.connection.bio_read(READ_SIZE))
        except SSL.WantReadError:
            pass
        return b"".join(pieces)

    def close(self) -> bytes:
        """Return what says that nothing more will be sent (close_notify, RFC 8446 section 6.1)."""
        try:
            self.connection.shutdown()
        except SSL.Error:
            return b""  # in the middle of a handshake, or broken: there is nobody to say it to
        return self.take()
