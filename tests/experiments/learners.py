"""Algorithms, a problem and a network for experiments, whose history shows whatever went wrong in a resume.

A learner draws from all global generators (also numbers of which they keep a second one back), shares an object with
its network, and writes down at each iteration what it drew and what it is: two runs with equal histories were equal at
every iteration.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from statevault.experiments.results import ExperimentResult

__all__ = [
    "FAIL_AT",
    "PAUSE_S",
    "Interrupt",
    "Learner",
    "Network",
    "Problem",
    "interrupted_by",
    "learners",
    "make_tagged",
    "picture",
    "steps_of",
]

FAIL_AT = "STATEVAULT_TEST_FAIL_AT"
"""An environment variable: ``name:iteration:what``, for workers in other processes."""

PAUSE_S = "STATEVAULT_TEST_PAUSE_S"
"""An environment variable: how long a step takes, so that something can happen meanwhile."""


class Network:
    """What learners work on."""

    def __init__(self) -> None:
        self.weights = np.zeros(4)
        self.bias = torch.zeros(3)
        self.messages: list[float] = []
        self.tag = 0


class Problem:
    """Has a network, a target, and a generator of its own, which making a network may use."""

    def __init__(self) -> None:
        self.network = Network()
        self.target = np.arange(4.0)
        self.generator = np.random.default_rng(7)


def make_tagged(problem: Problem) -> Network:
    """A network that tells trials apart: it draws from the problem's generator and from the global ones."""
    network = Network()
    network.weights = problem.generator.normal(size=4)
    network.tag = random.getrandbits(48)
    return network


class Learner:
    """Moves the network's weights towards numbers that it draws.

    Args:
        name: Its name.
        iterations: How many it has.
        rate: How far it moves.
        traces: A folder for a line per step, in a file per trial; None for none.
    """

    def __init__(self, name: str, iterations: int, rate: float = 0.1, traces: Path | None = None) -> None:
        self.name = name
        self.iterations = iterations
        self.rate = rate
        self.traces = traces
        self.history: list[tuple[Any, ...]] = []
        self.messages: list[float] = []
        self.start = 0.0

    def initialize(self, network: Network) -> None:
        assert not self.history
        self.messages = network.messages
        self.start = random.random()

    def step(self, network: Network, iteration: int) -> None:
        self._trace(network, f"begin {iteration}")
        _interrupt(self.name, iteration)
        assert self.messages is network.messages, "one object became two"
        drawn = (
            random.random(),
            random.gauss(0, 1),
            float(np.random.random()),
            float(np.random.standard_normal()),
            float(torch.rand(())),
            float(torch.randn(())),
        )
        network.weights = network.weights + self.rate * (np.random.normal(size=4) - network.weights)
        network.bias = network.bias + torch.randn(3) * self.rate
        network.messages.append(drawn[0] + self.start)
        self.history.append((iteration, drawn, network.weights.tobytes(), tuple(network.bias.tolist())))
        self._trace(network, f"end {iteration}")

    def _trace(self, network: Network, what: str) -> None:
        if self.traces is not None:
            with (self.traces / f"{self.name}-{network.tag}").open("a") as file:
                file.write(f"{os.getpid()} {what}\n")


def learners(iterations: int = 6, traces: Path | None = None) -> list[Learner]:
    """Two that differ, one of which has more iterations."""
    return [Learner("slow", iterations, 0.1, traces), Learner("fast", iterations + 1, 0.5, traces)]


def picture(result: ExperimentResult) -> dict[str, list[Any]]:
    """All that a run came to, as values that can be compared."""
    return {
        name: [
            (
                trial.trial,
                trial.iteration,
                trial.algorithm.iterations,
                trial.algorithm.history,
                trial.algorithm.start,
                trial.algorithm.messages is trial.network.messages,
                trial.network.messages,
                trial.network.weights.tobytes(),
                trial.network.bias.tolist(),
                trial.network.tag,
            )
            for trial in trials
        ]
        for name, trials in result.trials.items()
    }


def steps_of(traces: Path) -> dict[str, list[tuple[int, str, int]]]:
    """By trial, in the order in which they were written: the process, "begin" or "end", the iteration."""
    steps: dict[str, list[tuple[int, str, int]]] = {}
    for path in sorted(traces.iterdir()):
        steps[path.name] = []
        for line in path.read_text().splitlines():
            pid, what, iteration = line.split()
            steps[path.name].append((int(pid), what, int(iteration)))
    return steps


class Interrupt(BaseException):
    """Ends a whole run, as Ctrl-C does."""


_hooks: list[Callable[[str, int], None]] = []


@contextmanager
def interrupted_by(hook: Callable[[str, int], None]) -> Iterator[None]:
    """Let something be called with the name and the iteration before each step that is done in this process."""
    _hooks.append(hook)
    try:
        yield
    finally:
        _hooks.remove(hook)


def _interrupt(name: str, iteration: int) -> None:
    for hook in _hooks:
        hook(name, iteration)
    time.sleep(float(os.environ.get(PAUSE_S, "0")))
    where = os.environ.get(FAIL_AT)
    if where is not None:
        victim, at, what = where.split(":")
        if victim == name and int(at) == iteration:
            if what == "die":
                os.kill(os.getpid(), 9)
            if what == "unpicklable":
                raise UnpicklableError(lambda: None)
            raise ArithmeticError("diverged")


class UnpicklableError(Exception):
    """Can't be sent to another process."""
