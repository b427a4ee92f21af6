"""`certs.purposes`: what a certificate is good for, in words."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from sidecar.certs.purposes import kind_of, purposes
from tests.support.certs import CLIENT, SERVER, Issued, authority, intermediate

ODD = x509.ObjectIdentifier("1.2.3")


class TestKindOf:
    @pytest.mark.parametrize(
        ("make", "kind"),
        [
            pytest.param(lambda: authority(), "root CA certificate", id="root"),
            pytest.param(lambda: intermediate(), "intermediate CA certificate", id="intermediate"),
            pytest.param(lambda: authority().issue("a"), "server certificate", id="server"),
            pytest.param(lambda: authority().issue("a", purposes=CLIENT), "client certificate", id="client"),
            pytest.param(
                lambda: authority().issue("a", purposes=[*CLIENT, *SERVER]), "server and client certificate", id="both"
            ),
            pytest.param(lambda: authority().issue("a", purposes=None), "certificate for any purpose", id="no-usage"),
            pytest.param(
                lambda: authority().issue("a", purposes=[ExtendedKeyUsageOID.CODE_SIGNING]),
                "certificate that is neither for servers nor clients",
                id="code",
            ),
        ],
    )
    def test_purpose_is_in_words(self, make: Callable[[], Issued], kind: str) -> None:
        """The title says what a certificate is good for."""
        assert kind_of(make().certificate) == kind


class TestPurposes:
    @pytest.mark.parametrize(
        ("make", "words"),
        [
            pytest.param(lambda: authority(), "issuing certificates, any depth", id="ca"),
            pytest.param(lambda: authority().issue("a", purposes=[*CLIENT, *SERVER]), "client, server", id="both"),
            pytest.param(lambda: authority().issue("a", purposes=None), "any (no extended key usage)", id="none"),
            pytest.param(lambda: authority().issue("a", purposes=[ODD]), "1.2.3", id="odd"),
        ],
    )
    def test_all_are_listed(self, make: Callable[[], Issued], words: str) -> None:
        """Those without a name by their number."""
        assert purposes(make().certificate) == words
