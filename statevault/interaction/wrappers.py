"""Wrappers: transformations of what is observed and of what is done.

A wrapper takes part in the interaction like what it wraps: it is told all events and its state is saved.
Wherever one is expected, a plain callable will do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from typing_extensions import override

from statevault.interaction.env import Environment
from statevault.interaction.event_mixin import InteractionPart, InteractionWhole
from statevault.interaction.modular_env import Actuator, Sensor

__all__ = ["ActuatorWrapper", "EnvironmentWrapper", "LambdaWrapper", "SensorWrapper", "Wrapper"]

T = TypeVar("T")
W = TypeVar("W")
ObsT = TypeVar("ObsT")
ActT = TypeVar("ActT")
WrappedObsT = TypeVar("WrappedObsT")
WrappedActT = TypeVar("WrappedActT")


class Wrapper(InteractionPart, ABC, Generic[T, W]):
    """Makes one value of another."""

    @abstractmethod
    def wrap(self, value: T) -> W:
        """Transform a value."""

    def __call__(self, value: T) -> W:
        """Transform a value; the same as :meth:`wrap`."""
        return self.wrap(value)

    def wrap_sensor(self, sensor: Sensor[T]) -> SensorWrapper[T, W]:
        """A sensor that reads what `sensor` reads, transformed."""
        return SensorWrapper(sensor, self)

    def wrap_actuator(self, actuator: Actuator[W]) -> ActuatorWrapper[T, W]:
        """An actuator that operates `actuator` with the transformed action."""
        return ActuatorWrapper(actuator, self)


class LambdaWrapper(Wrapper[T, W]):
    """A callable as a wrapper."""

    def __init__(self, func: Callable[[T], W]) -> None:
        super().__init__()
        self._func = func

    @override
    def wrap(self, value: T) -> W:
        """Call the function."""
        return self._func(value)


class EnvironmentWrapper(
    InteractionWhole, Environment[WrappedObsT, WrappedActT], Generic[ObsT, WrappedObsT, WrappedActT, ActT]
):
    """An environment whose observations and actions are transformed."""

    def __init__(
        self,
        env: Environment[ObsT, ActT],
        obs_wrapper: Wrapper[ObsT, WrappedObsT] | Callable[[ObsT], WrappedObsT],
        act_wrapper: Wrapper[WrappedActT, ActT] | Callable[[WrappedActT], ActT],
    ) -> None:
        """Wrap an environment.

        Args:
            env: The environment.
            obs_wrapper: Makes what the agent observes of what `env` shows.
            act_wrapper: Makes what affects `env` of what the agent does.
        """
        super().__init__()
        self.env = env
        self._obs_wrapper = _as_wrapper(obs_wrapper)
        self._act_wrapper = _as_wrapper(act_wrapper)

    @override
    def parts(self) -> Mapping[str, InteractionPart]:
        """The environment and the wrappers."""
        return {"env": self.env, "obs_wrapper": self._obs_wrapper, "act_wrapper": self._act_wrapper}

    @override
    def observe(self) -> WrappedObsT:
        """Observe the environment, and transform the observation."""
        return self._obs_wrapper.wrap(self.env.observe())

    @override
    def affect(self, action: WrappedActT) -> None:
        """Transform the action, and affect the environment with it."""
        self.env.affect(self._act_wrapper.wrap(action))


class SensorWrapper(InteractionWhole, Sensor[W], Generic[T, W]):
    """A sensor whose readings are transformed."""

    def __init__(self, sensor: Sensor[T], wrapper: Wrapper[T, W] | Callable[[T], W]) -> None:
        super().__init__()
        self.sensor = sensor
        self._wrapper = _as_wrapper(wrapper)

    @override
    def parts(self) -> Mapping[str, InteractionPart]:
        """The sensor and the wrapper."""
        return {"sensor": self.sensor, "wrapper": self._wrapper}

    @override
    def read(self) -> W:
        """Read the sensor, and transform the reading."""
        return self._wrapper.wrap(self.sensor.read())


class ActuatorWrapper(InteractionWhole, Actuator[T], Generic[T, W]):
    """An actuator whose actions are transformed."""

    def __init__(self, actuator: Actuator[W], wrapper: Wrapper[T, W] | Callable[[T], W]) -> None:
        super().__init__()
        self.actuator = actuator
        self._wrapper = _as_wrapper(wrapper)

    @override
    def parts(self) -> Mapping[str, InteractionPart]:
        """The actuator and the wrapper."""
        return {"actuator": self.actuator, "wrapper": self._wrapper}

    @override
    def operate(self, action: T) -> None:
        """Transform the action, and operate the actuator with it."""
        self.actuator.operate(self._wrapper.wrap(action))


def _as_wrapper(wrapper: Wrapper[T, W] | Callable[[T], W]) -> Wrapper[T, W]:
    return wrapper if isinstance(wrapper, Wrapper) else LambdaWrapper(wrapper)
