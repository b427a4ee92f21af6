"""`crew`: which workers there are, in time; processes and channels are fakes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
import pytest
from twisted.internet import task
from twisted.logger import capturedLogs

from sidecar import crew as module
from sidecar.admin.operator import CheckState
from sidecar.config.load import load
from sidecar.control import Kind, Message, pack_problems
from sidecar.crew import Crew
from sidecar.errors import Problem
from sidecar.merged import Part
from sidecar.observe import logs
from sidecar.observe.metrics import MOST_CLIENTS, OTHER, Metrics, merge
from sidecar.settings import LogLevel, Settings

PROBLEM = Problem("SIDECAR_TLS_CERT", "environment", "is missing", "put it there")


@attrs.define(eq=False)
class FakeWorker:
    """
    Process and channel of a worker.

    Attributes:
        status: How it ended; None while it runs.
        sent: What it was told, without questions.
        questions: Those that it has not answered.
        requests: What it says that it has counted.
        answers: Whether it answers at once when it is waited for.
        dies_when_waited_for: Its channel closes then.
        rest: What it has sent, but nobody has read.
    """

    pid: int
    received: Callable[[Message], None]
    closed: Callable[[], None]
    status: int | None = None
    sent: list[Any] = attrs.Factory(list)
    questions: list[Message] = attrs.Factory(list)
    requests: int = 0
    answers: bool = True
    rest: list[Message] = attrs.Factory(list)
    is_open: bool = True
    was_killed: bool = False
    dies_when_waited_for: bool = False

    # -- process --

    def poll(self) -> int | None:
        return self.status

    def kill(self) -> None:
        self.was_killed = True
        self.status = -9

    # -- channel --

    def send(self, message: Message) -> None:
        if message.kind is Kind.QUESTION:
            self.questions.append(message)
        else:
            self.sent.append(message.kind if message.body is None else (message.kind, message.body))

    def read_rest(self) -> None:
        for message in self.rest:
            self.received(message)
        self.closed()

    def close(self) -> None:
        self.is_open = False

    # -- for the test --

    def answer(self) -> None:
        questions, self.questions = self.questions, []
        for question in questions:
            figures = Metrics(requests=self.requests).dump()
            body = figures if question.body == "figures" else f"{question.body} of {self.pid}"
            self.received(Message(Kind.ANSWER, body, question.id))


class Lab:
    """A crew with a clock."""

    def __init__(self, count: int = 2, **settings: str) -> None:
        self.clock = task.Clock()
        self.workers: list[FakeWorker] = []
        self.events: list[str] = []
        self.launch_error: OSError | None = None
        self.settings: Settings = load({"wait": "10s", "drain_timeout": "30s", **settings}, {}).settings
        self.crew = Crew(
            count,
            launch=self._launch,
            settings=lambda: self.settings,
            reloaded=lambda: self.events.append("reloaded"),
            close_listeners=lambda: self.events.append("listener closed"),
            stopped=lambda: self.events.append("stopped"),
            reactor=self.clock,
            pump=self._pump,
        )
        self.crew.start()

    def _launch(self, received: Any, closed: Any) -> tuple[Any, Any]:
        if self.launch_error is not None:
            raise self.launch_error
        worker = FakeWorker(100 + len(self.workers), received, closed)
        self.workers.append(worker)
        return worker, worker

    def _pump(self, channels: Sequence[Any], seconds: float) -> None:
        ready = [channel for channel in channels if channel.answers]
        for channel in ready:
            if channel.dies_when_waited_for:
                channel.closed()
            else:
                channel.answer()
        if not ready:
            self.clock.advance(seconds)

    def serve(self, *workers: FakeWorker) -> None:
        """These serve now; none: all that run."""
        for worker in workers or tuple(self.running):
            worker.received(Message(Kind.READY))

    @property
    def running(self) -> list[FakeWorker]:
        return [worker for worker in self.workers if worker.status is None]

    def end(self, worker: FakeWorker, status: int = 0, *rest: Message) -> None:
        """It ends, after it has sent *rest*."""
        worker.status = status
        worker.rest = list(rest)
        self.crew.reap()

    def state(self) -> str:
        check = self.crew.state()
        return f"{check.state.value}: {check.text}"


@pytest.fixture
def lab() -> Lab:
    """Two workers that serve."""
    lab = Lab()
    lab.serve()
    return lab


class TestStart:
    def test_all_are_started_at_once(self) -> None:
        """They do not depend on each other."""
        lab = Lab(3)
        assert len(lab.running) == 3
        assert lab.state() == "fail: 0 of 3 workers serve"
        lab.serve(lab.workers[0])
        assert lab.state() == "warn: 1 of 3 workers serve"
        lab.serve(*lab.workers[1:])
        assert lab.state() == "ok: 3 of 3 workers serve"

    def test_one_that_cannot_start_ends_the_whole(self) -> None:
        """A restart would not help; its reasons are the program's."""
        lab = Lab()
        lab.end(lab.workers[0], 78, Message(Kind.FAILED, pack_problems([PROBLEM])))
        assert lab.workers[1].was_killed
        assert lab.events == ["listener closed", "stopped"]
        assert lab.crew.problems == (PROBLEM,)

    def test_one_that_never_serves_is_killed(self) -> None:
        """After the time for files to come, and a minute."""
        lab = Lab(1)
        lab.clock.advance(69.9)
        assert not lab.workers[0].was_killed
        lab.clock.advance(0.2)
        assert lab.workers[0].was_killed

    def test_want_of_processes_is_waited_out(self) -> None:
        """It passes, or the operator sees the log."""
        lab = Lab(1)
        lab.launch_error = OSError(11, "Resource temporarily unavailable")
        lab.end(lab.workers[0], 1)
        lab.clock.advance(0.1)
        assert len(lab.workers) == 1
        lab.launch_error = None
        lab.clock.advance(0.2)
        assert len(lab.workers) == 2


class TestReplacement:
    def test_dead_worker_is_replaced_after_a_moment(self, lab: Lab) -> None:
        """0.1 s the first time."""
        lab.end(lab.workers[0], -9)
        assert lab.state() == "warn: 1 of 2 workers serve"
        lab.clock.advance(0.09)
        assert len(lab.running) == 1
        lab.clock.advance(0.02)
        assert len(lab.running) == 2

    def test_pause_doubles_up_to_ten_seconds(self) -> None:
        """One that dies again and again must not take the CPU from those that serve."""
        lab = Lab(1)
        pauses = []
        for _ in range(10):
            lab.end(lab.workers[-1], 1)
            died_at, count = lab.clock.seconds(), len(lab.workers)
            while len(lab.workers) == count:
                lab.clock.advance(0.05)
            pauses.append(round(lab.clock.seconds() - died_at, 1))
        assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0, 10.0]

    def test_long_service_is_forgiven(self) -> None:
        """What dies after a while did not die of its start."""
        lab = Lab(1)
        for _ in range(5):
            lab.serve(lab.workers[-1])
            lab.clock.advance(module.STEADY_SECONDS)
            lab.end(lab.workers[-1], -9)
            lab.clock.advance(0.11)
        assert len(lab.workers) == 6

    def test_one_that_cannot_start_beside_others_is_an_alarm(self, lab: Lab) -> None:
        """Those that serve go on; the alarm lasts until one starts."""
        lab.end(lab.workers[0], -9)
        lab.clock.advance(0.2)
        lab.end(lab.workers[2], 78, Message(Kind.FAILED, pack_problems([PROBLEM])))
        assert lab.crew.problems == ()
        assert lab.state() == f"warn: 1 of 2 workers serve; a new one could not start: {PROBLEM}"
        lab.clock.advance(0.3)
        lab.serve(lab.workers[3])
        assert lab.state() == "ok: 2 of 2 workers serve"

    def test_service_that_has_been_is_not_given_up(self) -> None:
        """Also while no other worker serves it is tried again, after at most ten seconds, for as long as it takes."""
        lab = Lab(1)
        lab.serve()
        lab.end(lab.workers[0], -9)
        with capturedLogs() as log:
            for number in range(1, 12):
                lab.clock.advance(module.LONGEST_PAUSE_SECONDS)
                assert len(lab.workers) == number + 1
                lab.end(lab.workers[number], 78, Message(Kind.FAILED, pack_problems([PROBLEM])))
        assert log[-1]["others"] == "none serves; trying again in 10.0 s"
        assert (lab.crew.problems, lab.events) == ((), [])
        assert lab.state() == f"fail: 0 of 1 workers serve; a new one could not start: {PROBLEM}"
        lab.clock.advance(module.LONGEST_PAUSE_SECONDS)
        lab.serve(lab.workers[-1])
        assert lab.state() == "ok: 1 of 1 workers serve"

    def test_one_whose_channel_is_of_no_use_is_killed(self, lab: Lab) -> None:
        """It could not be told anything any more; most have ended by then."""
        lab.workers[0].closed()
        lab.clock.advance(module.END_SECONDS)
        assert lab.workers[0].was_killed

    def test_process_that_is_none_of_ours_changes_nothing(self, lab: Lab) -> None:
        """A signal says only that some child has ended."""
        lab.crew.reap()
        assert len(lab.workers) == 2
        assert lab.crew.pids == {100, 101}


class TestRoll:
    def test_each_new_one_serves_before_an_old_one_goes(self, lab: Lab) -> None:
        """One after another, so that there are never fewer than two, nor more than three."""
        first, second = lab.workers
        lab.crew.roll()
        third = lab.workers[2]
        assert (len(lab.workers), first.sent, second.sent) == (3, [], [])
        lab.serve(third)
        assert (first.sent, second.sent) == ([(Kind.DRAIN, True)], [])
        assert len(lab.workers) == 3
        lab.end(first)
        assert len(lab.workers) == 4
        lab.serve(lab.workers[3])
        assert second.sent == [(Kind.DRAIN, True)]
        lab.end(second)
        assert len(lab.workers) == 4
        assert lab.state() == "ok: 2 of 2 workers serve"

    def test_second_request_replaces_the_new_ones_too(self, lab: Lab) -> None:
        """Whoever asks again has changed something again."""
        lab.crew.roll()
        lab.serve(lab.workers[2])
        lab.crew.roll()
        for _ in range(10):
            for worker in lab.running:
                if worker.sent:
                    lab.end(worker)
            lab.serve(*[each for each in lab.running if each.pid == lab.workers[-1].pid])
        assert [worker.pid for worker in lab.running] == [103, 104]

    def test_one_that_cannot_start_ends_the_replacement(self, lab: Lab) -> None:
        """The old ones stay."""
        lab.crew.roll()
        lab.end(lab.workers[2], 78, Message(Kind.FAILED, pack_problems([PROBLEM])))
        lab.clock.advance(60)
        assert (len(lab.workers), len(lab.running)) == (3, 2)
        assert "could not start" in lab.state()

    def test_one_that_dies_at_start_is_tried_again(self, lab: Lab) -> None:
        """With the pause of any that dies."""
        lab.crew.roll()
        lab.end(lab.workers[2], -9)
        assert len(lab.workers) == 3
        lab.clock.advance(0.11)
        assert len(lab.workers) == 4

    def test_old_one_that_does_not_end_is_killed(self, lab: Lab) -> None:
        """After its drain timeout and a little more."""
        lab.crew.roll()
        lab.serve(lab.workers[2])
        lab.clock.advance(30 + module.END_SECONDS)
        assert lab.workers[0].was_killed
        assert not lab.workers[1].was_killed


class TestDrain:
    def test_all_are_told_and_waited_for(self, lab: Lab) -> None:
        """Our own listening socket goes first, so that theirs are the last."""
        lab.crew.stop()
        assert lab.events == ["listener closed"]
        assert [worker.sent for worker in lab.workers] == [[(Kind.DRAIN, False)]] * 2
        assert lab.state() == "ok: workers that are finishing: 2"
        lab.end(lab.workers[0])
        lab.end(lab.workers[1])
        lab.crew.reap()
        assert lab.events == ["listener closed", "stopped"]
        assert not lab.clock.getDelayedCalls()

    def test_second_stop_forces(self, lab: Lab) -> None:
        """And kills what does not end even then."""
        lab.crew.stop()
        lab.crew.stop()
        assert all(worker.sent == [(Kind.DRAIN, False), Kind.FORCE] for worker in lab.workers)
        lab.clock.advance(module.END_SECONDS)
        assert all(worker.was_killed for worker in lab.workers)

    def test_nobody_is_replaced_any_more(self, lab: Lab) -> None:
        """Neither those that die nor, half-way, those of a rolling replacement."""
        lab.crew.roll()
        lab.crew.drain()
        lab.crew.drain()
        lab.serve(lab.workers[2])
        lab.end(lab.workers[0], -9)
        lab.clock.advance(20)
        assert len(lab.workers) == 3
        assert lab.workers[2].sent == [(Kind.DRAIN, False)]

    def test_one_that_was_starting_may_still_say_that_it_serves(self) -> None:
        """It had not heard yet; it ends as it was told."""
        lab = Lab(1)
        lab.crew.stop()
        lab.serve()
        lab.crew.roll()
        assert lab.state() == "ok: workers that are finishing: 1"
        lab.end(lab.workers[0])
        assert lab.events == ["listener closed", "stopped"]

    def test_without_workers_it_ends_at_once(self) -> None:
        """In the pause before the next is started, for one."""
        lab = Lab(1)
        lab.end(lab.workers[0], 1)
        lab.crew.stop()
        assert lab.events == ["listener closed", "stopped"]


class TestReload:
    def test_all_are_told(self, lab: Lab) -> None:
        """And nobody waits for them."""
        lab.crew.reload()
        assert [[question.body for question in worker.questions] for worker in lab.workers] == [["reload"]] * 2
        assert lab.events == ["reloaded"]

    def test_one_that_was_starting_is_told_when_it_serves(self, lab: Lab) -> None:
        """It may have read the settings of before."""
        lab.crew.roll()
        lab.clock.advance(0.1)
        lab.crew.reload()
        assert lab.workers[2].questions == []
        lab.serve(lab.workers[2])
        assert [question.body for question in lab.workers[2].questions] == ["reload"]

    def test_stopping_program_stays_as_it_is(self, lab: Lab) -> None:
        """Nobody would be served with what is new."""
        lab.crew.stop()
        lab.crew.reload()
        assert lab.events == ["listener closed"]


class TestAsk:
    def test_answers_come_in_the_order_of_the_workers(self, lab: Lab) -> None:
        """The one that has served for longest first."""
        answers, silent = lab.crew.ask(Part.READINESS)
        assert list(answers.items()) == [
            ("worker 1 (process 100)", "readiness of 100"),
            ("worker 2 (process 101)", "readiness of 101"),
        ]
        assert silent == []

    def test_silent_one_is_waited_for_once(self, lab: Lab) -> None:
        """A second for the first question; after that it is only named, until it has answered."""
        lab.workers[0].answers = False
        expected = {"worker 2 (process 101)": "rejections of 101"}, ["worker 1 (process 100)"]
        started_at = lab.clock.seconds()
        assert lab.crew.ask(Part.REJECTIONS) == expected
        assert lab.clock.seconds() - started_at == pytest.approx(module.ASK_SECONDS)
        started_at = lab.clock.seconds()
        assert lab.crew.ask(Part.REJECTIONS) == expected
        assert lab.clock.seconds() == started_at
        lab.workers[0].answer()
        lab.workers[0].answers = True
        assert len(lab.crew.ask(Part.REJECTIONS)[0]) == 2

    def test_silent_one_is_told_to_reload(self, lab: Lab) -> None:
        """Nobody waits for its answers to pages any more, but it must not keep what all others drop."""
        lab.workers[0].answers = False
        lab.crew.ask(Part.REJECTIONS)
        lab.crew.ask(Part.RELOAD)
        assert [question.body for question in lab.workers[0].questions] == ["rejections", "reload"]

    def test_late_answer_is_not_taken_for_another(self, lab: Lab) -> None:
        """By its number."""
        lab.workers[0].answers = False
        lab.crew.ask(Part.REJECTIONS)
        late = lab.workers[0].questions
        lab.workers[0].answer()
        lab.workers[0].answers = True
        assert lab.crew.ask(Part.CLUSTERS)[0]["worker 1 (process 100)"] == "clusters of 100"
        assert late

    def test_one_that_dies_meanwhile_is_not_waited_for(self, lab: Lab) -> None:
        """Its channel says so at once."""
        lab.workers[0].dies_when_waited_for = True
        started_at = lab.clock.seconds()
        expected = {"worker 2 (process 101)": "rejections of 101"}, ["worker 1 (process 100)"]
        assert lab.crew.ask(Part.REJECTIONS) == expected
        assert lab.clock.seconds() == started_at

    @pytest.mark.parametrize(
        ("part", "count"),
        [
            (Part.READINESS, 2),
            (Part.CERTIFICATES, 2),
            (Part.RELOAD, 2),
            (Part.CONNECTIONS, 3),
            (Part.CLUSTERS, 3),
            (Part.REJECTIONS, 3),
            (Part.FIGURES, 3),
        ],
    )
    def test_one_that_is_replaced_is_asked_for_what_it_still_has(self, lab: Lab, part: Part, count: int) -> None:
        """Its connections count until they end; its readiness does not."""
        lab.crew.roll()
        lab.serve(lab.workers[2])
        assert len(lab.crew.ask(part)[0]) == count


def requests(lab: Lab) -> int:
    ((_, count),) = merge(lab.crew.figures())["sidecar_requests_total"]
    return int(count)


class TestFigures:
    def test_last_words_of_one_that_ends_are_kept(self, lab: Lab) -> None:
        """What it counted until its end is in the sum for ever."""
        lab.crew.roll()
        lab.serve(lab.workers[2])
        lab.end(lab.workers[0], 0, Message(Kind.FAREWELL, Metrics(requests=5, connections_active=3).dump()))
        assert requests(lab) == 5
        assert merge(lab.crew.figures())["sidecar_downstream_connections_active"] == [[[], 0]]

    def test_one_that_is_killed_counts_as_it_was_seen_last(self, lab: Lab) -> None:
        """It is looked at every second."""
        lab.workers[0].requests = 7
        lab.clock.advance(module.LOOK_SECONDS)
        lab.workers[0].answer()
        lab.end(lab.workers[0], -9)
        assert requests(lab) == 7

    def test_silent_one_counts_as_it_was_seen_last(self, lab: Lab) -> None:
        """A sum that leaves it out would go back."""
        lab.workers[0].requests = lab.workers[1].requests = 4
        lab.crew.ask(Part.FIGURES)
        lab.workers[0].answers = False
        lab.crew.ask(Part.FIGURES)
        assert requests(lab) == 8

    def test_silent_one_is_not_looked_at_again(self, lab: Lab) -> None:
        """Questions must not pile up."""
        lab.clock.advance(module.LOOK_SECONDS)
        lab.clock.advance(module.LOOK_SECONDS)
        assert [len(worker.questions) for worker in lab.workers] == [1, 1]

    def test_clients_of_those_that_have_ended_are_kept_within_bounds(self, lab: Lab) -> None:
        """Each worker leaves as many as it had; what the sum counts for others only grows."""
        for number in range(3):
            metrics = Metrics()
            for client in range(MOST_CLIENTS):
                metrics.client_request(f"{number} {client}", 1.0, 1.0 + number)
            lab.end(lab.workers[number], -9, Message(Kind.FAREWELL, metrics.dump()))
            lab.clock.advance(15)
        requests = Metrics.load(merge(lab.crew.figures())).client_requests
        assert len(requests) == MOST_CLIENTS + 1
        assert requests[OTHER] == 2 * MOST_CLIENTS


class TestHang:
    def test_one_that_answers_nothing_is_killed_and_replaced(self, lab: Lab) -> None:
        """Half a minute after it was asked, with the reason in the log; the others go on."""
        with capturedLogs() as log:
            look(lab, 30)
            assert not lab.workers[0].was_killed
            look(lab, 1)
        assert [worker.was_killed for worker in lab.workers] == [True, False]
        assert [event["why"] for event in log if "why" in event] == ["has not answered for 30 s, and is to be replaced"]
        lab.crew.reap()
        lab.clock.advance(0.2)
        assert len(lab.running) == 2

    def test_one_that_is_slow_is_left_alone(self, lab: Lab) -> None:
        """Any answer shows that it goes on, and the count begins anew."""
        look(lab, 29)
        lab.workers[0].answer()
        look(lab, 30)
        assert not lab.workers[0].was_killed

    def test_time_that_passes_for_nobody_does_not_count(self, lab: Lab) -> None:
        """The machine was suspended, or its clock was set: the workers had no time to answer either."""
        look(lab, 1)
        lab.clock.rightNow += 3600
        look(lab, 2)
        assert not lab.workers[0].was_killed

    def test_one_that_is_replaced_has_the_time_of_its_drain(self, lab: Lab) -> None:
        """Its end is awaited anyway."""
        lab.crew.roll()
        lab.serve(lab.workers[2])
        look(lab, 34)
        assert not lab.workers[0].was_killed


def look(lab: Lab, times: int) -> None:
    """Let *times* looks go by, to which all but the first worker answer."""
    for _ in range(times):
        lab.clock.advance(module.LOOK_SECONDS)
        for worker in lab.workers[1:]:
            worker.answer()


class TestMessages:
    @pytest.mark.parametrize(
        "message",
        [Message(Kind.READY), Message(Kind.DRAIN, True), Message(Kind.ANSWER, {}, 999)],
        ids=lambda message: message.kind.value,
    )
    def test_what_no_worker_should_say_changes_nothing(self, lab: Lab, message: Message) -> None:
        """It is noted in the log."""
        lab.workers[0].received(message)
        assert lab.state() == "ok: 2 of 2 workers serve"
        assert lab.workers[0].sent == []


class TestLogLevel:
    def test_all_are_told(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        """The supervisor logs too."""
        levels: list[LogLevel] = []
        monkeypatch.setattr(logs, "set_level", levels.append)
        lab.crew.set_log_level(LogLevel.DEBUG)
        assert levels == [LogLevel.DEBUG]
        assert [worker.sent for worker in lab.workers] == [[(Kind.LOG_LEVEL, "debug")]] * 2

    def test_new_ones_are_told_until_the_next_reload(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        """A reload brings that of the settings back, in all of them."""
        monkeypatch.setattr(logs, "set_level", lambda level: None)
        lab.crew.set_log_level(LogLevel.DEBUG)
        lab.crew.roll()
        lab.serve(lab.workers[2])
        assert lab.workers[2].sent == [(Kind.LOG_LEVEL, "debug")]
        lab.crew.reload()
        lab.end(lab.workers[0])
        lab.serve(lab.workers[3])
        assert lab.workers[3].sent == []


class TestState:
    def test_no_worker_is_no_service(self, lab: Lab) -> None:
        """Then no traffic should come."""
        for worker in lab.workers:
            worker.status = -9
        lab.crew.reap()
        assert lab.crew.state().state is CheckState.FAIL


class TestHow:
    @pytest.mark.parametrize(
        ("status", "text"),
        [(1, "ended with status 1"), (-9, "was ended by SIGKILL"), (-99, "was ended by signal 99")],
    )
    def test_end_in_words(self, status: int, text: str) -> None:
        """As an operator would look for it."""
        assert module._how(status) == text
