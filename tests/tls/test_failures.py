"""`tls.failures`: OpenSSL's wording to our reasons."""

from __future__ import annotations

import pytest
from OpenSSL import SSL

from sidecar.tls.failures import translate


class TestTranslate:
    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("no shared cipher", "no_shared_cipher"),
            ("unsupported protocol", "unsupported_version"),
            ("no suitable key share", "no_shared_group"),
            ("no application protocol", "no_shared_alpn"),
            ("http request", "plain_http"),
            ("tlsv1 alert unknown ca", "client_rejects_our_ca"),
            ("ssl/tls alert certificate unknown", "client_rejects_our_certificate"),
            ("unexpected eof while reading", "closed_by_peer"),
        ],
        ids=str,
    )
    def test_known_text_has_its_reason(self, text: str, reason: str) -> None:
        """Each cause that an operator can act on has a token."""
        assert translate(SSL.Error([("SSL routines", "", text)])).reason == reason

    def test_any_entry_of_the_queue_counts(self) -> None:
        """The telling one need not be the first."""
        error = translate(SSL.Error([("a", "", "something odd"), ("SSL routines", "", "no shared cipher")]))
        assert (error.reason, str(error)) == ("no_shared_cipher", "no shared cipher")

    @pytest.mark.parametrize("args", [(), ([],), ("text",), (-1, "x")], ids=repr)
    def test_odd_errors_do_not_raise(self, args: tuple[object, ...]) -> None:
        """Whatever pyOpenSSL raises becomes an error of ours."""
        error = translate(SSL.Error(*args))
        assert (error.reason, str(error)) == ("protocol_error", "TLS protocol error")

    def test_unknown_text_is_kept(self) -> None:
        """The first text is for the log."""
        error = translate(SSL.Error([("SSL routines", "", "brand new reason")]))
        assert (error.reason, str(error)) == ("protocol_error", "brand new reason")

    def test_system_error_is_a_closed_connection(self) -> None:
        """An end of file inside a handshake is the peer's."""
        assert translate(SSL.SysCallError(-1, "Unexpected EOF")).reason == "closed_by_peer"
