"""An explicit-state model checker: every interleaving of some processes over one store, breadth first.

A process is written as a generator that yields storage calls and receives their answers, like the code that it models.
Generators can't be copied, so a process is kept as a :class:`Task`: a function, its arguments, and the answers to
the calls that it made so far; from these its next call is found by running it again, once for each task that is ever
seen. A function that returns a task goes on as that one, and so forgets the answers that no longer matter: the fewer
tasks, the fewer states.

What is local to a process (choices included) takes no step of its own: no other process can see it, so nothing is lost
by running it together with the call before. A crash needs no step either: a process that is never scheduled again has
crashed, and every state is checked in which it stopped.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple, Protocol, TypeAlias

__all__ = [
    "AnyOf",
    "Call",
    "Choose",
    "Claim",
    "Exploration",
    "Key",
    "Program",
    "Store",
    "System",
    "Task",
    "run_alone",
    "then",
]


class Key(NamedTuple):
    """An object in the store; what its content says is part of its key, as far as the model needs it."""

    kind: str
    state: str
    content: Any = ()

    def __str__(self) -> str:
        inner = sorted(map(str, self.content)) if isinstance(self.content, frozenset) else [str(self.content or "")]
        return f"{self.kind}({self.state}{': ' if any(inner) else ''}{', '.join(inner)})"


Store: TypeAlias = frozenset[Key]


class Claim(NamedTuple):
    """What the caller of a process has been told, and about which state or object."""

    what: str
    about: Key | str


class Call(Protocol):
    """One call of the storage: atomic."""

    @property
    def kind(self) -> str:
        """The kind of the objects that it reads or changes."""
        ...

    def outcomes(self, store: Store) -> Iterable[tuple[Store, Any]]:
        """What the store may become, and what the caller is told."""
        ...


@dataclass(frozen=True)
class Choose:
    """Not a call: the process may go on with any of the options."""

    options: tuple[Any, ...]


@dataclass(frozen=True)
class AnyOf:
    """One of several calls that are under way at the same time: whichever is answered first.

    The answer is which one it was, and what it was told. Unlike with :class:`Choose`, it is not settled beforehand, so
    that there are no states that differ only in what is going to be first.
    """

    calls: Mapping[str, Call]

    @property
    def kind(self) -> str:
        """None: each has its own."""
        return ""

    def outcomes(self, store: Store) -> Iterator[tuple[Store, tuple[str, Any]]]:
        """Those of all the calls."""
        for name, call in self.calls.items():
            for after, answer in call.outcomes(store):
                yield after, (name, answer)

    def __str__(self) -> str:
        return " or ".join(map(str, self.calls.values()))


Program: TypeAlias = Generator["Call | Choose", Any, "Task"]


@dataclass(frozen=True)
class Task:
    """What a process does next.

    Attributes:
        program: A generator function; None if the process has ended.
        arguments: What it is called with.
        answers: What its calls answered so far.
        claim: What its caller has been told, for invariants to hold against the store.
    """

    program: Callable[..., Program] | None
    arguments: tuple[Any, ...] = ()
    answers: tuple[Any, ...] = ()
    claim: Claim | None = None

    def next_call(self) -> Call | Choose | Task:
        """The call that it makes now, or what it goes on as."""
        if self.program is None:
            return self
        generator = self.program(*self.arguments)
        try:
            call = next(generator)
            for answer in self.answers:
                call = generator.send(answer)
        except StopIteration as stop:
            task: Task = stop.value
            return task
        return call

    def answered(self, answer: Any) -> Task:
        """The task with one more answer."""
        return replace(self, answers=(*self.answers, answer))


def then(program: Callable[..., Program] | None, *arguments: Any, claim: Claim | None = None) -> Task:
    """What a program returns to go on as another, or to end (None)."""
    return Task(program, arguments, claim=claim)


def _settle(task: Task, store: Store, private: frozenset[str]) -> Iterator[tuple[Task, Call | None, Store]]:
    """Run all that no other process can notice, until the next call that one can, or the end."""
    while True:
        call = task.next_call()
        if isinstance(call, Choose):
            for option in call.options:
                yield from _settle(task.answered(option), store, private)
            return
        if isinstance(call, Task):
            if call.program is None:
                yield call, None, store
                return
            task = call
        elif hidden := _hidden(call, private):
            for after, answer in hidden.outcomes(store):
                yield from _settle(task.answered(answer), after, private)
            return
        else:
            yield task, call, store
            return


def _hidden(call: Call, private: frozenset[str]) -> Call | None:
    """The call, or one of those that are under way, if no other process can notice it."""
    if isinstance(call, AnyOf):
        return next((AnyOf({name: one}) for name, one in call.calls.items() if one.kind in private), None)
    return call if call.kind in private else None


@dataclass(frozen=True)
class Exploration:
    """What was found.

    Attributes:
        states: How many states were reached.
        violation: Which invariant does not hold; None if all hold everywhere.
        trace: The calls that lead there; of an exploration, one of the shortest lists that do.
    """

    states: int
    violation: str | None = None
    trace: tuple[str, ...] = ()


_BITS = 21
_MASK = (1 << _BITS) - 1


class _Numbers:
    """Numbers for hashable things, in the order of their appearance."""

    def __init__(self) -> None:
        self.things: list[Any] = []
        self._numbers: dict[Any, int] = {}

    def of(self, thing: Any) -> int:
        number = self._numbers.get(thing)
        if number is None:
            number = self._numbers[thing] = len(self.things)
            self.things.append(thing)
            assert number <= _MASK, "a field of a packed state is too narrow"
        return number


class _Process:
    """The transitions of one process, each computed once: from (store, task) to what is added to the packed state."""

    def __init__(self, name: str, shift: int, stores: _Numbers, private: frozenset[str]) -> None:
        self.name = name
        self.shift = shift
        self.tasks = _Numbers()
        self._stores = stores
        self._private = private
        self._calls: list[Call | None] = []
        self._deltas: dict[int, tuple[int, ...]] = {}

    def start(self, task: Task, state: int) -> Iterator[int]:
        store: Store = self._stores.things[state & _MASK]
        for settled, call, after in _settle(task, store, self._private):
            yield state + (self._number(settled, call) << self.shift) + self._stores.of(after) - (state & _MASK)

    def claim(self, state: int) -> Claim | None:
        task: Task = self.tasks.things[state >> self.shift & _MASK]
        return task.claim

    def deltas(self, state: int) -> tuple[int, ...]:
        here, store = state >> self.shift & _MASK, state & _MASK
        found = self._deltas.get(here << _BITS | store)
        if found is None:
            found = tuple(delta for delta, _, _ in self._steps(here, store))
            self._deltas[here << _BITS | store] = found
        return found

    def labels(self, state: int) -> list[str]:
        here = state >> self.shift & _MASK
        task: Task = self.tasks.things[here]
        labels = []
        for _, answer, after in self._steps(here, state & _MASK):
            claim = f"  => {after.claim.what}" if after.claim and after.claim != task.claim else ""
            labels.append(f"{self.name}: {self._calls[here]} -> {_brief(answer)}{claim}")
        return labels

    def _number(self, task: Task, call: Call | None) -> int:
        number = self.tasks.of(task)
        if number == len(self._calls):
            self._calls.append(call)
        return number

    def _steps(self, here: int, store: int) -> Iterator[tuple[int, Any, Task]]:
        """What is added to the packed state by each outcome of the next call, with its answer and the task after it."""
        call = self._calls[here]
        if call is None:
            return
        task: Task = self.tasks.things[here]
        for after, answer in call.outcomes(self._stores.things[store]):
            for next_task, next_call, settled in _settle(task.answered(answer), after, self._private):
                number = self._number(next_task, next_call)
                yield (number - here << self.shift) + self._stores.of(settled) - store, answer, next_task


def _brief(answer: Any) -> str:
    if isinstance(answer, frozenset):
        return "{" + ", ".join(sorted(map(str, answer))) + "}"
    return str(answer)


@dataclass
class System:
    """Processes over one store.

    Attributes:
        store: What lies in the store at the start.
        processes: By name, what they do.
        network: What may happen to the store by itself: a label and the store after it.
        invariant: Given a store and the claims of all processes, in their order: what is wrong with it, or None.
        private: Kinds of objects that no process changes, or of which each looks only at its own, and no invariant at
            any: calls about them are run together with the call before, as what is local is.
    """

    store: Store
    processes: Mapping[str, Task]
    network: Callable[[Store], Iterable[tuple[str, Store]]]
    invariant: Callable[[Store, Sequence[Claim | None]], str | None]
    private: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self._stores = _Numbers()
        self._actors = [
            _Process(name, _BITS * index, self._stores, self.private) for index, name in enumerate(self.processes, 1)
        ]
        self._starts = [self._stores.of(self.store)]
        for actor, task in zip(self._actors, self.processes.values(), strict=True):
            self._starts = [begun for state in self._starts for begun in actor.start(task, state)]
        self._landings: dict[int, tuple[int, ...]] = {}
        self._verdicts: dict[tuple[Any, ...], str | None] = {}

    def explore(self, *, limit: int = 20_000_000) -> Exploration:
        """Visit every state that can be reached.

        Args:
            limit: Give up with an error beyond so many.
        """
        came_from = dict.fromkeys(self._starts, -1)
        for state in self._starts:
            if (wrong := self._check(state)) is not None:
                return Exploration(len(came_from), wrong)
        frontier = self._starts
        while frontier:
            reached: list[int] = []
            for state in frontier:
                for delta in self._deltas(state):
                    after = state + delta
                    if after not in came_from:
                        came_from[after] = state
                        if (wrong := self._check(after)) is not None:
                            path = [after]
                            while path[-1] >= 0:
                                path.append(came_from[path[-1]])
                            return Exploration(len(came_from), wrong, self._trace(path[-2::-1]))
                        reached.append(after)
            assert len(came_from) <= limit, f"more than {limit} states"
            frontier = reached
        return Exploration(len(came_from))

    def wander(self, *, walks: int, seed: int) -> Exploration:
        """Take random walks to the end: for what has too many states to be explored.

        In each walk the processes have weights of their own, so that some stand still while others do much: that is
        where protocols break, and seldom where all go at the same pace.
        """
        source = random.Random(seed)
        visited: set[int] = set()
        for _ in range(walks):
            path = [source.choice(self._starts)]
            weights = [source.random() ** 4 for _ in range(len(self._actors) + 1)]
            while steps := [
                (delta, weight / len(deltas))
                for deltas, weight in zip(self._choices(path[-1]), weights, strict=True)
                for delta in deltas
            ]:
                if source.random() < 0.1:
                    weights = [source.random() ** 4 for _ in weights]
                (delta,) = source.choices([delta for delta, _ in steps], [weight for _, weight in steps])
                path.append(path[-1] + delta)
                visited.add(path[-1])
                if (wrong := self._check(path[-1])) is not None:
                    return Exploration(len(visited), wrong, self._trace(path))
        return Exploration(len(visited))

    def _choices(self, state: int) -> list[tuple[int, ...]]:
        """What is added to a state by each step of the network, and by each of every process."""
        return [self._land(state & _MASK), *(actor.deltas(state) for actor in self._actors)]

    def _deltas(self, state: int) -> Iterator[int]:
        yield from self._land(state & _MASK)
        for actor in self._actors:
            yield from actor.deltas(state)

    def _land(self, number: int) -> tuple[int, ...]:
        found = self._landings.get(number)
        if found is None:
            found = tuple(self._stores.of(after) - number for _, after in self.network(self._stores.things[number]))
            self._landings[number] = found
        return found

    def _check(self, state: int) -> str | None:
        claims = tuple(actor.claim(state) for actor in self._actors)
        key = (state & _MASK, claims)
        if key not in self._verdicts:
            self._verdicts[key] = self.invariant(self._stores.things[state & _MASK], claims)
        return self._verdicts[key]

    def _trace(self, path: Sequence[int]) -> tuple[str, ...]:
        return tuple(self._label(before, after - before) for before, after in pairwise(path))

    def _label(self, before: int, delta: int) -> str:
        landed = self._land(before & _MASK)
        if delta in landed:
            return [label for label, _ in self.network(self._stores.things[before & _MASK])][landed.index(delta)]
        (actor,) = (actor for actor in self._actors if delta in actor.deltas(before))
        return actor.labels(before)[actor.deltas(before).index(delta)]


def run_alone(
    store: Store, task: Task, *, called: Callable[[Call], object] = lambda call: None, choice: int = 0
) -> tuple[Store, Claim | None]:
    """Run one process to its end while nobody else does anything; of several outcomes it takes the first.

    Args:
        store: What lies in the store.
        task: What the process does.
        called: Told of each call.
        choice: Which of the options it takes where it has a choice; the last one where there are not so many. And in
            which of the possible orders calls are answered that are under way at the same time.

    Returns:
        The store after it, and its last claim.
    """
    order = choice
    while task.program is not None:
        generator = task.program(*task.arguments)
        answer: Any = None
        while True:
            try:
                call = generator.send(answer)
            except StopIteration as stop:
                task = stop.value
                break
            if isinstance(call, Choose):
                answer = call.options[: choice + 1][-1]
            elif isinstance(call, AnyOf):
                order, first = divmod(order, len(call.calls))
                name, made = list(call.calls.items())[first]
                called(made)
                store, told = next(iter(made.outcomes(store)))
                answer = name, told
            else:
                called(call)
                store, answer = next(iter(call.outcomes(store)))
    return store, task.claim
