"""`certs.parsing`: wholly, and without a word."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID

from sidecar.certs.parsing import PARSE_ERRORS, load_certificate, load_crl, load_request, quiet
from tests.support.certs import DAY, NOW, authority, der, ecdsa_key, revocation_list, signing_request

LEAF = authority().issue("a.example").certificate


class TestLoad:
    @pytest.mark.parametrize(
        ("load", "made"),
        [
            pytest.param(load_certificate, LEAF, id="certificate"),
            pytest.param(load_request, signing_request(), id="request"),
            pytest.param(load_crl, revocation_list(authority(), LEAF), id="crl"),
        ],
    )
    def test_damage_shows_at_once(self, load: Callable[[bytes], object], made: x509.Certificate) -> None:
        """What is whole comes back, and what is not raises one of the errors that are known, whatever is wrong."""
        good = der(made)
        assert load(good) == made
        refused = 0
        for place in range(len(good)):
            try:
                load(good[:place] + b"\xff" + good[place + 1 :])
            except PARSE_ERRORS:
                refused += 1
        assert refused > 20

    def test_late_damage_shows_at_once(self) -> None:
        """`cryptography` would find it when somebody asks for the extensions."""
        data = der(LEAF).replace(b"\x82\x09a.example", b"\x82\x09a.ex\xffmple")
        late = x509.load_der_x509_certificate(data)
        with pytest.raises(PARSE_ERRORS):
            _ = late.extensions
        with pytest.raises(PARSE_ERRORS):
            load_certificate(data)

    def test_odd_serial_number_is_no_damage(self) -> None:
        """Some tools number their first certificate 0, which no CA may; nobody is warned."""
        key, name = ecdsa_key(), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a")])
        builder = x509.CertificateBuilder(name, name, key.public_key(), 85, NOW, NOW + DAY)
        data = der(builder.sign(key, hashes.SHA256()))
        before, serial, after = data.partition(b"\xa0\x03\x02\x01\x02\x02\x01\x55")
        with quiet():
            assert load_certificate(before + serial[:-1] + b"\0" + after).serial_number == 0


class TestQuiet:
    def test_warnings_are_back_afterwards(self) -> None:
        """They are errors in these tests."""
        with quiet():
            warnings.warn("odd", UserWarning, stacklevel=1)
        with pytest.raises(UserWarning, match="odd"):
            warnings.warn("odd", UserWarning, stacklevel=1)
