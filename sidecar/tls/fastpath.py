"""
The contract of `records.Records` with fewer calls and copies.

pyOpenSSL's wrappers allocate a buffer for each call and raise an exception whenever a memory BIO runs dry. Here the
same OpenSSL functions are called through the same bindings with one preallocated buffer each way. Why a handshake
failed is left to pyOpenSSL to say, which knows what our callbacks raised.

The private names of pyOpenSSL that this takes are looked for at import; where an installation lacks one,
`IS_AVAILABLE` is False and the public calls serve.
"""

from __future__ import annotations

from typing import Any, Final

from OpenSSL import SSL

from sidecar.errors import TlsError
from sidecar.tls.failures import translate
from sidecar.tls.records import MAX_UNSENT_BYTES, Records, too_many_answers

_lib: Any = getattr(SSL, "_lib", None)
_ffi: Any = getattr(SSL, "_ffi", None)
_raise_queued: Any = getattr(SSL, "_raise_current_error", None)

_NEEDED: Final = (
    "BIO_get_mem_data",
    "BIO_new",
    "BIO_new_mem_buf",
    "BIO_read",
    "BIO_s_mem",
    "BIO_set_mem_eof_return",
    "BIO_write",
    "ERR_clear_error",
    "SSL_do_handshake",
    "SSL_get_error",
    "SSL_read",
    "SSL_shutdown",
    "SSL_set_bio",
    "SSL_want_read",
    "SSL_write",
)

# Not Final, so that tests can change it also where this module is compiled.
IS_AVAILABLE: bool = (
    _raise_queued is not None
    and all(hasattr(_lib, name) for name in _NEEDED)
    and all(
        hasattr(SSL.Connection(SSL.Context(SSL.TLS_SERVER_METHOD), None), name)
        for name in ("_ssl", "_into_ssl", "_from_ssl", "_raise_ssl_error")
    )
)

if IS_AVAILABLE:
    # One of each for the process: both are emptied before control goes anywhere else, but for what `seal` lends of
    # the second. A record holds 16,384 bytes.
    _RECORD_SIZE: Final = 16_384
    _PLAIN_SIZE: Final = 36 * _RECORD_SIZE  # the most that a transport reads at once, and what is decided below
    _PLAIN: Final = _ffi.new("char[]", _PLAIN_SIZE)
    _PLAIN_VIEW: Final = _ffi.buffer(_PLAIN)
    # A memory BIO keeps, for as long as its connection lives, the memory of the most that it ever held. So it never
    # holds more than this, which is two records: four would make a transfer 5 % cheaper and twice as much be kept.
    _PIECE_SIZE: Final = 32_768
    # What is opened at once of that which is not copied there. After each, what OpenSSL answers by itself is counted.
    _BORROWED_SIZE: Final = 131_072
    _OVERHEAD: Final = 2 * MAX_UNSENT_BYTES  # headers and tags of the records, and answers that go out with them
    # The most that a transport reads at once, framed as a chunk and sealed, and room for a piece behind it.
    _SEALED_SIZE: Final = 573_440
    _SEALED: Final = _ffi.new("char[]", _SEALED_SIZE)
    _SEALED_VIEW: Final = _ffi.buffer(_SEALED)
    _SEALED_BYTES: Final = memoryview(_SEALED_VIEW)
    _HEADER_SIZE: Final = 5
    _RECORD_OVERHEAD: Final = 32
    _NULL: Final = _ffi.NULL
    _bio_read: Final = _lib.BIO_read
    _bio_write: Final = _lib.BIO_write
    _bio_size: Final = _lib.BIO_get_mem_data
    _bio_on: Final = _lib.BIO_new_mem_buf
    _new_bio: Final = _lib.BIO_new
    _MEMORY: Final = _lib.BIO_s_mem()
    _set_bio: Final = _lib.SSL_set_bio
    _set_eof_return: Final = _lib.BIO_set_mem_eof_return
    _clear_errors: Final = _lib.ERR_clear_error
    _do_handshake: Final = _lib.SSL_do_handshake
    _ssl_error: Final = _lib.SSL_get_error
    _ssl_read: Final = _lib.SSL_read
    _ssl_shutdown: Final = _lib.SSL_shutdown
    _ssl_write: Final = _lib.SSL_write
    _WANT_READ: Final = _lib.SSL_ERROR_WANT_READ


class DirectRecords(Records):
    """One TLS connection, in either role, by direct calls."""

    __slots__ = ("_from_ssl", "_has_part", "_into_ssl", "_ssl")

    def __init__(self, connection: SSL.Connection) -> None:
        super().__init__(connection)
        private: Any = connection
        self._ssl = private._ssl
        self._into_ssl = private._into_ssl
        self._from_ssl = private._from_ssl
        self._has_part = True  # whether OpenSSL or the BIO may hold the beginning of a record

    def handshake(self, data: bytes) -> bool:
        if data:
            _bio_write(self._into_ssl, data, len(data))
        result = _do_handshake(self._ssl)  # it empties the thread's error queue first
        if result == 1:
            return True
        if _ssl_error(self._ssl, result) == _WANT_READ:
            return False
        private: Any = self.connection
        try:
            private._raise_ssl_error(self._ssl, result)
        except SSL.Error as error:
            raise translate(error) from None
        raise AssertionError("it always raises")

    def may_hold_more(self) -> bool:
        held: int = _bio_size(self._into_ssl, _NULL)
        return held > 0  # without read-ahead, OpenSSL takes exactly one record out of the BIO

    def open(self, data: bytes) -> tuple[bytes, bool]:
        into_ssl = self._into_ssl
        if data:
            if len(data) > _PIECE_SIZE:
                return self._open_where_it_lies(data)
            _bio_write(into_ssl, data, len(data))
        size: int = _ssl_read(self._ssl, _PLAIN, _RECORD_SIZE)
        if size <= 0:
            return b"", self._why_nothing(size)
        plaintext: bytes = _PLAIN_VIEW[:size]
        # What began with a record and is as long as its header says (RFC 8446 section 5.1) was that record alone.
        if not self._has_part and 256 * data[3] + data[4] + _HEADER_SIZE == len(data):
            return plaintext, False
        # Without read-ahead, OpenSSL takes exactly one record out of the BIO: an empty one means there is no more. One
        # record of data is at most 29 bytes longer than the data; if more came, another kind was among it.
        if not _bio_size(into_ssl, _NULL):
            self._has_part = False
            if len(data) - size > _RECORD_OVERHEAD:
                self._check_unsent()
            return plaintext, False
        pieces = [plaintext]
        while (size := _ssl_read(self._ssl, _PLAIN, _RECORD_SIZE)) > 0:
            pieces.append(_PLAIN_VIEW[:size])
        return b"".join(pieces), self._why_nothing(size)

    def _open_where_it_lies(self, data: bytes) -> tuple[bytes, bool]:
        """
        Open so much that the memory BIO is not to hold it, see `_PIECE_SIZE`.

        For as long as this takes, OpenSSL reads from *data* itself. It frees a BIO that is replaced, so there is a new,
        empty one afterwards; the beginning of a record that is not whole yet is in OpenSSL's own buffer then.
        """
        pieces: list[bytes] = []
        if _bio_size(self._into_ssl, _NULL):  # came behind the handshake, and goes before
            early, ended = self.open(b"")
            if ended:
                return early, True
            pieces.append(early)
        ssl, from_ssl = self._ssl, self._from_ssl
        start, size = _ffi.from_buffer(data), len(data)
        filled = 0
        ended = False
        try:
            for position in range(0, size, _BORROWED_SIZE):
                if filled + _BORROWED_SIZE + 2 * _RECORD_SIZE > _PLAIN_SIZE:
                    pieces.append(_PLAIN_VIEW[:filled])
                    filled = 0
                borrowed = _bio_on(start + position, min(_BORROWED_SIZE, size - position))
                _set_eof_return(borrowed, -1)  # at its end it asks for more, as a memory BIO does
                _set_bio(ssl, borrowed, from_ssl)
                while (got := _ssl_read(ssl, _PLAIN + filled, _RECORD_SIZE)) > 0:
                    filled += got
                ended = self._why_nothing(got)
                if ended:
                    break
        finally:
            private: Any = self.connection
            self._into_ssl = private._into_ssl = _new_bio(_MEMORY)
            _set_bio(ssl, self._into_ssl, from_ssl)
        plaintext: bytes = _PLAIN_VIEW[:filled]
        return b"".join((*pieces, plaintext)) if pieces else plaintext, ended

    def seal(self, data: bytes) -> bytes | memoryview:
        if len(data) > _PIECE_SIZE:
            return self._seal_in_pieces(data, len(data))
        written: int = _ssl_write(self._ssl, data, len(data))
        if written <= 0:
            raise self._cannot_send()
        size: int = _bio_read(self._from_ssl, _SEALED, _SEALED_SIZE)
        if size <= 0:
            raise self._cannot_send()
        sealed: bytes = _SEALED_VIEW[:size]
        return sealed if size < _SEALED_SIZE else sealed + self.take()

    def _seal_in_pieces(self, data: bytes, size: int) -> bytes | memoryview:
        """Seal so much that the memory BIO is to be emptied in between, see `_PIECE_SIZE`."""
        ssl, from_ssl = self._ssl, self._from_ssl
        start = _ffi.from_buffer(data)
        pieces: list[bytes] = []
        filled = 0
        for position in range(0, size, _PIECE_SIZE):
            if _ssl_write(ssl, start + position, min(_PIECE_SIZE, size - position)) <= 0:
                raise self._cannot_send()
            if filled + _PIECE_SIZE + _OVERHEAD > _SEALED_SIZE:
                pieces.append(_SEALED_VIEW[:filled])
                filled = 0
            got = _bio_read(from_ssl, _SEALED + filled, _SEALED_SIZE - filled)
            if got <= 0:
                raise self._cannot_send()
            filled += got
        if not pieces:
            return _SEALED_BYTES[:filled]
        pieces.append(_SEALED_VIEW[:filled])
        return b"".join(pieces)

    def take(self) -> bytes:
        size = _bio_read(self._from_ssl, _SEALED, _SEALED_SIZE)
        if size <= 0:
            return b""
        sealed: bytes = _SEALED_VIEW[:size]
        return sealed if size < _SEALED_SIZE else sealed + self.take()

    def close(self) -> bytes:
        if _ssl_shutdown(self._ssl) < 0:
            _clear_errors()
            return b""
        return self.take()

    def _check_unsent(self) -> None:
        if _bio_size(self._from_ssl, _NULL) > MAX_UNSENT_BYTES:
            raise too_many_answers()

    @staticmethod
    def _cannot_send() -> TlsError:
        _clear_errors()
        return TlsError("protocol_error", "the connection can no longer send")

    def _why_nothing(self, result: int) -> bool:
        """
        Tell why SSL_read returned no plaintext: True after close_notify, False while more bytes are needed.

        Raises:
            TlsError: The connection is broken.
        """
        # Not SSL_get_error first: it looks at the thread's error queue too, and what another call left there must not
        # end this connection.
        if _lib.SSL_want_read(self._ssl):
            self._has_part = True
            self._check_unsent()
            return False
        error = _queued_error()
        if _lib.SSL_get_error(self._ssl, result) == _lib.SSL_ERROR_ZERO_RETURN:
            return True
        raise error


def _queued_error() -> TlsError:
    """Empty the thread's error queue, and return what is in it as our error."""
    try:
        _raise_queued()
    except SSL.Error as error:
        return translate(error)
    raise AssertionError("it always raises")


def records_for(context: SSL.Context) -> Records:
    """Start a TLS connection in the server role, on the fast path where this installation has it."""
    connection = SSL.Connection(context, None)
    connection.set_accept_state()
    return records_on(connection)


def records_on(connection: SSL.Connection) -> Records:
    """Return the records of *connection*, as `Records` wants it, on the fast path where this installation has it."""
    return DirectRecords(connection) if IS_AVAILABLE else Records(connection)
