"""`proxy.lean`: what a start leaves out stays out, and can be had."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.program import ROOT

START = """
import sys
from sidecar import cli
from sidecar.proxy import lean
lean.import_reactor()
from sidecar import app, worker
from sidecar.proxy import reactor
"""


def printed(program: str) -> list[str]:
    """What a fresh interpreter prints, word by word."""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=True, timeout=60, capture_output=True, text=True
    )
    return done.stdout.split()


class TestImportReactor:
    def test_start_loads_nothing_that_a_plain_run_has_no_use_for(self) -> None:
        """Each of these costs every start, on a quarter of a CPU, tens of milliseconds."""
        unused = {"email.parser", "http.client", "prometheus_client", "re2", "service_identity", "yaml"}
        loaded = set(printed(f"{START}\nprint(*sys.modules)"))
        assert "sidecar.app" in loaded
        assert not unused & loaded

    @pytest.mark.parametrize(
        ("module", "name"), [("http.cookiejar", "CookieJar"), ("twisted.internet.ssl", "PrivateCertificate")]
    )
    def test_what_was_left_out_can_be_imported_afterwards(self, module: str, name: str) -> None:
        """What is left behind is no trap for a library that does use it."""
        parent, _, child = module.rpartition(".")
        assert printed(f"{START}\nfrom {parent} import {child}\nprint({child}.{name}.__name__)") == [name]

    def test_what_is_there_already_stays(self) -> None:
        """Where something else was first, nothing is taken away from it."""
        program = "import http.cookiejar, sys\nthere = http.cookiejar"
        assert printed(f"{program}{START}\nprint(sys.modules['http.cookiejar'] is there)") == ["True"]
