"""The agent and the environment that do nothing: what is measured with them is all the runtime's."""

from __future__ import annotations

from typing_extensions import override

from statevault.interaction import Agent, Environment

__all__ = ["Idler", "Nowhere"]


class Nowhere(Environment[int, int]):
    """An environment without content."""

    @override
    def observe(self) -> int:
        return 0

    @override
    def affect(self, action: int) -> None:
        pass


class Idler(Agent[int, int]):
    """An agent that answers at once."""

    @override
    def step(self, observation: int) -> int:
        return 1
