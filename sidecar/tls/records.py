"""
TLS records over memory BIOs: ciphertext in, plaintext out, and back. No transport, no clock.

One contract, `Records`, by pyOpenSSL's public calls. `fastpath.DirectRecords` is the same contract with fewer calls;
`fastpath.records_on` picks it where it is available. The same tests run over both.
"""

from __future__ import annotations

from typing import Final

from OpenSSL import SSL

from sidecar.errors import TlsError
from sidecar.tls.failures import translate

READ_SIZE: Final = 65_536
"""Most bytes asked of OpenSSL in one call; a record holds at most 16,384."""

MAX_UNSENT_BYTES: Final = 4_096
"""
What reading may leave to be sent. OpenSSL answers some records by itself (KeyUpdate, an attempt to renegotiate), and a
peer that sends nothing else must not make us collect answers for it without end. A KeyUpdate takes 27 bytes.
"""


class Records:
    """One TLS connection, in either role."""

    __slots__ = ("_unsent", "connection")

    def __init__(self, connection: SSL.Connection) -> None:
        """
        Args:
            connection: Made without a socket, so that it works on memory BIOs; it knows its role.
        """
        self.connection = connection
        self._unsent = b""  # answers of OpenSSL that go out with the next data

    def handshake(self, data: bytes) -> bool:
        """
        Go on with the handshake; call `take` afterwards, also after an error, for what is to be sent.

        Args:
            data: From the peer; b"" to begin as a client.

        Returns:
            True once it is complete. Plaintext that came in the same bytes, if `may_hold_more`, is then read by
            ``open(b"")``.

        Raises:
            TlsError: It failed.
        """
        try:
            if data:
                self.connection.bio_write(data)
            self.connection.do_handshake()
        except SSL.WantReadError:
            return False
        except SSL.Error as error:
            raise translate(error) from None
        return True

    def may_hold_more(self) -> bool:
        """Whether something may have come behind the end of the handshake that `open` has not seen."""
        return True  # pyOpenSSL does not tell

    def open(self, data: bytes) -> tuple[bytes, bool]:
        """
        Decrypt.

        Returns:
            (plaintext, ended): what the bytes complete; True once the peer has sent close_notify.

        Raises:
            TlsError: A record is not authentic or breaks the protocol, or too many were such that OpenSSL answers them
                by itself. `take` has the alert.
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
        self._unsent = self.take()
        if len(self._unsent) > MAX_UNSENT_BYTES:
            raise too_many_answers()
        return b"".join(pieces), ended

    def seal(self, data: bytes) -> bytes | memoryview:
        """
        Encrypt *data*, which must not be empty, and return it with whatever else is to be sent.

        Returns:
            Bytes, or a view that is good until anything else is sealed, on any connection: send it at once, and copy
            what has to wait, as `ByteTransport.write` does.

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
        pieces = [self._unsent]
        self._unsent = b""
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


def too_many_answers() -> TlsError:
    """Return the error for `MAX_UNSENT_BYTES`."""
    return TlsError("control_flood", "the peer sends records that call for an answer, and does not wait for any")
