"""The interaction of an agent with its environment, step by step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, Self, TypeVar

from typing_extensions import override

from statevault.interaction.agent import Agent
from statevault.interaction.env import Environment
from statevault.interaction.event_mixin import InteractionPart, InteractionWhole
from statevault.interaction.interval_adjustors import IntervalAdjustor, SleepIntervalAdjustor

__all__ = ["FixedIntervalInteraction", "Interaction"]

ObsT = TypeVar("ObsT")
ActT = TypeVar("ActT")


class Interaction(InteractionWhole, Generic[ObsT, ActT]):
    """An agent in its environment. Saved under ``agent`` and ``environment``."""

    def __init__(self, agent: Agent[ObsT, ActT], environment: Environment[ObsT, ActT]) -> None:
        super().__init__()
        self.agent = agent
        self.environment = environment

    @override
    def parts(self) -> Mapping[str, InteractionPart]:
        """The agent and the environment."""
        return {"agent": self.agent, "environment": self.environment}

    def step(self) -> None:
        """Observe, decide, affect."""
        observation = self.environment.observe()
        action = self.agent.step(observation)
        self.environment.affect(action)


class FixedIntervalInteraction(Interaction[ObsT, ActT]):
    """An interaction whose steps begin at a fixed interval of the agent's time."""

    def __init__(
        self, agent: Agent[ObsT, ActT], environment: Environment[ObsT, ActT], adjustor: IntervalAdjustor
    ) -> None:
        super().__init__(agent, environment)
        self.adjustor = adjustor

    @classmethod
    def with_sleep_adjustor(
        cls,
        agent: Agent[ObsT, ActT],
        environment: Environment[ObsT, ActT],
        interval: float,
        offset: float = 0.0,
    ) -> Self:
        """Make an interaction that sleeps between its steps.

        Args:
            agent: The agent.
            environment: The environment.
            interval: Agent seconds between the beginnings of two steps.
            offset: How much earlier each sleep ends, in agent seconds.

        Raises:
            ValueError: `interval` is not positive, or `offset` is not finite.
        """
        return cls(agent, environment, SleepIntervalAdjustor(interval, offset))

    @override
    def setup(self) -> None:
        """Set up the parts, then begin the grid of deadlines."""
        super().setup()
        self.adjustor.reset()

    @override
    def step(self) -> None:
        """Take a step, then wait for the next deadline."""
        super().step()
        self.adjustor.adjust()

    @override
    def on_resumed(self) -> None:
        """Tell the parts. What the pause cost is no overrun, and is not made up for."""
        super().on_resumed()
        self.adjustor.excuse()
