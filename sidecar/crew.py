"""
The workers there are and those there should be: starts them, replaces those that die, tells all of them what is wanted,
and asks all of them for what is to be known.

Everything that changes them is one step, `Crew._reconcile`, which compares what there is with what there should be.
"""

from __future__ import annotations

import enum
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import attrs
from twisted.logger import Logger

from sidecar.admin.operator import Check, CheckState
from sidecar.control import Kind, Message, pump, unpack_problems
from sidecar.errors import Problem
from sidecar.merged import Part
from sidecar.observe import logs
from sidecar.observe.metrics import Dump, keep
from sidecar.settings import LogLevel, Settings
from sidecar.spawning import Process

ASK_SECONDS: Final = 1.0
"""How long the workers together have for their answers. One that has missed it is not waited for until it answers."""

LOOK_SECONDS: Final = 1.0
"""Between two looks at the figures of each worker: what one that is killed takes with it is no older than this."""

HUNG_SECONDS: Final = 30.0
"""A worker that serves but has answered nothing for so long serves nobody either, and is replaced."""

FIRST_PAUSE_SECONDS: Final = 0.1
LONGEST_PAUSE_SECONDS: Final = 10.0
"""Before a worker is replaced that died: the first time, doubled for each that follows, and at most."""

STEADY_SECONDS: Final = 10.0
"""A worker that has served for so long did not die of how it was started."""

START_SECONDS: Final = 60.0
"""Beyond the time that the settings give for files to come, how long a worker may take until it serves."""

END_SECONDS: Final = 5.0
"""Beyond the time that a drain may take, how long a worker may take to end before it is killed."""

_log = Logger()


class State(enum.Enum):
    """What a worker is doing."""

    STARTING = "starting"
    SERVING = "serving"
    RETIRING = "retiring"


class Line(Protocol):
    """What `control.Channel` is to a supervisor."""

    def send(self, message: Message) -> None: ...
    def read_rest(self) -> None: ...
    def close(self) -> None: ...


@attrs.define(eq=False)
class Worker:
    """
    One worker, from its start until it has been taken leave of.

    Attributes:
        number: Counted from 1, never used twice.
        born: When it was started.
        line: Where it is spoken to; None once it has gone.
        served_since: When it began to serve; None before.
        figures: The last that are known.
        unanswered: What was asked, and when, by question; without those that have been answered.
        missed_looks: How many looks at it have gone by since it owes an answer and gives none.
        problems: Why it could not start, if it said so.
        kill_call: Ends it if it does not do what it is expected to.
    """

    number: int
    born: float
    process: Process
    line: Any
    state: State = State.STARTING
    served_since: float | None = None
    figures: Dump = attrs.Factory(dict)
    unanswered: dict[int, tuple[Part, float]] = attrs.Factory(dict)
    missed_looks: int = 0
    problems: tuple[Problem, ...] | None = None
    kill_call: Any = None

    @property
    def name(self) -> str:
        return f"worker {self.number} (process {self.process.pid})"

    def is_silent(self, now: float) -> bool:
        """Whether it owes an answer for too long."""
        return any(now - moment >= ASK_SECONDS for _, moment in self.unanswered.values())


Launch = Callable[[Callable[[Message], None], Callable[[], None]], tuple[Process, Line]]
"""Starts a worker whose channel has the callbacks of `Channel`; raises OSError."""


class Crew:
    """
    Keeps *count* workers serving; the `merged.Workers`.

    Attributes:
        problems: Why there can be no service; empty as long as there can.
    """

    def __init__(
        self,
        count: int,
        *,
        launch: Launch,
        settings: Callable[[], Settings],
        reloaded: Callable[[], None],
        close_listeners: Callable[[], None],
        stopped: Callable[[], None],
        reactor: Any,
        pump: Callable[[Sequence[Any], float], None] = pump,
    ) -> None:
        """
        Args:
            settings: Those in force.
            reloaded: Called when the workers are told to read settings anew.
            close_listeners: Closes our copies of the listening sockets, when a drain begins.
            stopped: Called when the last worker has gone, after a stop on request or for `problems`.
            reactor: IReactorTime.
            pump: As `control.pump`.
        """
        self.problems: tuple[Problem, ...] = ()
        self.is_draining = False
        self._count = count
        self._launch = launch
        self._settings = settings
        self._reloaded = reloaded
        self._close_listeners = close_listeners
        self._stopped = stopped
        self._reactor = reactor
        self._pump = pump
        self._workers: list[Worker] = []  # the oldest first
        self._next_number = 1
        self._next_question = 1
        self._awaited: dict[int, Any] = {}  # what `ask` waits for, by question
        self._first_kept = 1  # the number of the first worker that no rolling replacement is after
        self._has_served = False
        self._failures = 0
        self._not_before = reactor.seconds()
        self._alarm = ""
        self._reloaded_at = reactor.seconds()
        self._log_level: LogLevel | None = None  # where it is not that of the settings
        self._gone: Dump = {}
        self._look_call: Any = None
        self._retry_call: Any = None
        self._is_finished = False

    # -- what the operator wants --

    def start(self) -> None:
        """Start the workers."""
        self._reconcile()
        self._look_call = self._reactor.callLater(LOOK_SECONDS, self._look)

    def reload(self) -> None:
        """Let all workers read settings and files anew; what comes of it, they log, and /ready says."""
        if not self.is_draining:
            self._note_reload()
            for each in self._in(State.SERVING):
                self._ask(each, Part.RELOAD)

    def roll(self) -> None:
        """Replace every worker that there is by a new one, one after another; each serves before an old one goes."""
        if self.is_draining:
            return
        _log.info("replacing the workers, one after another")
        self._first_kept = self._next_number
        self._reconcile()

    def stop(self) -> None:
        """Drain; at the second call, force."""
        if self.is_draining:
            self.force()
        else:
            self.drain()

    def drain(self) -> None:
        """Let every worker finish what is in flight, and stop."""
        if self.is_draining:
            return
        self.is_draining = True
        # Those of the workers are the last: no connection is accepted by the kernel that nobody is left to serve.
        self._close_listeners()
        _log.info("draining {count} workers", count=len(self._workers))
        for each in list(self._workers):
            self._retire(each, replaced=False)
        self._reconcile()

    def force(self) -> None:
        """Cut what a drain still waits for."""
        for each in list(self._workers):
            self._tell(each, Message(Kind.FORCE))
            self._kill_in(each, END_SECONDS, "does not end when it is forced to")

    # -- merged.Workers --

    def ask(self, part: Part) -> tuple[Mapping[str, Any], Sequence[str]]:
        if part is Part.RELOAD:
            self._note_reload()
        now = self._reactor.seconds()
        of_state = {State.SERVING} if part in _OF_THOSE_THAT_STAY else {State.SERVING, State.RETIRING}
        asked = [each for each in self._workers if each.state in of_state and each.line is not None]
        # A reload is for those that are late too, or they would stay as they are.
        questions = {each: self._ask(each, part) for each in asked if part is Part.RELOAD or not each.is_silent(now)}
        self._awaited = dict.fromkeys(questions.values())
        while waiting := [each for each, number in questions.items() if each.line and number in each.unanswered]:
            left = now + ASK_SECONDS - self._reactor.seconds()
            if left <= 0:
                break
            self._pump([each.line for each in waiting], left)
        found = {each: self._awaited.pop(number) for each, number in questions.items()}
        silent = [each.name for each in asked if found.get(each) is None]
        return {each.name: body for each, body in found.items() if body is not None}, silent

    def figures(self) -> list[Dump]:
        return [self._gone, *(each.figures for each in self._workers)]

    def state(self) -> Check:
        serving = len(self._in(State.SERVING))
        text = f"{serving} of {self._count} workers serve"
        if self.is_draining:
            return Check("workers", CheckState.OK, f"workers that are finishing: {len(self._workers)}")
        if self._alarm:
            text += f"; {self._alarm}"
        if not serving:
            return Check("workers", CheckState.FAIL, text)
        return Check("workers", CheckState.OK if serving >= self._count and not self._alarm else CheckState.WARN, text)

    def set_log_level(self, level: LogLevel) -> None:
        self._log_level = level
        logs.set_level(level)
        for each in list(self._workers):
            self._tell(each, Message(Kind.LOG_LEVEL, level.value))

    # -- the crew as it is, and as it should be --

    def reap(self) -> None:
        """Take leave of workers that have ended. To be called at each SIGCHLD."""
        for each in list(self._workers):
            status = each.process.poll()
            if status is not None:
                self._ended(each, status)
        self._reconcile()

    @property
    def pids(self) -> frozenset[int]:
        """Processes whose ends `reap` is waiting for."""
        return frozenset(each.process.pid for each in self._workers)

    def _reconcile(self) -> None:
        if self.is_draining:
            if not self._workers:
                self._finish()
            return
        serving, starting = self._in(State.SERVING), self._in(State.STARTING)
        old = [each for each in serving if each.number < self._first_kept]
        if len(serving) > self._count and old:
            self._retire(old[0], replaced=True)
        missing = self._count - len(serving) - len(starting)
        if old and not starting and not self._in(State.RETIRING):
            missing = max(missing, 1)
        for _ in range(missing):
            if not self._launch_one():
                break

    def _launch_one(self) -> bool:
        """Start a worker, if it is time to."""
        now = self._reactor.seconds()
        if now < self._not_before:
            if self._retry_call is None:
                self._retry_call = self._reactor.callLater(self._not_before - now, self._retry)
            return False
        new: Worker | None = None
        try:
            process, line = self._launch(
                lambda message: self._received(new, message), lambda: self._channel_closed(new)
            )
        except OSError as error:
            self._back_off()
            _log.error("cannot start a worker: {why}", why=error.strerror)
            self._reconcile()
            return False
        new = Worker(self._next_number, now, process, line)
        self._next_number += 1
        self._workers.append(new)
        self._kill_in(new, self._settings().life.wait + START_SECONDS, "does not come to serve")
        return True

    def _retry(self) -> None:
        self._retry_call = None
        self._reconcile()

    def _back_off(self) -> None:
        self._failures += 1
        pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(self._failures - 1, 10))
        self._not_before = self._reactor.seconds() + pause

    def _retire(self, each: Worker, *, replaced: bool) -> None:
        self._tell(each, Message(Kind.DRAIN, replaced))
        each.state = State.RETIRING
        self._kill_in(each, self._settings().timeouts.drain + END_SECONDS, "does not end with its drain")

    def _ended(self, each: Worker, status: int) -> None:
        line, each.line = each.line, None
        if line is not None:
            line.read_rest()
            line.close()
        self._cancel_kill(each)
        self._workers.remove(each)
        self._gone = keep(self._gone, each.figures)
        if each.state is State.RETIRING or self.is_draining:
            _log.info("{name} has ended", name=each.name)
            return
        if each.served_since is not None and self._reactor.seconds() - each.served_since >= STEADY_SECONDS:
            self._failures = 0
        self._back_off()
        if each.problems is not None:
            self._could_not_start(each, each.problems)
        else:
            pause = self._not_before - self._reactor.seconds()
            _log.error(
                "{name} {how}; replacing it in {pause:g} s", name=each.name, how=_how(status), pause=round(pause, 1)
            )

    def _could_not_start(self, each: Worker, problems: tuple[Problem, ...]) -> None:
        """
        If none has ever served, this is the end: the operator is still looking.

        After that it is tried again, since what is wrong may be mended any moment; those that serve go on.
        """
        if not self._has_served:
            self.problems = problems
            self.is_draining = True
            self._close_listeners()
            for other in self._in(State.STARTING):
                other.process.kill()
            return
        self._first_kept = 1
        self._alarm = f"a new one could not start: {'; '.join(map(str, problems))}"
        pause = self._not_before - self._reactor.seconds()
        others = "the others go on" if self._in(State.SERVING) else f"none serves; trying again in {pause:.1f} s"
        for problem in problems:
            _log.error("{name} could not start, {others}: {problem}", name=each.name, others=others, problem=problem)

    def _finish(self) -> None:
        if self._is_finished:
            return
        self._is_finished = True
        for call in (self._look_call, self._retry_call):
            if call is not None and call.active():
                call.cancel()
        self._stopped()

    def _in(self, state: State) -> list[Worker]:
        return [each for each in self._workers if each.state is state]

    # -- to and from one of them --

    def _tell(self, each: Worker, message: Message) -> None:
        if each.line is not None:
            each.line.send(message)

    def _ask(self, each: Worker, part: Part) -> int:
        number = self._next_question
        self._next_question += 1
        each.unanswered[number] = part, self._reactor.seconds()
        self._tell(each, Message(Kind.QUESTION, part.value, number))
        return number

    def _received(self, each: Worker | None, message: Message) -> None:
        if each is None:
            return  # a channel says nothing before it has been started
        match message.kind:
            case Kind.READY if each.state is State.STARTING:
                self._serves(each)
            case Kind.READY if each.state is State.RETIRING:
                pass  # it did not know yet that it is to end
            case Kind.FAILED:
                each.problems = unpack_problems(message.body)
            case Kind.ANSWER if message.id in each.unanswered:
                self._answered(each, message)
            case Kind.FAREWELL:
                each.figures = message.body or each.figures
            case _:
                _log.error("{name} sent what it should not: {kind}", name=each.name, kind=message.kind.value)

    def _answered(self, each: Worker, message: Message) -> None:
        part, _ = each.unanswered.pop(message.id)
        each.missed_looks = 0
        if part is Part.FIGURES:
            each.figures = message.body or each.figures
        if message.id in self._awaited:
            self._awaited[message.id] = message.body

    def _serves(self, each: Worker) -> None:
        self._cancel_kill(each)
        each.state = State.SERVING
        each.served_since = self._reactor.seconds()
        self._has_served = True
        self._alarm = ""
        _log.info("{name} serves", name=each.name)
        if self._log_level is not None:
            self._tell(each, Message(Kind.LOG_LEVEL, self._log_level.value))
        if each.born < self._reloaded_at:
            self._ask(each, Part.RELOAD)  # it may have read its settings before
        self._reconcile()

    def _channel_closed(self, each: Worker | None) -> None:
        """It ends, or cannot be spoken to any more, which comes to the same."""
        if each is not None:
            each.line = None
            self._kill_in(each, END_SECONDS, "cannot be spoken to any more")

    def _note_reload(self) -> None:
        self._reloaded_at = self._reactor.seconds()
        self._log_level = None
        self._reloaded()

    def _look(self) -> None:
        self._look_call = self._reactor.callLater(LOOK_SECONDS, self._look)
        for each in self._workers:
            if each.state is State.STARTING:
                continue
            if not each.unanswered:
                self._ask(each, Part.FIGURES)
            else:
                self._missed(each)

    def _missed(self, each: Worker) -> None:
        """
        It has not answered since the last look; replace it if that goes on.

        Looks are counted, not seconds: while the machine is suspended, or when its clock is set, none goes by, and a
        worker that had no time to answer is not taken for one that hangs.
        """
        each.missed_looks += 1
        hangs = each.missed_looks * LOOK_SECONDS >= HUNG_SECONDS
        if hangs and each.state is State.SERVING and each.kill_call is None:
            self._kill_in(each, 0, f"has not answered for {HUNG_SECONDS:g} s, and is to be replaced")

    def _kill_in(self, each: Worker, seconds: float, why: str) -> None:
        self._cancel_kill(each)
        each.kill_call = self._reactor.callLater(seconds, self._kill, each, why)

    def _cancel_kill(self, each: Worker) -> None:
        if each.kill_call is not None and each.kill_call.active():
            each.kill_call.cancel()
        each.kill_call = None

    def _kill(self, each: Worker, why: str) -> None:
        _log.error("{name} {why}: killing it", name=each.name, why=why)
        each.process.kill()


_OF_THOSE_THAT_STAY: Final = frozenset({Part.READINESS, Part.CERTIFICATES, Part.RELOAD})


def _how(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"
