"""`certs.pkcs12`: what clients import."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.serialization import pkcs12

from sidecar.certs.pkcs12 import pkcs12_file
from tests.support.certs import CLIENT, authority


class TestPkcs12File:
    @pytest.mark.parametrize(("modern", "oid"), [(False, "2a864886f70d010c0103"), (True, "60864801650304012a")])
    def test_it_is_encrypted_as_asked(self, modern: bool, oid: str) -> None:
        """By default with what everything reads, PBE-SHA1-3DES; or else with AES-256."""
        made = authority().issue("ci", purposes=CLIENT)
        packed = pkcs12_file("ci", made.certificate, made.key, [authority().certificate], b"secret", modern=modern)
        assert bytes.fromhex(oid) in packed
        opened = pkcs12.load_pkcs12(packed, b"secret")
        assert opened.cert == pkcs12.PKCS12Certificate(made.certificate, b"ci")
        assert [other.certificate for other in opened.additional_certs] == [authority().certificate]
