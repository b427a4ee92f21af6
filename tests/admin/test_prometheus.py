"""`admin.prometheus`: the page as Prometheus' own parser reads it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sidecar.admin.prometheus import exposition
from sidecar.observe.histogram import BOUNDS
from sidecar.observe.metrics import FAMILIES, Dump, Kind, Metrics, merge
from tests.admin.fakes import CERTIFICATES

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]

ROOT = Path(__file__).parent.parent.parent
DASHBOARD = ROOT / "docs" / "grafana-dashboard.json"


def read(dump: Dump) -> Samples:
    text = exposition(dump)[0].decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def busy() -> Metrics:
    """A process in which each family has something to show."""
    metrics = Metrics(
        connections=5,
        connections_active=2,
        downstream_bytes_received=1000,
        downstream_bytes_sent=2000,
        requests=9,
        upstream_open=7,
        upstream_idle=3,
        upstream_waiting=1,
        upstream_connects=20,
        upstream_retries=1,
        upstream_bytes_received=300,
        upstream_bytes_sent=400,
        access_log_dropped=11,
        ready=1,
        draining=1,
        started_at=1000.5,
    )
    metrics.handshake_done("TLSv1.3", resumed=True)
    metrics.handshake_done("TLSv1.2", resumed=False)
    metrics.handshake_failed("no_shared_cipher")
    metrics.client_rejected("expired")
    metrics.upstream_connect_failures = {"upstream_connect_refused": 1}
    metrics.upstream_healthy = {("app", "127.0.0.1:8080"): 1}
    metrics.upstream_ejections = {"app": 2}
    metrics.tunnels_ended = {"downstream_lost": 1}
    metrics.responses = {200: 2, 502: 1, 0: 1}
    metrics.reasons = {"upstream_reset": 1, "downstream_lost": 1}
    for seconds in (0.004, 61.0, 0.004):
        metrics.request_duration.add(seconds)
    metrics.client_request("spiffe://prod/web", 5000.0, 101.0)
    metrics.http2_limited_frames = {"ping": 3}
    metrics.http2_faults = {"ping_flood": 1}
    metrics.grpc_calls = {"14": 2}
    metrics.reloads = {"ok": 1, "failed": 1}
    metrics.reload_success_at = 201.0
    metrics.certificate_not_after = CERTIFICATES.not_after()
    metrics.crl_next_update = CERTIFICATES.next_updates()
    metrics.build_info = {("0.1.0", "3.11.4", "OpenSSL 3.5"): 1}
    return metrics


class TestExposition:
    @pytest.mark.parametrize(
        ("name", "labels", "value"),
        [
            ("sidecar_downstream_connections_total", {}, 5),
            ("sidecar_downstream_connections_active", {}, 2),
            ("sidecar_downstream_received_bytes_total", {}, 1000),
            ("sidecar_downstream_sent_bytes_total", {}, 2000),
            ("sidecar_tls_handshakes_total", {"version": "TLSv1.3"}, 1),
            ("sidecar_tls_handshakes_resumed_total", {}, 1),
            ("sidecar_tls_handshake_failures_total", {"reason": "no_shared_cipher"}, 1),
            ("sidecar_client_rejections_total", {"reason": "expired"}, 1),
            ("sidecar_requests_total", {}, 9),
            ("sidecar_responses_total", {"status": "200"}, 2),
            ("sidecar_responses_total", {"status": "0"}, 1),
            ("sidecar_own_answers_total", {"reason": "upstream_reset"}, 1),
            ("sidecar_request_duration_seconds_count", {}, 3),
            ("sidecar_request_duration_seconds_sum", {}, 61.008),
            ("sidecar_request_duration_seconds_bucket", {"le": "0.0025"}, 0),
            ("sidecar_request_duration_seconds_bucket", {"le": "0.005"}, 2),
            ("sidecar_request_duration_seconds_bucket", {"le": "60.0"}, 2),
            ("sidecar_request_duration_seconds_bucket", {"le": "+Inf"}, 3),
            ("sidecar_upstream_connections", {}, 7),
            ("sidecar_upstream_connections_idle", {}, 3),
            ("sidecar_upstream_requests_waiting", {}, 1),
            ("sidecar_upstream_connects_total", {}, 20),
            ("sidecar_upstream_connect_failures_total", {"reason": "upstream_connect_refused"}, 1),
            ("sidecar_upstream_retries_total", {}, 1),
            ("sidecar_upstream_received_bytes_total", {}, 300),
            ("sidecar_upstream_sent_bytes_total", {}, 400),
            ("sidecar_client_requests_total", {"principal": "spiffe://prod/web"}, 1),
            ("sidecar_client_certificate_not_after_timestamp_seconds", {"principal": "spiffe://prod/web"}, 5000),
            ("sidecar_client_last_seen_timestamp_seconds", {"principal": "spiffe://prod/web"}, 101),
            ("sidecar_reloads_total", {"result": "failed"}, 1),
            ("sidecar_reload_last_success_timestamp_seconds", {}, 201),
            ("sidecar_ready", {}, 1),
            ("sidecar_draining", {}, 1),
            ("sidecar_access_log_dropped_total", {}, 11),
            ("sidecar_start_timestamp_seconds", {}, 1000.5),
            ("sidecar_build_info", {"version": "0.1.0", "python": "3.11.4", "openssl": "OpenSSL 3.5"}, 1),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_each_figure_is_shown(self, name: str, labels: dict[str, str], value: float) -> None:
        """Every counter, gauge and histogram has its samples."""
        assert read(busy().dump())[name, tuple(sorted(labels.items()))] == pytest.approx(value)

    def test_ends_of_key_material_are_moments(self) -> None:
        """Alerts can be built on them, by kind."""
        samples = read(busy().dump())
        kinds = {
            dict(labels)["kind"]
            for name, labels in samples
            if name == "sidecar_certificate_not_after_timestamp_seconds"
        }
        assert kinds == {"leaf", "chain", "client_ca"}
        assert samples["sidecar_crl_next_update_timestamp_seconds", (("issuer", "CN=Root"),)] == pytest.approx(
            CERTIFICATES.next_updates()["CN=Root"]
        )

    def test_no_family_is_forgotten(self) -> None:
        """What is declared is scraped, under its name, with its help and type."""
        families = {
            family.name: family for family in text_string_to_metric_families(exposition(busy().dump())[0].decode())
        }
        assert len(families) == len(FAMILIES)
        for family in FAMILIES.values():
            shown = families[family.name.removesuffix("_total")]
            assert (shown.documentation, shown.type) == (family.help, family.kind.value)
            assert shown.samples, family.name

    @pytest.mark.parametrize("odd", ['CN=a"b\\c\nd{}', "CN=\u00fc\u2028", "CN=lone \udc80 surrogate", ""], ids=ascii)
    def test_odd_label_is_escaped(self, odd: str) -> None:
        """What stands in a certificate survives the format, or is escaped if it cannot be written at all."""
        metrics = Metrics(certificate_not_after={("leaf", odd, "1"): 1.0})
        subjects = [dict(labels).get("subject") for _, labels in read(metrics.dump())]
        assert odd.encode("utf-8", "backslashreplace").decode() in subjects

    def test_start_is_shown_too(self) -> None:
        """A process that has served nobody is readable, and not ready is 0."""
        samples = read(Metrics().dump())
        assert samples["sidecar_requests_total", ()] == 0
        assert samples["sidecar_request_duration_seconds_count", ()] == 0
        assert samples["sidecar_ready", ()] == 0

    def test_merged_processes_are_one_page(self) -> None:
        """One scrape shows the sums of several, each series once."""
        text = exposition(merge([busy().dump(), json.loads(json.dumps(busy().dump()))]))[0].decode()
        assert "\nsidecar_requests_total 18.0\n" in text
        assert '\nsidecar_request_duration_seconds_bucket{le="0.005"} 4.0\n' in text
        series = [line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")]
        assert len(series) == len(set(series))

    def test_buckets_are_those_of_the_metrics(self) -> None:
        """Their bounds are written as Prometheus compares them: as texts."""
        bounds = [dict(labels)["le"] for name, labels in read(busy().dump()) if name.endswith("_bucket")]
        assert bounds == [*(str(float(bound)) for bound in BOUNDS), "+Inf"]


class TestImport:
    def test_library_is_loaded_at_the_first_scrape(self) -> None:
        """It would be a tenth of the time that a start takes, and some programs are never scraped."""
        code = "import sys, sidecar.app; print({'prometheus_client'} & {*sys.modules})"
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30)
        assert (done.stdout, done.stderr) == ("set()\n", "")


def expressions(node: Any) -> list[str]:
    """Every query in a dashboard."""
    if isinstance(node, list):
        return [found for item in node for found in expressions(item)]
    if isinstance(node, dict):
        own = [text for key in ("expr", "query") if isinstance(text := node.get(key), str)]
        return own + [found for item in node.values() for found in expressions(item)]
    return []


class TestDashboard:
    def test_every_metric_in_it_exists(self) -> None:
        """A panel over a metric that was renamed would be empty, and look like peace."""
        known = {name for family in FAMILIES.values() for name in _scraped(family.name, family.kind)}
        used = {
            name
            for text in expressions(json.loads(DASHBOARD.read_text()))
            for name in re.findall(r"\bsidecar_[a-z0-9_]+", text)
        }
        assert used <= known
        assert len(used) > 20

    def test_panels_do_not_overlap(self) -> None:
        """Each has a title, a query and a place of its own."""
        panels = [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]
        cells: set[tuple[int, int]] = set()
        for panel in panels:
            assert panel["title"]
            assert expressions(panel["targets"])
            place = panel["gridPos"]
            own = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not own & cells, panel["title"]
            assert place["x"] + place["w"] <= 24
            cells |= own


def _scraped(name: str, kind: Kind) -> list[str]:
    return [f"{name}_bucket", f"{name}_sum", f"{name}_count"] if kind is Kind.HISTOGRAM else [name]
