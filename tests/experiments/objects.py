"""Algorithms and networks for the tests of experiments. They are importable, as pickles need them to be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Agent:
    """A node of a network. Equal to nothing but itself, as the agents of real networks are."""

    number: int
    neighbours: list[Agent] = field(default_factory=list, repr=False)

    def __hash__(self) -> int:
        return hash(("agent", self.number))

    def __eq__(self, other: object) -> bool:
        return self is other


class Network:
    """Agents in a ring, each of which knows its neighbours."""

    def __init__(self, size: int = 3) -> None:
        self.agents = [Agent(number) for number in range(size)]
        for place, agent in enumerate(self.agents):
            agent.neighbours = [self.agents[place - 1], self.agents[(place + 1) % size]]


class Counting:
    """An algorithm that counts its iterations in a list which the network may share."""

    def __init__(self, name: str = "counting", iterations: int = 10) -> None:
        self.name = name
        self.iterations = iterations
        self.history: list[int] = []
        self.weights: dict[Any, float] = {}

    def step(self, network: Any, iteration: int) -> None:
        self.history.append(iteration)


def stable_key(obj: Any) -> int | None:
    """The number of an agent."""
    return obj.number if isinstance(obj, Agent) else None
