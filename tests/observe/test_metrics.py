"""`observe.metrics`: plain counters, and what becomes of those of several processes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.observe.metrics import (
    FAMILIES,
    LONGEST_PRINCIPAL,
    MOST_CLIENTS,
    OTHER,
    Kind,
    Metrics,
    keep,
    markdown_table,
    merge,
)

DOCS = Path(__file__).parent.parent.parent / "docs" / "metrics.md"


def count(metrics: Metrics, status: int, reason: str, seconds: float) -> None:
    """Count an exchange that is over."""
    metrics.responses[status] = metrics.responses.get(status, 0) + 1
    metrics.reasons[reason] = metrics.reasons.get(reason, 0) + 1
    metrics.request_duration.add(seconds)


class TestMetrics:
    def test_handshakes_are_counted_by_version_and_reason(self) -> None:
        """Resumed ones are a part of all."""
        metrics = Metrics()
        metrics.handshake_done("TLSv1.3", resumed=True)
        metrics.handshake_done("TLSv1.3", resumed=False)
        metrics.handshake_failed("plain_http")
        assert metrics.handshakes == {"TLSv1.3": 2}
        assert metrics.handshakes_resumed == 1
        assert metrics.handshake_failures == {"plain_http": 1}

    def test_two_processes_do_not_share(self) -> None:
        """Each has its own dictionaries and buckets."""
        busy = Metrics()
        busy.responses[200] = 1
        busy.request_duration.add(1.0)
        assert Metrics() == Metrics()
        assert sum(Metrics().request_duration.counts) == 0


def principals(count: int) -> list[str]:
    return [f"spiffe://prod/{number}" for number in range(count)]


class TestClients:
    def test_client_is_counted_with_its_certificate(self) -> None:
        """Requests, the end of the certificate shown last, and when it was here last."""
        metrics = Metrics()
        metrics.client_request("web", not_after=5000.0, now=2.0)
        metrics.client_request("web", not_after=9000.0, now=3.0)
        assert metrics.client_requests == {"web": 2}
        assert metrics.client_not_after == {"web": 9000.0}
        assert metrics.client_last_seen == {"web": 3.0}

    def test_nobody_is_not_counted(self) -> None:
        """A client without a certificate is nobody in particular."""
        metrics = Metrics()
        metrics.client_request("", 1.0, 1.0)
        assert metrics == Metrics()

    def test_number_is_bounded_and_no_request_is_lost(self) -> None:
        """Whoever was not seen for longest makes room, and goes on to count as one of the others."""
        metrics = Metrics()
        for moment, principal in enumerate(principals(MOST_CLIENTS)):
            metrics.client_request(principal, 1.0, float(moment))
        for principal in ("spiffe://prod/0", "new", "newer"):
            metrics.client_request(principal, 1.0, 1000.0)
        assert len(metrics.client_last_seen) == len(metrics.client_not_after) == MOST_CLIENTS
        assert metrics.client_requests["spiffe://prod/0"] == 2
        assert not {"spiffe://prod/1", "spiffe://prod/2"} & {*metrics.client_requests, *metrics.client_not_after}
        assert metrics.client_requests[OTHER] == 2
        assert sum(metrics.client_requests.values()) == MOST_CLIENTS + 3

    def test_many_clients_in_turn_cost_no_memory(self) -> None:
        """However many different ones come."""
        metrics = Metrics()
        for moment, principal in enumerate(principals(MOST_CLIENTS * 10)):
            metrics.client_request(principal, 1.0, float(moment))
        assert len(metrics.client_requests) == MOST_CLIENTS + 1
        assert len(metrics.client_not_after) == MOST_CLIENTS
        assert metrics.client_requests[OTHER] == MOST_CLIENTS * 9

    def test_client_called_other_is_one_of_them(self) -> None:
        """It has no series of its own that would stand for many."""
        metrics = Metrics()
        metrics.client_request(OTHER, 1.0, 1.0)
        metrics.client_request(OTHER, 1.0, 1.0)
        assert metrics.client_requests == {OTHER: 2}
        assert metrics.client_not_after == metrics.client_last_seen == {}

    def test_long_name_is_cut(self) -> None:
        """Its holder may have chosen it."""
        metrics = Metrics()
        metrics.client_request("x" * 60_000, 1.0, 1.0)
        assert metrics.client_requests == {"x" * LONGEST_PRINCIPAL: 1}


def busy(factor: int = 1) -> Metrics:
    """A process that has counted something in every family."""
    metrics = Metrics()
    for field in attrs.fields(Metrics):
        if isinstance(getattr(metrics, field.name), int | float):
            setattr(metrics, field.name, 7 * factor)
    for _ in range(factor):
        metrics.handshake_done("TLSv1.3", resumed=True)
        metrics.handshake_failed("timeout")
        metrics.client_rejected("expired")
        count(metrics, 502, "upstream_reset", 0.004)
        metrics.client_request("web", 5000.0 * factor, 10.0 * factor)
    metrics.upstream_connect_failures = {"refused": factor}
    metrics.upstream_healthy = {("app", "127.0.0.1:8080"): 1}
    metrics.upstream_ejections = {"app": factor}
    metrics.tunnels_ended = {"upstream_reset": factor}
    metrics.http2_limited_frames = {"ping": factor}
    metrics.http2_faults = {"ping_flood": factor}
    metrics.grpc_calls = {"14": factor}
    metrics.reloads = {"ok": factor}
    metrics.reload_success_at = 20.0 * factor
    metrics.certificate_not_after = {("leaf", "CN=localhost", "1"): 30.0 * factor}
    metrics.crl_next_update = {"CN=CA": 40.0 * factor}
    metrics.build_info = {("1", "2", "3"): 1}
    return metrics


class TestDump:
    def test_round_trip_loses_nothing(self) -> None:
        """What is loaded is what was dumped, also after JSON, in every family."""
        metrics = busy()
        assert all(samples for samples in metrics.dump().values())
        assert Metrics.load(json.loads(json.dumps(metrics.dump()))) == metrics

    def test_loaded_metrics_count_on(self) -> None:
        """A process that takes over goes on where the other ended, without changing the dump."""
        dump = busy().dump()
        before = json.dumps(dump)
        metrics = Metrics.load(dump)
        count(metrics, 502, "upstream_reset", 0.004)
        assert metrics.responses == {502: 2}
        assert sum(metrics.request_duration.counts) == 2
        assert json.dumps(dump) == before

    def test_dump_is_a_copy(self) -> None:
        """What is counted afterwards does not change it."""
        metrics = busy()
        dump = metrics.dump()
        before = json.dumps(dump)
        count(metrics, 502, "upstream_reset", 0.004)
        assert json.dumps(dump) == before

    def test_missing_family_is_zero(self) -> None:
        """A dump of nothing is a process that has served nobody."""
        assert Metrics.load({}) == Metrics()


Step = Callable[[Metrics], None]

STEPS: st.SearchStrategy[Step] = st.one_of(
    st.tuples(st.sampled_from([0, 200, 502]), st.sampled_from(["", "reset"]), st.integers(0, 100)).map(
        # Quarters of seconds, whose sums are exact.
        lambda drawn: lambda metrics: count(metrics, drawn[0], drawn[1], drawn[2] / 4)
    ),
    st.sampled_from(["timeout", "plain_http"]).map(lambda reason: lambda metrics: metrics.handshake_failed(reason)),
    st.sampled_from(["TLSv1.2", "TLSv1.3"]).map(
        lambda version: lambda metrics: metrics.handshake_done(version, resumed=version == "TLSv1.3")
    ),
    st.tuples(st.sampled_from(["web", "batch", OTHER]), st.integers(1, 100)).map(
        lambda drawn: lambda metrics: metrics.client_request(drawn[0], 1.0, float(drawn[1]))
    ),
)


class TestMerge:
    @given(st.lists(st.lists(STEPS, max_size=20), max_size=5))
    def test_counters_are_those_of_one_process(self, processes: list[list[Step]]) -> None:
        """However the work was spread, the sums are what one process would have counted for all of it."""
        alone, dumps = Metrics(), []
        for steps in processes:
            metrics = Metrics()
            for step in steps:
                step(metrics)
                step(alone)
            dumps.append(metrics.dump())
        merged = Metrics.load(merge(dumps))
        for field in attrs.fields(Metrics):
            if field.metadata and field.name not in ("client_last_seen", "client_not_after"):
                assert getattr(merged, field.name) == getattr(alone, field.name), field.name

    @pytest.mark.parametrize(
        ("attribute", "expected"),
        [
            ("connections_active", 21),
            ("upstream_open", 21),
            ("upstream_waiting", 21),
            ("ready", 7),
            ("draining", 14),
            ("started_at", 14),
            ("reload_success_at", 20.0),
            ("certificate_not_after", {("leaf", "CN=localhost", "1"): 30.0}),
            ("crl_next_update", {"CN=CA": 40.0}),
            ("client_not_after", {"web": 10_000.0}),
            ("client_last_seen", {"web": 20.0}),
            ("client_requests", {"web": 3}),
            ("build_info", {("1", "2", "3"): 1}),
        ],
    )
    def test_each_gauge_comes_together_in_its_way(self, attribute: str, expected: object) -> None:
        """Levels add up; of states and dates the one counts that an alert should see."""
        assert getattr(Metrics.load(merge([busy(1).dump(), busy(2).dump()])), attribute) == expected

    def test_nothing_is_a_process_that_served_nobody(self) -> None:
        """Before the first worker has reported, all is zero."""
        assert Metrics.load(merge([])) == Metrics()

    def test_clients_of_all_processes_are_kept_one_by_one(self) -> None:
        """Those that one process counts among the others today, the next merge would have to take out again."""
        merged = Metrics.load(merge([of_clients("a").dump(), of_clients("b").dump()]))
        assert merged.client_requests == {f"{name} {number}": 1 for name in "ab" for number in range(MOST_CLIENTS)}

    def test_order_does_not_matter(self) -> None:
        """Workers report as they come."""
        dumps = [busy(factor).dump() for factor in (1, 2, 3)]
        assert Metrics.load(merge(dumps)) == Metrics.load(merge(dumps[::-1]))


def of_clients(name: str, first_seen: float = 1.0) -> Metrics:
    """A process with as many clients as it counts one by one, each of which asked once."""
    metrics = Metrics()
    for number in range(MOST_CLIENTS):
        metrics.client_request(f"{name} {number}", 1.0, first_seen + number)
    return metrics


class TestKeep:
    def test_sums_do_not_go_back_when_a_process_ends(self) -> None:
        """Its counters stay, its connections do not."""
        gone, alive = busy(2), busy(1)
        merged = Metrics.load(merge([keep({}, gone.dump()), alive.dump()]))
        assert merged.responses == {502: 3}
        assert sum(merged.request_duration.counts) == 3
        assert merged.connections_active == 7

    def test_dates_of_those_that_live_are_not_touched(self) -> None:
        """What has ended has no key material, and no moment of a reload that could be the oldest."""
        merged = Metrics.load(merge([keep(keep({}, busy(1).dump()), busy(1).dump()), busy(3).dump()]))
        assert merged.reload_success_at == 60.0
        assert merged.certificate_not_after == {("leaf", "CN=localhost", "1"): 90.0}

    def test_clients_stay_bounded(self) -> None:
        """Those seen last by any process are kept, and the requests of the rest are not lost."""
        late, early = of_clients("late", 1000.0), of_clients("early")
        early.client_request("late 0", 1.0, 5000.0)  # and makes room for itself there
        kept = Metrics.load(keep(keep({}, late.dump()), early.dump()))
        assert kept.client_last_seen.keys() == {f"late {number}" for number in range(MOST_CLIENTS)}
        assert kept.client_not_after.keys() == kept.client_last_seen.keys()
        assert kept.client_requests["late 0"] == 2
        assert kept.client_requests[OTHER] == MOST_CLIENTS

    def test_number_of_others_never_goes_back(self) -> None:
        """From the last scrape with two full workers, over the end of both, to the first client of the next."""
        one, two, new = of_clients("one").dump(), of_clients("two").dump(), Metrics()
        new.client_request("one 0", 1.0, 2000.0)
        first = keep({}, one)
        both = keep(first, two)
        scrapes = [[one, two], [first, two], [both], [both, new.dump()]]
        found = [Metrics.load(merge(scrape)).client_requests for scrape in scrapes]
        assert [requests.get(OTHER, 0) for requests in found] == [0, 0, MOST_CLIENTS, MOST_CLIENTS]
        assert [sum(requests.values()) for requests in found] == [200, 200, 200, 201]


class TestFamilies:
    @pytest.mark.parametrize("name", FAMILIES)
    def test_name_follows_the_conventions(self, name: str) -> None:
        """Prometheus: a prefix, counters end in _total, units are base units and stand in the name."""
        family = FAMILIES[name]
        assert re.fullmatch(r"sidecar(_[a-z0-9]+)+", name)
        assert name.endswith("_total") == (family.kind is Kind.COUNTER)
        assert not re.search(r"_(ms|milliseconds|kib|kilobytes|minutes|days)(_|$)", name)
        assert family.help.endswith(".")

    def test_documentation_has_the_table(self) -> None:
        """docs/metrics.md lists what the program counts; `python -c` with `markdown_table` makes it."""
        assert markdown_table() in DOCS.read_text(encoding="utf-8")
