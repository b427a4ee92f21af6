"""`admin.operator`: the values that pages are made of."""

from __future__ import annotations

from datetime import timedelta

import attrs

from sidecar.admin.operator import Readiness
from tests.admin.fakes import BAD, CERTIFICATES, DOUBTFUL, GOOD, ISSUED
from tests.support.certs import NOW, authority


class TestReadiness:
    def test_only_failures_are_reasons(self) -> None:
        """What is merely doubtful keeps no traffic away."""
        assert Readiness((GOOD, DOUBTFUL, BAD)).reasons == (BAD.text,)
        assert Readiness((GOOD, DOUBTFUL)).reasons == ()


class TestCertificates:
    def test_every_end_is_a_moment(self) -> None:
        """Leaf, chain and client CAs each have their own, by kind."""
        ends = CERTIFICATES.not_after()
        expected = {
            "leaf": ISSUED.certificate,
            "chain": ISSUED.chain[0],
            "client_ca": authority().certificate,
        }
        assert {kind: end for (kind, _, _), end in ends.items()} == {
            kind: certificate.not_valid_after_utc.timestamp() for kind, certificate in expected.items()
        }

    def test_first_list_that_is_due_counts(self) -> None:
        """A CA that divides its list has several; one that says nothing of the next has no moment."""
        (crl,) = CERTIFICATES.crls
        later = attrs.evolve(crl, next_update=NOW + timedelta(days=30))
        silent = attrs.evolve(crl, next_update=None)
        assert crl.next_update is not None
        certificates = attrs.evolve(CERTIFICATES, crls=(later, crl, silent))
        assert certificates.next_updates() == {"CN=Root": crl.next_update.timestamp()}
