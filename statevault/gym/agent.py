"""An agent for Gymnasium environments."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Generic, TypeVar

from typing_extensions import override

from statevault.gym.types import EnvReset, EnvStep, GymAction, GymObs
from statevault.interaction import Agent

__all__ = ["GymAgent"]

ObsT = TypeVar("ObsT")
ActT = TypeVar("ActT")


class GymAgent(Agent[GymObs[ObsT], GymAction[ActT]], Generic[ObsT, ActT]):
    """Answers resets and steps of an environment.

    Attributes:
        need_reset: Set it in :meth:`on_step` to have the environment reset after this action. It is cleared when
            an episode begins.
    """

    need_reset: bool = False

    @abstractmethod
    def on_reset(self, obs: ObsT, info: dict[str, Any]) -> ActT:
        """An episode has begun.

        Returns:
            The first action.
        """

    @abstractmethod
    def on_step(self, obs: ObsT, reward: float, terminated: bool, truncated: bool, info: dict[str, Any]) -> ActT:
        """The last action has led here.

        Returns:
            The next action. It is not used when the episode is over.
        """

    @override
    def setup(self) -> None:
        """Begin without a wish for a reset."""
        super().setup()
        self.need_reset = False

    @override
    def step(self, observation: GymObs[ObsT]) -> GymAction[ActT]:
        """Answer what the environment shows."""
        if isinstance(observation, tuple):
            last, reset = observation
            self._on_step(last)
            return self._on_reset(reset)
        if isinstance(observation, EnvReset):
            return self._on_reset(observation)
        return GymAction(self._on_step(observation), self.need_reset)

    def _on_reset(self, reset: EnvReset[ObsT]) -> GymAction[ActT]:
        self.need_reset = False
        return GymAction(self.on_reset(reset.obs, reset.info), self.need_reset)

    def _on_step(self, step: EnvStep[ObsT]) -> ActT:
        return self.on_step(step.obs, step.reward, step.terminated, step.truncated, step.info)
