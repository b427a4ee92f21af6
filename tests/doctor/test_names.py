"""`sidecar.doctor.names`: which names a certificate is for."""

from __future__ import annotations

import pytest

from sidecar.doctor.findings import Check, Severity
from sidecar.doctor.material import Own
from sidecar.doctor.names import is_for, names, names_of_self_made
from tests.doctor.settled import only, severities
from tests.doctor.test_chain import public_leaf
from tests.support.certs import authority

ISSUED = authority().issue("app.example", "*.shop.example", "192.0.2.1", "2001:db8::1")
OWN = Own("/certs", ISSUED.certificate)


class TestIsFor:
    @pytest.mark.parametrize(
        ("name", "fits"),
        [
            ("app.example", True),
            ("APP.Example.", True),
            ("a.shop.example", True),
            ("a.b.shop.example", False),
            ("shop.example", False),
            ("xapp.example", False),
            ("example", False),
            ("192.0.2.1", True),
            ("192.0.2.2", False),
            ("2001:DB8:0::1", True),
        ],
    )
    def test_name_is_matched_as_clients_do(self, name: str, fits: bool) -> None:
        """A wildcard stands for exactly the first label, and an address must be there as one."""
        assert is_for(ISSUED.certificate, name) is fits

    def test_wildcard_of_a_whole_domain_is_none(self) -> None:
        """No client takes *.example for a name of two labels."""
        assert not is_for(authority().issue("*.example").certificate, "app.example")


class TestNames:
    def test_name_that_no_certificate_has_is_an_error_with_those_that_there_are(self) -> None:
        """Of several certificates one is enough."""
        other = Own("/other", authority().issue("other.example").certificate)
        found = list(names((OWN, other), ("other.example", "missing.example")))
        assert severities(found) == [("names", "ok"), ("names", "error")]
        assert "DNS:app.example" in found[1].fact
        assert "DNS:other.example" in found[1].fact

    def test_no_expected_name_is_told(self) -> None:
        """Nothing was compared, and that is said."""
        assert "--name" in only(names((OWN,), ()), Severity.UNCHECKED, Check.NAMES).fix

    def test_certificate_without_names_is_an_error(self) -> None:
        """Clients do not look at the common name."""
        bare = Own("/certs", public_leaf(authority()).certificate)
        assert severities(names((bare,), ("public.example",))) == [("names", "error"), ("names", "error")]


class TestSelfMade:
    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            pytest.param("app.example", [("names", "ok")], id="given"),
            pytest.param("A.Wild.example", [("names", "ok")], id="wildcard"),
            pytest.param("other.example", [("names", "warning")], id="not-given"),
            pytest.param("192.0.2.9", [], id="address"),
        ],
    )
    def test_name_must_be_in_the_settings(self, name: str, expected: list[tuple[str, str]]) -> None:
        """Addresses of the machine are in it by themselves, and which these are is not known here."""
        found = names_of_self_made(("localhost", "app.example", "*.wild.example"), (name,))
        assert severities(found) == [("certificate", "note"), *expected]
