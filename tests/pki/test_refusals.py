"""`pki.refusals`: what a client that checks would say."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

import pytest
from cryptography import x509

from sidecar.pki.refusals import refusals_of
from tests.support.certs import CLIENT, DAY, NOW, Issued, authority, intermediate, other_authority

NAME = x509.DNSName("app.example")
ROOTS = [authority().certificate]


class TestRefusalsOf:
    @pytest.mark.parametrize("name", [NAME, x509.IPAddress(ipaddress.ip_address("10.0.0.1"))])
    def test_good_chain_has_none(self, name: x509.GeneralName) -> None:
        """For each of its names."""
        leaf = intermediate().issue("app.example", "10.0.0.1")
        assert list(refusals_of([leaf.certificate, *leaf.chain], name, ROOTS)) == []

    @pytest.mark.parametrize(
        ("make", "refusal"),
        [
            pytest.param(
                lambda: intermediate().issue("app.example"), "the chain: unable to get local issuer", id="incomplete"
            ),
            pytest.param(
                lambda: other_authority().issue("app.example"), "the chain: unable to get local issuer", id="unknown"
            ),
            pytest.param(
                lambda: authority().issue("app.example", not_before=NOW - 9 * DAY, not_after=NOW - DAY),
                "the chain: certificate has expired",
                id="expired",
            ),
            pytest.param(lambda: authority().issue("app.example", purposes=CLIENT), "the purpose", id="purpose"),
            pytest.param(lambda: authority().issue("other.example"), "is not for app.example", id="name"),
            pytest.param(lambda: authority().issue("10.0.0.1"), "is not for app.example", id="no-such-name"),
        ],
    )
    def test_each_fault_is_told_by_itself(self, make: Callable[[], Issued], refusal: str) -> None:
        """One is enough to be refused."""
        (found,) = refusals_of([make().certificate], NAME, ROOTS)
        assert refusal in found

    def test_system_trusts_no_private_ca(self) -> None:
        """Without anchors it is judged as a browser would; with an empty list nothing is trusted either."""
        leaf = authority().issue("app.example").certificate
        for anchors in (None, []):
            (found,) = refusals_of([leaf], NAME, anchors)
            assert found.startswith("the chain: ")
