"""`sidecar.doctor.running`: what the running program says of itself."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives import hashes

from sidecar.config.show import effective
from sidecar.doctor.findings import Check, Severity
from sidecar.doctor.material import Own
from sidecar.doctor.running import differing, is_ours, readiness, same_settings, served
from tests.doctor.settled import only, settled, severities
from tests.support.certs import authority

OWN = Own("/certs", authority().issue("app.example").certificate)
STRANGE = [b"", b"{", b"[]", b"null", b"<html>", b"\xff", b'{"ready": "yes", "reasons": 1, "certificates": [1, {}]}']


def certs(source: str, sha256: str) -> bytes:
    page = {"certificates": [{"source": source, "sha256": sha256, "not_after": "2026-01-01T00:00:00Z"}]}
    return json.dumps(page).encode()


class TestIsOurs:
    def test_page_of_this_program_is_known(self) -> None:
        """By what it always has."""
        assert is_ours(b'{"ready": false, "reasons": ["draining"]}')

    @pytest.mark.parametrize("body", STRANGE)
    def test_page_of_another_is_not(self, body: bytes) -> None:
        """Whoever else listens there."""
        assert not is_ours(body)


class TestReadiness:
    def test_reasons_and_warnings_are_passed_on(self) -> None:
        """A reason keeps traffic away; a warning will."""
        body = json.dumps({"ready": False, "reasons": ["draining"], "warnings": ["expires soon"]}).encode()
        assert severities(readiness(body)) == [("running", "error"), ("running", "warning")]

    def test_ready_program_is_ok(self) -> None:
        """A health page has no warnings."""
        only(readiness(b'{"ready": true, "reasons": []}'), Severity.OK, Check.RUNNING)

    def test_no_page_is_nothing_to_say(self) -> None:
        """It does not run."""
        assert list(readiness(b"")) == []


class TestServed:
    def test_same_certificate_is_ok(self) -> None:
        """By its fingerprint."""
        only(served(certs("/certs", OWN.leaf.fingerprint(hashes.SHA256()).hex()), [OWN]), Severity.OK, Check.SERVED)

    def test_renewed_certificate_that_is_not_served_is_an_error(self) -> None:
        """Both ends are told."""
        fact = only(served(certs("/certs", "00"), [OWN]), Severity.ERROR, Check.SERVED).fact
        assert "2026-01-01T00:00:00Z" in fact

    def test_certificate_that_the_program_was_not_given_is_not_compared(self) -> None:
        """It has other settings."""
        found = list(served(certs("/other", "00"), [OWN]))
        assert severities(found) == [("served", "unchecked")]

    @pytest.mark.parametrize("body", STRANGE)
    def test_strange_page_is_no_comparison(self, body: bytes) -> None:
        """Nothing is found out from what makes no sense."""
        assert severities(served(body, [OWN])) == [("served", "unchecked")]


class TestSameSettings:
    def test_values_count_and_sources_do_not(self) -> None:
        """The doctor may have them as variables and the program as flags."""
        there = settled(listen=":8443", tls_key_password="a")
        page = "\n".join(effective(there.settings, dict.fromkeys(there.sources, "flag"))).encode()
        assert differing(page, settled(listen="0.0.0.0:8443", tls_key_password="b")) == ()
        assert differing(page, settled(listen=":9443", tls_key_password="a")) == ("listen",)

    @pytest.mark.parametrize("body", STRANGE)
    def test_strange_page_differs_in_nothing(self, body: bytes) -> None:
        """A name that is not there is not compared."""
        assert differing(body, settled()) == ()

    def test_difference_is_a_note_that_names_some(self) -> None:
        """Many are cut short."""
        only([same_settings(())], Severity.OK, Check.SAME_SETTINGS)
        note = only([same_settings(tuple("abcdefghij"))], Severity.NOTE, Check.SAME_SETTINGS)
        assert note.fact.endswith("h, …")
