"""
TLS records sealed by hand, as a client that no TLS library would be: any kind of record, any number of times.

The handshake is OpenSSL's; its secrets are then taken out of it.
"""

from __future__ import annotations

import hashlib
import hmac
import struct

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from OpenSSL import SSL

from .handshake import TLS12, TLS13, client_context

HANDSHAKE = 22
APPLICATION_DATA = 23

KEY_UPDATE = b"\x18\x00\x00\x01\x01"
"""A KeyUpdate that asks for one in return (RFC 8446 section 4.6.3)."""

CLIENT_HELLO = b"\x01\x00\x00\x00"
"""The least that OpenSSL takes for an attempt to renegotiate, before it looks into it."""


class ForgingClient:
    """
    A TLS client whose records are forged once it has shaken hands.

    Attributes:
        connection: Works on memory BIOs. It does the handshake and reads; nothing else may be sent through it.
    """

    def __init__(self, version: int) -> None:
        """
        Args:
            version: TLS12 or TLS13.
        """
        context = client_context(version=version, alpn=[b"http/1.1"])
        if version == TLS12:
            context.set_cipher_list(b"ECDHE+AESGCM")
        context.set_keylog_callback(self._note_secret)
        self.connection = SSL.Connection(context, None)
        self.connection.set_tlsext_host_name(b"localhost")
        self.connection.set_connect_state()
        self._version = version
        self._secret = b""
        self._aead: AESGCM | None = None
        self._salt = b""
        self._count = 0

    def forge(self, data: bytes, kind: int = APPLICATION_DATA) -> bytes:
        """Return *data* as a record of this *kind*."""
        if self._aead is None:
            self._take_keys()
        assert self._aead is not None
        number = struct.pack(">Q", self._count)
        self._count += 1
        if self._version == TLS13:
            nonce = bytes(a ^ b for a, b in zip(self._salt, b"\0\0\0\0" + number, strict=True))
            header = struct.pack(">BHH", APPLICATION_DATA, 0x0303, len(data) + 1 + 16)
            return header + self._aead.encrypt(nonce, data + bytes([kind]), header)
        sealed = self._aead.encrypt(self._salt + number, data, number + struct.pack(">BHH", kind, 0x0303, len(data)))
        return struct.pack(">BHH", kind, 0x0303, len(number + sealed)) + number + sealed

    def forge_question(self) -> bytes:
        """Return a record that OpenSSL answers by itself: a KeyUpdate, or (in TLS 1.2) an attempt to renegotiate."""
        if self._version == TLS12:
            return self.forge(CLIENT_HELLO, HANDSHAKE)
        record = self.forge(KEY_UPDATE, HANDSHAKE)
        self._set_secret(self._expand(self._secret, b"traffic upd", self._hash().digest_size))
        return record

    def _note_secret(self, connection: SSL.Connection, line: bytes) -> None:
        label, _, secret = line.split(b" ")
        if label == b"CLIENT_TRAFFIC_SECRET_0":
            self._secret = bytes.fromhex(secret.decode())

    def _take_keys(self) -> None:
        if self._version == TLS13:
            self._set_secret(self._secret)
            return
        seed = b"key expansion" + (self.connection.server_random() or b"") + (self.connection.client_random() or b"")
        block = self._prf(self.connection.master_key() or b"", seed, 2 * self._key_size() + 8)
        self._aead = AESGCM(block[: self._key_size()])
        self._salt = block[2 * self._key_size() :][:4]
        self._count = 1  # Finished was the first

    def _set_secret(self, secret: bytes) -> None:
        self._secret = secret
        self._aead = AESGCM(self._expand(secret, b"key", self._key_size()))
        self._salt = self._expand(secret, b"iv", 12)
        self._count = 0

    def _cipher(self) -> str:
        name = self.connection.get_cipher_name()
        assert name is not None
        assert "GCM" in name
        return name

    def _key_size(self) -> int:
        return 32 if "256_GCM" in self._cipher() or "256-GCM" in self._cipher() else 16

    def _hash(self) -> hashlib._Hash:
        return hashlib.sha384() if self._cipher().endswith("384") else hashlib.sha256()

    def _hmac(self, key: bytes, data: bytes) -> bytes:
        return hmac.digest(key, data, self._hash().name)

    def _expand(self, secret: bytes, label: bytes, size: int) -> bytes:
        """HKDF-Expand-Label (RFC 8446 section 7.1) of an empty context, to no more than one block."""
        label = b"tls13 " + label
        return self._hmac(secret, struct.pack(">HB", size, len(label)) + label + b"\0\1")[:size]

    def _prf(self, secret: bytes, seed: bytes, size: int) -> bytes:
        """RFC 5246 section 5."""
        block, state = b"", seed
        while len(block) < size:
            state = self._hmac(secret, state)
            block += self._hmac(secret, state + seed)
        return block[:size]
