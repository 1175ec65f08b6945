"""Runs the threads of simulated processes, one at a time, in an order that follows from a seed.

A task is what a thread is in reality. It runs undisturbed until it is about to do something that others can see, a
call of its storage; there it stands still until it is chosen again. Between two calls of a storage a thread touches
what belongs to its process alone, so that all orders of such pieces look the same to everybody: nothing is lost.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from greenlet import getcurrent, greenlet  # type: ignore[import-untyped, unused-ignore]

from statevault.errors import StateVaultError

__all__ = ["Effect", "Process", "ProcessDiedError", "Scheduler", "Task", "ViolationError"]


class ViolationError(AssertionError):
    """An invariant does not hold."""


class ProcessDiedError(BaseException):
    """Stands for the death of the process: nothing of statevault's may catch it and go on."""


@dataclass(eq=False, slots=True)
class Process:
    """A process with threads and a clock of its own.

    Attributes:
        name: For people.
        index: Its number; unique for ever.
        is_alive: Whether its calls still have an effect.
        failed_calls: How many of its calls have failed.
        skew_s: How far its clock is ahead of the backend's.
        tasks: Those that have not ended.
        at_death: What happens when it dies.
    """

    name: str
    index: int
    is_alive: bool = True
    failed_calls: int = 0
    skew_s: float = 0.0
    tasks: list[Task] = field(default_factory=list)
    at_death: Callable[[], None] = lambda: None


@dataclass(eq=False, slots=True)
class Task:
    """A thread."""

    process: Process
    name: str
    call: tuple[str, str] = ("", "")
    thread: Any = None


@dataclass(frozen=True, slots=True)
class Effect:
    """What a call will yet do, though its caller has given it up or is dead."""

    call: tuple[str, str]
    act: Callable[[], object]


class Scheduler:
    """Chooses who runs next.

    Three ways, of which each schedule takes one: evenly at random; in bursts, so that one process gets far while others
    stand still; and by random priorities that change a few times (Burckhardt et al., "A Randomized Scheduler with
    Probabilistic Guarantees of Finding Bugs", ASPLOS 2010), which finds what needs few, but exact, preemptions.

    Args:
        source: Of all choices.
        after_step: Called after each step.
    """

    def __init__(self, source: random.Random, after_step: Callable[[], None]) -> None:
        self._source = source
        self._after_step = after_step
        self._hub = getcurrent()
        self._ready: list[Task] = []
        self._woken: deque[Task] = deque()
        self._dying: list[Process] = []
        self._late: list[Effect] = []
        self._stickiness = source.choice((0.0, 0.6, 0.8, 0.9, 0.95))
        self._by_priority = source.random() < 0.4
        self._preemption = source.choice((0.03, 0.06, 0.12))
        self._lateness = source.choice((0.01, 0.05, 0.3))
        self._priorities: dict[Process, float] = {}
        self._last: Process | None = None
        self._processes: list[Process] = []
        self.current: Task | None = None
        self.violation: ViolationError | None = None
        self._crash: BaseException | None = None
        self.steps = 0
        self.reached: Counter[str] = Counter()
        self.trace: list[tuple[int, str, tuple[str, str], str]] = []

    # -- for tasks

    def process(self, name: str) -> Process:
        """A new process."""
        process = Process(f"{name}.{len(self._processes) + 1}", len(self._processes) + 1)
        self._processes.append(process)
        return process

    def spawn(self, process: Process, name: str, run: Callable[[], object]) -> Task:
        """Start a thread. It runs up to its first call of a storage at once: nobody could tell."""
        if not process.is_alive:
            raise ProcessDiedError(process.name)
        task = Task(process, name)
        task.thread = greenlet(lambda: self._run(task, run), parent=getcurrent())
        process.tasks.append(task)
        before, self.current = self.current, task
        task.thread.switch()
        self.current = before
        return task

    def pause(self, verb: str, key: str) -> Task:
        """Stand still before a call until it is this task's turn."""
        task = self.current
        assert task is not None, "only a task may call a simulated storage"
        if not task.process.is_alive:
            raise ProcessDiedError(task.process.name)
        task.call = (verb, key)
        self._ready.append(task)
        self._leave(task)
        return task

    def park(self, waiting: list[Task]) -> None:
        """Stand still until somebody calls :meth:`wake`."""
        task = self.current
        assert task is not None
        if not task.process.is_alive:
            raise ProcessDiedError(task.process.name)
        waiting.append(task)
        self._leave(task)

    def wake(self, waiting: list[Task]) -> None:
        """Let tasks go on."""
        self._woken.extend(waiting)
        waiting.clear()

    def die(self, process: Process) -> None:
        """End a process: none of its calls has an effect from now on."""
        if process.is_alive:
            process.is_alive = False
            self.reached["dies"] += 1
            self._dying.append(process)

    def land_later(self, call: tuple[str, str], act: Callable[[], object]) -> None:
        """Let an effect come at some time from now on, or when all is over."""
        self._late.append(Effect(call, act))

    def note(self, outcome: str, *, who: str = "", call: tuple[str, str] | None = None) -> None:
        """Add a line to the trace."""
        task = self.current
        if task is not None:
            who, call = who or f"{task.process.name}/{task.name}", call or task.call
        self.trace.append((self.steps, who, call or ("", ""), outcome))

    def violated(self, what: str) -> None:
        """Note that an invariant does not hold; the first one counts."""
        if self.violation is None:
            self.violation = ViolationError(what)

    # -- for whoever runs the simulation

    def living(self) -> list[Process]:
        """The processes in which something goes on."""
        return [process for process in self._processes if process.tasks]

    def parked(self) -> list[str]:
        """The tasks that have not ended, when nothing goes on any more: they wait for ever."""
        return [f"{process.name}/{task.name}" for process in self._processes for task in process.tasks]

    def run(self) -> None:
        """Go on until every task has ended, all effects have come, or an invariant does not hold.

        Raises:
            ViolationError: It does not.
            BaseException: What else a task raised that none of statevault's errors is.
        """
        self._hub = getcurrent()
        while self.violation is None and self._crash is None and self._step():
            pass
        if self._crash is not None:
            raise self._crash
        if self.violation is not None:
            raise self.violation

    def land_all(self) -> None:
        """Let all effects come that are late."""
        while self._late:
            self._land(0)

    def busy_with(self, *calls: tuple[str, str]) -> bool:
        """Whether some task is about to make one of these calls: each a verb and what its key begins with."""
        return any(task.call[0] == verb and task.call[1].startswith(key) for task in self._ready for verb, key in calls)

    def end(self) -> None:
        """Let every process die that still lives, so that nothing of it is left behind."""
        self._late.clear()
        for process in self.living():
            process.at_death = lambda: None
            self.die(process)
        self._bury()

    def _step(self) -> bool:
        while self._woken:
            self._resume(self._woken.popleft())
            self._bury()
        if not self._ready and not self._late:
            return False
        self.steps += 1
        if self._late and (not self._ready or self._source.random() < self._lateness):
            self._land(self._source.randrange(len(self._late)))
        else:
            task = self._chosen()
            self._last = task.process
            self._ready.remove(task)
            self._resume(task)
            self._bury()
        self._after_step()
        return True

    def _land(self, index: int) -> None:
        effect = self._late.pop(index)
        self.trace.append((self.steps, "(late)", effect.call, "lands"))
        self.reached["lands late"] += 1
        effect.act()

    def _chosen(self) -> Task:
        ready = self._ready
        if len(ready) == 1:
            return ready[0]
        if self._by_priority:
            for task in ready:
                if task.process not in self._priorities:
                    self._priorities[task.process] = self._source.random()
            if self._last is not None and self._source.random() < self._preemption:
                self._priorities[self._last] = min(self._priorities.values(), default=0.0) - 1.0
            first = max((self._priorities[task.process] for task in ready), default=0.0)
            ready = [task for task in ready if self._priorities[task.process] == first]
        elif self._source.random() < self._stickiness:
            ready = [task for task in ready if task.process is self._last] or ready
        return self._source.choice(ready)

    def _resume(self, task: Task) -> None:
        self.current = task
        task.thread.switch()
        self.current = None

    def _bury(self) -> None:
        while self._dying:
            process = self._dying.pop()
            for task in list(process.tasks):
                # What it leaves by its own blocks (files in memory) goes; its calls of the storage do nothing.
                self.current = task
                if task.thread:
                    task.thread.throw(ProcessDiedError, ProcessDiedError(process.name))
                self.current = None
            self._ready = [task for task in self._ready if task.process is not process]
            self._woken = deque(task for task in self._woken if task.process is not process)
            process.at_death()

    def _leave(self, task: Task) -> None:
        back = task.thread.parent
        task.thread.parent = self._hub
        back.switch()
        if not task.process.is_alive:
            raise ProcessDiedError(task.process.name)

    def _run(self, task: Task, run: Callable[[], object]) -> None:
        try:
            run()
        except ProcessDiedError:
            pass
        except ViolationError as error:
            self.violation = self.violation or error
        except StateVaultError as error:
            self.violated(f"{task.process.name}/{task.name} ended with {error!r}")
        except BaseException as error:
            # No violation: a mistake of the simulation, or of the code, as any test would find it.
            self._crash = self._crash or error
        finally:
            task.process.tasks.remove(task)
