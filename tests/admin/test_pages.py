"""`admin.pages`: path and snapshot to an answer."""

from __future__ import annotations

import json
from datetime import timedelta

import attrs
import pytest

from sidecar.admin.pages import Snapshot, respond
from sidecar.admin.prometheus import Figures
from sidecar.certs.describe import describe
from sidecar.observe.metrics import Metrics
from tests.support.certs import NOW, authority

ISSUED = authority().issue("localhost", "127.0.0.1")


@pytest.fixture
def snapshot() -> Snapshot:
    figures = Figures(
        metrics=Metrics(),
        certificates=(describe(ISSUED.certificate),),
        upstream_connections=0,
        upstream_idle=0,
        upstream_connects=0,
        upstream_connect_failures=0,
        access_log_dropped=0,
        is_ready=True,
    )
    return Snapshot(
        now=NOW,
        figures=figures,
        certificate_sources=("/etc/tls/tls.crt",),
        certificate_pem=ISSUED.cert_pem,
        rejections=[],
        not_ready=(),
    )


class TestRespond:
    def test_live_is_always_200(self, snapshot: Snapshot) -> None:
        """A process that answers is alive, also when it is not ready."""
        page = respond("GET", "/live", attrs.evolve(snapshot, not_ready=("draining",)))
        assert (page.status, page.body) == (200, b"live\n")

    def test_ready_is_200(self, snapshot: Snapshot) -> None:
        """With nothing against it, traffic is welcome."""
        page = respond("GET", "/ready", snapshot)
        assert (page.status, json.loads(page.body)) == (200, {"ready": True, "reasons": []})

    def test_not_ready_is_503_with_all_reasons(self, snapshot: Snapshot) -> None:
        """A load balancer looks at the status, a person at the reasons."""
        reasons = ("draining", "the certificate has expired")
        page = respond("GET", "/ready", attrs.evolve(snapshot, not_ready=reasons))
        assert (page.status, json.loads(page.body)) == (503, {"ready": False, "reasons": list(reasons)})

    def test_metrics_that_cannot_be_made_are_503(self, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
        """Out of descriptors, the library behind the page cannot be loaded; it is tried again at the next scrape."""

        def fail(figures: Figures) -> None:
            raise OSError(24, "Too many open files")

        monkeypatch.setattr("sidecar.admin.prometheus.exposition", fail)
        page = respond("GET", "/stats/prometheus", snapshot)
        assert (page.status, page.body) == (503, b"The metrics cannot be made now: Too many open files.\n")

    def test_handshakes_shows_who_was_turned_away(self, snapshot: Snapshot) -> None:
        """The page is what the listener remembers."""
        page = respond("GET", "/handshakes", attrs.evolve(snapshot, rejections=[{"reason": "expired"}]))
        assert json.loads(page.body) == {"rejections": [{"reason": "expired"}]}

    def test_certs_names_source_and_end(self, snapshot: Snapshot) -> None:
        """The page says what is served, from where and until when, and never a key."""
        page = respond("GET", "/certs", snapshot)
        (served,) = json.loads(page.body)["certificates"]
        assert served["source"] == "/etc/tls/tls.crt"
        assert "DNS:localhost" in json.dumps(served)
        assert b"PRIVATE" not in page.body
        assert page.content_type == "application/json"

    def test_expired_certificate_is_still_described(self, snapshot: Snapshot) -> None:
        """The page is there above all when something is wrong."""
        page = respond("GET", "/certs", attrs.evolve(snapshot, now=NOW + timedelta(days=1000)))
        assert page.status == 200

    def test_pem_is_what_clients_verify_with(self, snapshot: Snapshot) -> None:
        """`curl --cacert` takes the page as it is."""
        page = respond("GET", "/certs/server.pem", snapshot)
        assert page.body == ISSUED.cert_pem
        assert b"PRIVATE" not in page.body

    def test_metrics_are_in_the_exposition_format(self, snapshot: Snapshot) -> None:
        """The content type carries the version that the scraper needs."""
        page = respond("GET", "/stats/prometheus", snapshot)
        assert page.content_type.startswith("text/plain; version=")
        assert b"sidecar_ready 1.0\n" in page.body

    def test_root_lists_the_others(self, snapshot: Snapshot) -> None:
        """Whoever finds the port finds the pages."""
        body = respond("GET", "/", snapshot).body.decode()
        for path in ("/live", "/ready", "/stats/prometheus", "/certs", "/certs/server.pem"):
            assert path in body

    @pytest.mark.parametrize("path", ["/nope", "", "*", "/ready/", "//ready", "/READY", "/" + "x" * 5000], ids=repr)
    def test_unknown_path_is_404(self, snapshot: Snapshot, path: str) -> None:
        """A wrong path is answered with the right ones, and not with all of itself."""
        page = respond("GET", path, snapshot)
        assert page.status == 404
        assert b"/stats/prometheus" in page.body
        assert len(page.body) < 500
        assert page.content_type.startswith("text/plain")

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "get"])
    def test_other_methods_are_405(self, snapshot: Snapshot, method: str) -> None:
        """Nothing can be changed here."""
        page = respond(method, "/ready", snapshot)
        assert (page.status, page.allow) == (405, "GET, HEAD")

    def test_head_is_answered_like_get(self, snapshot: Snapshot) -> None:
        """The server leaves out the body."""
        assert respond("HEAD", "/ready", snapshot) == respond("GET", "/ready", snapshot)
