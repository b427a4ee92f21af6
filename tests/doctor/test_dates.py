"""`sidecar.doctor.dates`: what runs out, and when."""

from __future__ import annotations

from datetime import timedelta

import pytest

from sidecar.certs.material import ClientMaterial
from sidecar.doctor.dates import clients, expiry, span
from sidecar.doctor.findings import Check, Severity
from sidecar.doctor.material import Material, Own
from sidecar.settings import CrlPolicy
from tests.doctor.settled import only, severities
from tests.support.certs import DAY, NOW, authority, intermediate, make_root, revocation_list

ROOT = authority().certificate


def own(left: timedelta, age: timedelta) -> Own:
    return Own("/certs", authority().issue("a", not_before=NOW - age, not_after=NOW + left).certificate)


class TestExpiry:
    @pytest.mark.parametrize(
        ("age", "left", "severity"),
        [
            pytest.param(76 * DAY, 14 * DAY, Severity.OK, id="14-days"),
            pytest.param(77 * DAY, 14 * DAY - DAY / 24, Severity.WARNING, id="less-than-14-days"),
            pytest.param(DAY / 2, DAY / 2, Severity.OK, id="one-day-fresh"),
            pytest.param(DAY * 0.7, DAY * 0.3, Severity.WARNING, id="one-day-late"),
            pytest.param(DAY, 365 * DAY, Severity.OK, id="long"),
        ],
    )
    def test_last_days_are_a_warning(self, age: timedelta, left: timedelta, severity: Severity) -> None:
        """14 days, or a third of a shorter life: renewing daily is no reason for alarm."""
        only(expiry(Material(servers=(own(left, age),)), NOW), severity, Check.EXPIRY)

    @pytest.mark.parametrize(
        ("age", "left"), [pytest.param(9 * DAY, -DAY, id="over"), pytest.param(-DAY, 9 * DAY, id="not-yet")]
    )
    def test_what_is_out_of_date_was_said_before(self, age: timedelta, left: timedelta) -> None:
        """Loading it has refused it."""
        assert list(expiry(Material(servers=(own(left, age),)), NOW)) == []

    def test_everything_that_can_run_out_is_looked_at(self) -> None:
        """Our certificates in both directions, and the CAs in both."""
        late = make_root("Late CA", not_before=NOW - 300 * DAY, not_after=NOW + DAY).certificate
        material = Material(
            upstreams=(own(DAY, 90 * DAY),), clients=ClientMaterial(anchors=(late,)), upstream_anchors=(late,)
        )
        found = list(expiry(material, NOW))
        assert severities(found) == [("expiry", "warning"), ("client-ca", "warning"), ("upstream-ca", "warning")]

    def test_cas_that_last_are_one_finding(self) -> None:
        """A bundle may hold hundreds."""
        material = Material(clients=ClientMaterial(anchors=(ROOT, intermediate().certificate)))
        assert "2, valid until" in only(expiry(material, NOW), Severity.OK, Check.CLIENT_CA).fact


class TestClients:
    @pytest.mark.parametrize(
        ("due", "policy", "severity"),
        [
            pytest.param(7 * DAY, CrlPolicy.FAIL, Severity.OK, id="in-force"),
            pytest.param(DAY / 24, CrlPolicy.FAIL, Severity.NOTE, id="due-soon"),
            pytest.param(-23 * DAY / 24, CrlPolicy.FAIL, Severity.WARNING, id="grace"),
            pytest.param(-25 * DAY / 24, CrlPolicy.FAIL, Severity.ERROR, id="over"),
            pytest.param(-25 * DAY / 24, CrlPolicy.WARN, Severity.WARNING, id="over-and-used"),
        ],
    )
    def test_overdue_list_is_judged_by_what_becomes_of_clients(
        self, due: timedelta, policy: CrlPolicy, severity: Severity
    ) -> None:
        """Within 24 hours, and with policy warn, it is used on."""
        crl = revocation_list(authority(), last_update=NOW - 3 * DAY, next_update=NOW + due)
        only(clients(ClientMaterial(anchors=(ROOT,), crls=(crl,)), policy, NOW), severity, Check.CLIENT_CRL)

    def test_ca_without_a_list_beside_one_with_is_a_warning(self) -> None:
        """Its clients are refused; without any list, none is."""
        anchors = (ROOT, intermediate().certificate)
        material = ClientMaterial(anchors=anchors, crls=(revocation_list(authority()),))
        found = list(clients(material, CrlPolicy.FAIL, NOW))
        assert severities(found) == [("client-crl", "ok"), ("client-crl", "warning")]
        assert "Test Intermediate CA" in found[1].fact
        assert list(clients(ClientMaterial(anchors=anchors), CrlPolicy.FAIL, NOW)) == []

    def test_ca_that_is_left_out_is_a_note(self) -> None:
        """What loading has said is passed on, but for lists, which are judged here."""
        material = ClientMaterial(warnings=(("client_ca", "x is left out"), ("client_crl", "y")))
        assert only(clients(material, CrlPolicy.FAIL, NOW), Severity.NOTE, Check.CLIENT_CA).fact == "x is left out"


class TestSpan:
    @pytest.mark.parametrize(
        ("time", "text"),
        [
            (timedelta(days=2), "2 days"),
            (timedelta(hours=47), "47 hours"),
            (timedelta(minutes=90), "90 minutes"),
            (timedelta(minutes=1), "1 minute"),
            (timedelta(seconds=59), "less than a minute"),
        ],
    )
    def test_length_is_in_units_of_which_there_are_several(self, time: timedelta, text: str) -> None:
        """Rounded down."""
        assert span(time) == text
