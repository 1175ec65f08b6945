"""What goes between a Gymnasium environment and its agent."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

__all__ = ["EnvReset", "EnvStep", "GymAction", "GymObs"]

ObsT = TypeVar("ObsT")
ActT = TypeVar("ActT")


@dataclass(frozen=True, slots=True)
class EnvReset(Generic[ObsT]):
    """The first observation of an episode.

    Attributes:
        obs: The observation.
        info: What the environment says besides.
    """

    obs: ObsT
    info: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EnvStep(Generic[ObsT]):
    """What a step in an episode led to.

    Attributes:
        obs: The observation.
        reward: The reward.
        terminated: Whether the episode reached an end of its own.
        truncated: Whether it was cut short.
        info: What the environment says besides.
    """

    obs: ObsT
    reward: float
    terminated: bool
    truncated: bool
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        """Whether the episode is over, either way."""
        return self.terminated or self.truncated


@dataclass(frozen=True, slots=True)
class GymAction(Generic[ActT]):
    """An action, and whether the agent wants a new episode after it.

    Attributes:
        action: The action.
        need_reset: Whether the environment is to be reset after the step.
    """

    action: ActT
    need_reset: bool = False


GymObs: TypeAlias = EnvReset[ObsT] | EnvStep[ObsT] | tuple[EnvStep[ObsT], EnvReset[ObsT]]
"""A reset, a step, or the last step of one episode together with the reset that begins the next."""
