"""`sidecar.policy.authz`: who is served."""

from __future__ import annotations

import pytest

from sidecar.policy.authz import Refusal, authorize
from sidecar.settings import ClientCertMode

NONE, OPTIONAL, REQUIRED = ClientCertMode.NONE, ClientCertMode.OPTIONAL, ClientCertMode.REQUIRED
FLAW = "the certificate has expired"


class TestAuthorize:
    @pytest.mark.parametrize(
        ("mode", "has_certificate", "flaw"),
        [
            (NONE, False, None),
            (NONE, True, None),
            (NONE, True, FLAW),
            (OPTIONAL, False, None),
            (OPTIONAL, True, None),
            (REQUIRED, True, None),
        ],
    )
    def test_client_that_meets_the_mode_is_served(
        self, mode: ClientCertMode, has_certificate: bool, flaw: str | None
    ) -> None:
        """A client is served if it showed as good a certificate as the listener demands."""
        assert authorize(mode, has_certificate=has_certificate, flaw=flaw) is None

    @pytest.mark.parametrize("mode", [OPTIONAL, REQUIRED])
    def test_unverifiable_certificate_is_refused_with_403(self, mode: ClientCertMode) -> None:
        """A certificate that cannot be verified is refused, also where none would have done, and the flaw is named."""
        refusal = authorize(mode, has_certificate=True, flaw=FLAW)
        assert refusal == Refusal(403, "client_certificate_invalid", "Refused: the certificate has expired.", FLAW)

    def test_missing_certificate_is_refused_with_400(self) -> None:
        """Where a certificate is required, a client without one is told so."""
        refusal = authorize(REQUIRED, has_certificate=False, flaw=None)
        assert refusal is not None
        assert (refusal.status, refusal.reason) == (400, "client_certificate_missing")
        assert "\n" not in refusal.message

    @pytest.mark.parametrize("mode", ClientCertMode)
    @pytest.mark.parametrize("has_certificate", [False, True])
    @pytest.mark.parametrize("flaw", [None, FLAW])
    def test_flaw_never_helps(self, mode: ClientCertMode, has_certificate: bool, flaw: str | None) -> None:
        """Whoever is refused without a flaw is refused with one, in every mode."""
        if authorize(mode, has_certificate=has_certificate, flaw=None) is not None:
            assert authorize(mode, has_certificate=has_certificate, flaw=flaw) is not None
