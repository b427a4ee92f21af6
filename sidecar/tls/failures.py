"""OpenSSL's error queue to our reasons: the one place that knows its wording."""

from __future__ import annotations

from typing import Final

from OpenSSL import SSL

from sidecar.errors import TlsError

# OpenSSL's reason strings, as in its ssl/ssl_err.c. pyOpenSSL hands out the strings, not the numbers.
_REASONS: Final = {
    "no shared cipher": "no_shared_cipher",
    "no suitable signature algorithm": "no_shared_cipher",
    "no shared signature algorithms": "no_shared_cipher",
    "no suitable key share": "no_shared_group",
    "unsupported protocol": "unsupported_version",
    "version too low": "unsupported_version",
    "wrong version number": "unsupported_version",
    "no application protocol": "no_shared_alpn",
    "peer did not return a certificate": "client_certificate_missing",
    "certificate verify failed": "client_certificate_invalid",
    "http request": "plain_http",
    "https proxy request": "plain_http",
    "ssl/tls alert unknown ca": "client_rejects_our_ca",
    "tlsv1 alert unknown ca": "client_rejects_our_ca",
    "ssl/tls alert bad certificate": "client_rejects_our_certificate",
    "sslv3 alert bad certificate": "client_rejects_our_certificate",
    "ssl/tls alert certificate unknown": "client_rejects_our_certificate",
    "sslv3 alert certificate unknown": "client_rejects_our_certificate",
    "ssl/tls alert certificate expired": "client_rejects_our_certificate",
    "sslv3 alert certificate expired": "client_rejects_our_certificate",
    "tlsv1 alert protocol version": "unsupported_version",
    "unexpected eof while reading": "closed_by_peer",
}


def translate(error: SSL.Error) -> TlsError:
    """
    Turn what pyOpenSSL raised into our error.

    Args:
        error: Its first argument is a list of (library, function, reason) strings, oldest first; empty for an end of
            file.
    """
    if isinstance(error, SSL.SysCallError):
        return TlsError("closed_by_peer", "the peer closed the connection")
    queue = error.args[0] if error.args and isinstance(error.args[0], list) else []
    texts = [entry[2] for entry in queue]
    for text in texts:
        if text in _REASONS:
            return TlsError(_REASONS[text], text)
    return TlsError("protocol_error", texts[0] if texts else "TLS protocol error")
