"""`sidecar.doctor.ports`: addresses to listen on."""

from __future__ import annotations

import pytest

from sidecar.doctor.findings import Check, Severity
from sidecar.doctor.listening import Listening
from sidecar.doctor.ports import Binding, Running, port
from sidecar.settings import HostPort
from tests.doctor.settled import only

ADDRESS = HostPort("0.0.0.0", 443)


class TestPort:
    @pytest.mark.parametrize(
        ("running", "binding", "severity", "word"),
        [
            pytest.param(Running.NO, Binding.FREE, Severity.OK, "can be", id="free"),
            pytest.param(Running.NO, Binding.TAKEN, Severity.ERROR, "another program", id="taken"),
            pytest.param(Running.UNKNOWN, Binding.TAKEN, Severity.UNCHECKED, "unknown", id="taken-by-whom"),
            pytest.param(Running.NO, Binding.FORBIDDEN, Severity.ERROR, "may not", id="forbidden"),
            pytest.param(Running.NO, Binding.ABSENT, Severity.ERROR, "no address of this machine", id="absent"),
            pytest.param(Running.NO, Binding.UNKNOWN, Severity.UNCHECKED, "cannot be found out", id="unknown"),
        ],
    )
    def test_attempt_to_bind_is_judged(self, running: Running, binding: Binding, severity: Severity, word: str) -> None:
        """Of what is taken nobody is accused without knowing."""
        finding = port("SIDECAR_LISTEN", ADDRESS, running, binding, ())
        assert (finding.severity, finding.check) == (severity, Check.PORT)
        assert word in finding.fact

    def test_port_that_is_forbidden_has_three_ways_out(self) -> None:
        """As the program itself says at start."""
        fix = port("x", ADDRESS, Running.NO, Binding.FORBIDDEN, ()).fix
        assert all(way in fix for way in ("ip_unprivileged_port_start=443", "8443", "NET_BIND_SERVICE"))

    def test_running_program_must_listen(self) -> None:
        """What it has is no conflict; what it should have and has not is an error."""
        table = (Listening("0.0.0.0", 443),)
        only([port("x", ADDRESS, Running.YES, Binding.UNKNOWN, table)], Severity.OK, Check.PORT)
        only([port("x", ADDRESS, Running.YES, Binding.UNKNOWN, ())], Severity.ERROR, Check.PORT)
