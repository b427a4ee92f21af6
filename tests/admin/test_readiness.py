"""`admin.readiness`: facts to checks."""

from __future__ import annotations

from datetime import timedelta

import attrs
import pytest

from sidecar.admin.operator import CheckState, ServedCertificate
from sidecar.admin.readiness import Facts, judge
from sidecar.certs.describe import describe
from tests.admin.fakes import CERTIFICATES
from tests.support.certs import DAY, NOW, authority

FACTS = Facts(certificates=CERTIFICATES, draining=False)


def states(facts: Facts) -> dict[str, CheckState]:
    return {check.name: check.state for check in judge(facts).checks}


def serving(*lives: tuple[timedelta, timedelta]) -> Facts:
    """Facts with a certificate for each begin and end, counted from now."""
    served = [
        authority().issue(f"{number}.example", not_before=NOW + begin, not_after=NOW + end).certificate
        for number, (begin, end) in enumerate(lives)
    ]
    certificates = tuple(ServedCertificate("tls.crt", describe(certificate)) for certificate in served)
    return attrs.evolve(FACTS, certificates=attrs.evolve(CERTIFICATES, served=certificates))


class TestJudge:
    def test_nothing_against_it_is_ready(self) -> None:
        """Every check is listed, and each is well."""
        readiness = judge(FACTS)
        assert readiness.reasons == ()
        assert [check.name for check in readiness.checks] == [
            "draining",
            "certificates",
            "reload",
            "revocation lists",
            "app",
        ]
        assert {check.state for check in readiness.checks} == {CheckState.OK}

    def test_program_without_certificates_is_ready(self) -> None:
        """Where no listener speaks TLS there is none that could expire."""
        without = attrs.evolve(FACTS, certificates=attrs.evolve(CERTIFICATES, served=(), pem=b""))
        assert judge(without).reasons == ()

    def test_draining_is_not_ready(self) -> None:
        """A load balancer is to look elsewhere."""
        assert judge(attrs.evolve(FACTS, draining=True)).reasons == ("draining",)

    def test_app_that_cannot_be_reached_is_not_ready(self) -> None:
        """Traffic would only be answered with 502."""
        readiness = judge(attrs.evolve(FACTS, app_error="127.0.0.1:8080: Connection refused"))
        assert readiness.reasons == ("the app cannot be reached: 127.0.0.1:8080: Connection refused",)

    def test_failed_reload_is_a_warning(self) -> None:
        """What was loaded before works on."""
        facts = attrs.evolve(FACTS, reload_error="the key does not match")
        assert states(facts)["reload"] is CheckState.WARN
        assert judge(facts).reasons == ()


class TestCertificates:
    @pytest.mark.parametrize(
        ("left", "state"),
        [
            pytest.param(timedelta(0), CheckState.FAIL, id="at its end"),
            pytest.param(-DAY, CheckState.FAIL, id="expired"),
            pytest.param(timedelta(days=6, hours=23), CheckState.WARN, id="under a week"),
            pytest.param(timedelta(days=7), CheckState.OK, id="a week"),
        ],
    )
    def test_end_decides(self, left: timedelta, state: CheckState) -> None:
        """An expired certificate keeps traffic away; one that should have been renewed is a warning."""
        assert states(serving((-83 * DAY, left)))["certificates"] is state

    def test_short_life_is_no_reason_to_warn(self) -> None:
        """A certificate for a day is renewed every day; only its last tenth is late."""
        assert states(serving((timedelta(hours=-1), timedelta(hours=23))))["certificates"] is CheckState.OK
        assert states(serving((timedelta(hours=-22), timedelta(hours=2))))["certificates"] is CheckState.WARN

    def test_not_yet_valid_is_not_ready(self) -> None:
        """A clock that is behind looks just so, and clients refuse the certificate either way."""
        (reason,) = judge(serving((-DAY, 30 * DAY), (timedelta(hours=1), 30 * DAY))).reasons
        assert "not valid yet: CN=1.example" in reason

    def test_worst_of_several_is_named(self) -> None:
        """One expired certificate among good ones is one too many for its names."""
        (reason,) = judge(serving((-DAY, 30 * DAY), (-30 * DAY, -DAY))).reasons
        assert reason.startswith("a certificate has expired: CN=1.example, ")

    def test_certificate_without_a_subject_goes_by_its_names(self) -> None:
        """Modern CAs leave the subject empty."""
        (served,) = CERTIFICATES.served
        bare = attrs.evolve(served, leaf=attrs.evolve(served.leaf, subject=""))
        check = judge(attrs.evolve(FACTS, certificates=attrs.evolve(CERTIFICATES, served=(bare,)))).checks[1]
        assert "DNS:localhost, IP:127.0.0.1" in check.text


class TestRevocationLists:
    @pytest.mark.parametrize(
        ("due", "state"),
        [
            pytest.param(timedelta(hours=1), CheckState.OK, id="due"),
            pytest.param(timedelta(0), CheckState.WARN, id="overdue"),
            pytest.param(-30 * DAY, CheckState.WARN, id="long overdue"),
            pytest.param(None, CheckState.OK, id="it does not say"),
        ],
    )
    def test_overdue_list_is_a_warning(self, due: timedelta | None, state: CheckState) -> None:
        """It is never a reason to send clients elsewhere, where the same list is overdue."""
        crl = attrs.evolve(CERTIFICATES.crls[0], next_update=None if due is None else NOW + due)
        facts = attrs.evolve(FACTS, certificates=attrs.evolve(CERTIFICATES, crls=(CERTIFICATES.crls[0], crl)))
        assert states(facts)["revocation lists"] is state
        assert judge(facts).reasons == ()

    def test_none_in_use_is_well(self) -> None:
        """Not everybody revokes."""
        facts = attrs.evolve(FACTS, certificates=attrs.evolve(CERTIFICATES, crls=()))
        assert states(facts)["revocation lists"] is CheckState.OK
