"""`proxy.lean`: what a start leaves out stays out, and can be had."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.program import ROOT

LIBRARIES = """
import sys
from sidecar.proxy import lean
lean.import_libraries()
"""

START = f"""
{LIBRARIES}
from sidecar import app, cli, worker
from sidecar.proxy import reactor
worker.run = lambda *given: 0
cli.main(["run"], {{"SIDECAR_WORKERS": "1"}})
"""


def printed(program: str) -> list[str]:
    """What a fresh interpreter prints, word by word."""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=True, timeout=60, capture_output=True, text=True
    )
    return done.stdout.split()


class TestImportLibraries:
    def test_start_loads_nothing_that_a_plain_run_has_no_use_for(self) -> None:
        """Each of these costs every start, on a quarter of a CPU, tens of milliseconds."""
        unused = {
            *("argparse", "asyncio", "bz2", "difflib", "email.parser", "email.utils", "gettext", "html", "http.client"),
            *("prometheus_client", "re2", "service_identity", "shutil", "ssl", "subprocess", "tempfile", "yaml"),
            *("twisted.internet.endpoints", "twisted.internet.ssl", "twisted.protocols.tls", "twisted.web"),
            *("sidecar.certs.pkcs12", "sidecar.config.envoy", "sidecar.config.yamlfile", "sidecar.doctor"),
            *("cryptography.hazmat.primitives.serialization.ssh", "typing_extensions"),
            *("pty", "sidecar.observe.logformat", "twisted.internet.process", "twisted.internet.udp"),
            *("sidecar.healthcheck", "sidecar.inject", "sidecar.supervisor", "sidecar.tls.client"),
        }
        loaded = set(printed(f"{START}\nprint(*sys.modules)"))
        assert "sidecar.app" in loaded
        assert not unused & loaded

    @pytest.mark.parametrize(
        ("module", "name"),
        [
            ("http.cookiejar", "CookieJar"),
            ("twisted.internet.ssl", "PrivateCertificate"),
            ("twisted.protocols.tls", "TLSMemoryBIOFactory"),
            ("email.utils", "parseaddr"),
            ("cryptography.hazmat.primitives.serialization.ssh", "SSHCertificateBuilder"),
        ],
    )
    def test_what_was_left_out_can_be_imported_afterwards(self, module: str, name: str) -> None:
        """What is left behind is no trap for a library that does use it."""
        parent, _, child = module.rpartition(".")
        assert printed(f"{START}\nfrom {parent} import {child}\nprint({child}.{name}.__name__)") == [name]

    def test_what_is_there_already_stays(self) -> None:
        """Where something else was first, nothing is taken away from it."""
        program = "import asyncio, sys\nthere = asyncio"
        assert printed(f"{program}\n{START}\nprint(sys.modules['asyncio'] is there)") == ["True"]

    @pytest.mark.parametrize(
        ("call", "answer"),
        [
            pytest.param("x509.RFC822Name('a@example.org').value", "a@example.org", id="an e-mail address"),
            pytest.param("x509.Name.from_rfc4514_string('CN=a').rfc4514_string()", "CN=a", id="a name given as text"),
            pytest.param("defer.ensureDeferred(answer()).result", "awaited", id="a coroutine"),
            pytest.param("compat.escape('<')", "&lt;", id="escaped HTML"),
            pytest.param("serialization.load_ssh_public_key(SSH_KEY).key_size", "256", id="a key of SSH"),
            pytest.param("protocol.P.__bound__.__forward_arg__", "_ProtoWithFactory", id="a type variable"),
            pytest.param("posixbase.unix.Port.__name__", "Port", id="a module of Twisted's"),
        ],
    )
    def test_what_stands_in_does_what_it_stands_for(self, call: str, answer: str) -> None:
        """The libraries work as ever; what they were not given yet is loaded when it is called."""
        program = f"""{LIBRARIES}
import warnings
warnings.simplefilter("ignore")
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.internet import defer, posixbase, protocol
from twisted.python import compat
SSH_KEY = ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(
    serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
async def answer():
    return "awaited"
print({call})"""
        assert printed(program) == [answer]

    def test_patterns_are_compiled_as_ever_afterwards(self) -> None:
        """Nobody but the one module gets a late pattern, and it only while it is loaded."""
        program = """
import re
print(type(re.compile('a')) is re.Pattern, type(lean.LatePattern('a').match('a')) is re.Match)"""
        assert printed(LIBRARIES + program) == ["True", "True"]

    @pytest.mark.parametrize(
        ("module", "change"),
        [
            pytest.param("asyncio", "clear()", id="another name"),
            pytest.param("typing_extensions", "update(TypeVar=lambda name: name)", id="another argument"),
        ],
    )
    def test_release_that_wants_more_gets_all(self, module: str, change: str) -> None:
        """Where a library asks a stand-in for something that it does not have, everything is imported."""
        program = f"""
import sys
from sidecar.proxy import lean
lean.STAND_INS['{module}'].{change}
lean.import_libraries()
import twisted.internet.defer
print('{module}' in sys.modules, twisted.internet.defer.Deferred.__name__)"""
        assert printed(program) == ["True", "Deferred"]
