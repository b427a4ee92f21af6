"""`merged`: answers of several workers as one operator's."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import pytest

from sidecar.admin.operator import Check, CheckState, Cluster, Operator
from sidecar.admin.pages import ADMIN, MOST_CONNECTIONS, PartlyReloaded, Question, respond
from sidecar.merged import MergedOperator, Part, answer
from sidecar.observe.handshakes import MOST_EVENTS
from sidecar.observe.metrics import Dump, Metrics
from sidecar.settings import LogLevel
from tests.admin.fakes import BAD, CERTIFICATES, CLUSTER, DOUBTFUL, GOOD, FakeOperator, connection
from tests.support.certs import NOW

ALL_SERVE = Check("workers", CheckState.OK, "2 of 2 workers serve")


@attrs.define
class FakeCrew:
    """
    Workers that answer at once, over JSON, but for those that are silent.

    Attributes:
        operators: The workers, the oldest first.
        silent: Names of further ones.
        gone: Figures of those that have ended.
        check: What is said of all of them.
    """

    operators: Sequence[Any]
    silent: tuple[str, ...] = ()
    gone: Sequence[Dump] = ()
    check: Check = ALL_SERVE
    is_draining: bool = False
    told: list[str] = attrs.Factory(list)

    def ask(self, part: Part) -> tuple[Mapping[str, Any], Sequence[str]]:
        answers = (json.loads(json.dumps(answer(operator, part))) for operator in self.operators)
        return {f"worker {number}": body for number, body in enumerate(answers, 1)}, self.silent

    def figures(self) -> list[Dump]:
        return [*self.gone, *(operator.figures() for operator in self.operators)]

    def state(self) -> Check:
        return self.check

    def drain(self) -> None:
        self.told.append("drain")

    def set_log_level(self, level: LogLevel) -> None:
        self.told.append(level.value)


def merged(*operators: Any, **crew: Any) -> MergedOperator:
    return MergedOperator(FakeCrew(operators, **crew), lambda: ["listen: :443"], lambda: NOW)


def counted(requests: int, *, ready: int = 1) -> FakeOperator:
    return FakeOperator(metrics=Metrics(requests=requests, ready=ready))


class TestReadiness:
    @pytest.mark.parametrize(
        ("checks", "expected"),
        [
            pytest.param([(GOOD,), (GOOD,)], (GOOD,), id="all well"),
            pytest.param([(DOUBTFUL,), (attrs.evolve(DOUBTFUL, state=CheckState.OK),)], (DOUBTFUL,), id="one warns"),
            pytest.param([(attrs.evolve(BAD, state=CheckState.OK),), (BAD,)], (BAD,), id="one fails"),
            pytest.param([(BAD,), (GOOD, DOUBTFUL)], (BAD, GOOD, DOUBTFUL), id="different checks"),
            pytest.param([], (), id="no answers"),
        ],
    )
    def test_each_check_is_the_worst_of_all_workers(
        self, checks: list[tuple[Check, ...]], expected: tuple[Check, ...]
    ) -> None:
        """A request may come to any of them."""
        crew = merged(*(FakeOperator(checks=each) for each in checks))
        assert crew.readiness().checks == (ALL_SERVE, *expected)

    def test_silent_worker_is_named(self) -> None:
        """It is a warning: the others serve."""
        (check,) = merged(silent=("worker 2 (process 7)",)).readiness().checks
        assert check.state is CheckState.WARN
        assert check.text.endswith("; no answer from worker 2 (process 7)")

    def test_silent_worker_does_not_mend_a_failure(self) -> None:
        """What keeps traffic away still does."""
        failed = Check("workers", CheckState.FAIL, "0 of 2 workers serve")
        assert merged(silent=("worker 2",), check=failed).readiness().reasons

    def test_drain_is_not_ready(self) -> None:
        """From the first moment, whatever workers say."""
        assert merged(FakeOperator(), is_draining=True).readiness().reasons == ("draining",)


class TestFigures:
    def test_counters_of_all_that_are_and_were_add_up(self) -> None:
        """One scrape is the truth."""
        dump = merged(counted(3), counted(4), gone=[{"sidecar_requests_total": [[[], 10]]}]).figures()
        assert dump["sidecar_requests_total"] == [[[], 17]]

    def test_ready_is_that_of_the_whole(self) -> None:
        """One that is being replaced says that it is draining; the program is ready."""
        dump = merged(counted(1), counted(1, ready=0)).figures()
        assert dump["sidecar_ready"] == [[[], 1]]
        assert dump["sidecar_draining"] == [[[], 0]]

    def test_drain_is_that_of_the_whole(self) -> None:
        """When no worker is left to say so, too."""
        dump = merged(is_draining=True).figures()
        assert dump["sidecar_ready"] == [[[], 0]]
        assert dump["sidecar_draining"] == [[[], 1]]


class TestCertificates:
    def test_all_survives_the_channel(self) -> None:
        """Dates, chains, CAs and lists come back as the worker has them."""
        assert merged(FakeOperator(), FakeOperator()).certificates() == CERTIFICATES

    def test_last_answer_stays(self) -> None:
        """A page must not come out empty while a worker is replaced."""
        crew = FakeCrew([FakeOperator()])
        operator = MergedOperator(crew, list, lambda: NOW)
        operator.certificates()
        crew.operators = []
        assert operator.certificates() == CERTIFICATES

    def test_none_before_the_first_answer(self) -> None:
        """There is a page even then."""
        assert merged().certificates().served == ()


class TestConnections:
    def test_those_of_all_come_the_oldest_first(self) -> None:
        """As of one program."""
        crew = merged(
            FakeOperator(open=[connection(5), connection(1)]), FakeOperator(open=iter([connection(9), connection(3)]))
        )
        assert [each.age_seconds for each in crew.connections()] == [9, 5, 3, 1]

    def test_no_more_are_sent_than_the_page_can_show(self) -> None:
        """The first of each order are among them."""
        many = [connection(age, traffic=age % 4999) for age in range(5 * MOST_CONNECTIONS)]
        found = merged(FakeOperator(open=many)).connections()
        ages = {each.age_seconds for each in found}
        assert len(ages) <= 3 * MOST_CONNECTIONS
        assert {*range(MOST_CONNECTIONS), *range(4 * MOST_CONNECTIONS, 5 * MOST_CONNECTIONS), 4998} <= ages


class TestClusters:
    def test_connections_to_one_address_add_up(self) -> None:
        """The app sees one program; the shortest promise is the one to keep."""
        other = attrs.evolve(CLUSTER, failures={"x": 1}, last_error="", keep_alive_seconds=2.0)
        (found,) = merged(FakeOperator(), _with_cluster(other)).clusters()
        assert found == Cluster(
            cluster=CLUSTER.cluster,
            upstream=CLUSTER.upstream,
            open=6,
            idle=4,
            pending=2,
            connects=18,
            failures={"upstream_connect_refused": 4, "x": 1},
            last_error="refused",
            keep_alive_seconds=2.0,
        )

    def test_protocol_stays(self) -> None:
        """All workers have it from the same settings."""
        of_grpc = attrs.evolve(CLUSTER, protocol="h2c")
        (found,) = merged(_with_cluster(of_grpc), _with_cluster(of_grpc)).clusters()
        assert found.protocol == "h2c"

    def test_other_addresses_stand_beside(self) -> None:
        """While workers with other settings take over."""
        other = attrs.evolve(CLUSTER, upstream="http://127.0.0.1:9", keep_alive_seconds=None)
        assert merged(FakeOperator(), _with_cluster(other)).clusters() == [CLUSTER, other]


def _with_cluster(cluster: Cluster) -> Any:
    operator = FakeOperator()
    operator_type = type("OtherOperator", (FakeOperator,), {"clusters": lambda self: [cluster]})
    return operator_type(checks=operator.checks)


def event(reason: str, last: str, *, count: int = 1) -> dict[str, Any]:
    return {"first": last, "last": last, "count": count, "path": f"/at/{last}", "reason": reason, "versions": []}


class TestRejections:
    def test_equal_ones_are_counted_together(self) -> None:
        """The last first, as in one worker."""
        one = _with_rejections(event("expired", "2026-01-01T00:00:05Z", count=2), event("x", "2026-01-01T00:00:01Z"))
        other = _with_rejections(event("expired", "2026-01-01T00:00:03Z"), event("y", "2026-01-01T00:00:09Z"))
        assert merged(one, other).rejections() == [
            event("y", "2026-01-01T00:00:09Z"),
            {**event("expired", "2026-01-01T00:00:05Z", count=3), "first": "2026-01-01T00:00:03Z"},
            event("x", "2026-01-01T00:00:01Z"),
        ]

    def test_no_more_than_of_one_worker(self) -> None:
        """The page says how many it shows."""
        many = [[event(f"{worker} {number}", "now") for number in range(MOST_EVENTS)] for worker in range(2)]
        assert len(merged(*(_with_rejections(*events) for events in many)).rejections()) == MOST_EVENTS


def _with_rejections(*events: dict[str, Any]) -> Any:
    return type("OtherOperator", (FakeOperator,), {"rejections": lambda self: list(events)})()


class TestReload:
    def test_all_in_force_is_nothing(self) -> None:
        """As of one program."""
        assert list(merged(FakeOperator(), FakeOperator()).reload()) == []

    def test_what_fails_in_all_is_told_once(self) -> None:
        """All workers read the same files, and as of one program nothing has changed."""
        failed = FakeOperator(reload_failure=("the key does not match", "no CA"))
        found = merged(failed, failed).reload()
        assert found == ["the key does not match", "no CA"]
        assert not isinstance(found, PartlyReloaded)

    def test_what_fails_in_some_is_told_of_each(self) -> None:
        """Files may be replaced between two of them, and then they differ."""
        found = merged(FakeOperator(reload_failure=("no key", "no CA")), FakeOperator()).reload()
        assert isinstance(found, PartlyReloaded)
        assert list(found) == [
            "worker 1: nothing was changed: no key",
            "worker 1: nothing was changed: no CA",
            "worker 2: reloaded, what the settings and files say now is in force",
        ]

    def test_nobody_to_reload_is_a_failure(self) -> None:
        """Those that are started next may have what is new: it is not said that nothing changes."""
        assert isinstance(merged().reload(), PartlyReloaded)

    def test_nobody_reloads_in_a_drain(self) -> None:
        """Nor is anybody asked to; it is said that nothing changes."""
        found = merged(FakeOperator(), is_draining=True).reload()
        assert len(found) == 1
        assert not isinstance(found, PartlyReloaded)

    @pytest.mark.parametrize("failure", [(), ("no key",)], ids=["the other has", "the other has not"])
    def test_worker_without_an_answer_is_a_failure(self, failure: tuple[str, ...]) -> None:
        """Nobody may think that everything is in force, nor that nothing is."""
        found = merged(FakeOperator(reload_failure=failure), silent=("worker 2 (process 7)",)).reload()
        assert isinstance(found, PartlyReloaded)
        assert len(found) == 2
        assert found[1].startswith("worker 2 (process 7): no answer yet;")


class TestActs:
    def test_all_are_told(self) -> None:
        """A drain and a level are for every worker."""
        crew = FakeCrew([FakeOperator()])
        operator = MergedOperator(crew, list, lambda: NOW)
        operator.drain()
        assert "debug" in operator.set_log_level(LogLevel.DEBUG)
        assert crew.told == ["drain", "debug"]


class TestPages:
    @pytest.mark.parametrize("path", [path for path, route in ADMIN.routes.items() if "GET" in route.methods])
    def test_every_page_can_be_made(self, path: str) -> None:
        """It is an operator like any other."""
        operator: Operator = merged(_with_rejections(event("expired", "now")))
        assert respond(Question("GET", path), operator, ADMIN).status == 200
