"""An environment made of a sensor and an actuator, each of which may be made of several."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import UserDict
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from typing_extensions import override

from statevault.format.names import check_component_name
from statevault.interaction.env import Environment
from statevault.interaction.event_mixin import InteractionPart, InteractionWhole

__all__ = ["Actuator", "ActuatorsDict", "ModularEnvironment", "Sensor", "SensorsDict"]

T = TypeVar("T")
ObsT = TypeVar("ObsT")
ActT = TypeVar("ActT")


class Sensor(InteractionPart, ABC, Generic[T]):
    """Reads something of the world."""

    @abstractmethod
    def read(self) -> T:
        """What the sensor reads now."""


class Actuator(InteractionPart, ABC, Generic[T]):
    """Does something to the world."""

    @abstractmethod
    def operate(self, action: T) -> None:
        """Carry out an action."""


class SensorsDict(UserDict[str, Sensor[Any]], InteractionWhole, Sensor[dict[str, Any]]):
    """Several sensors by name, read as one."""

    @override
    def __setitem__(self, name: str, sensor: Sensor[Any]) -> None:
        check_component_name(name)
        super().__setitem__(name, sensor)

    @override
    def parts(self) -> Mapping[str, InteractionPart]:
        """The sensors."""
        return self.data

    @override
    def read(self) -> dict[str, Any]:
        """The readings of all sensors, by name."""
        return {name: sensor.read() for name, sensor in self.items()}


class ActuatorsDict(UserDict[str, Actuator[Any]], InteractionWhole, Actuator[Mapping[str, Any]]):
    """Several actuators by name, operated as one."""

    @override
    def __setitem__(self, name: str, actuator: Actuator[Any]) -> None:
        check_component_name(name)
        super().__setitem__(name, actuator)

    @override
    def parts(self) -> Mapping[str, InteractionPart]:
        """The actuators."""
        return self.data

    @override
    def operate(self, action: Mapping[str, Any]) -> None:
        """Operate each actuator with the action of its name.

        Raises:
            KeyError: An actuator has no action; none was operated.
        """
        missing = [name for name in self if name not in action]
        if missing:
            raise KeyError(f"the action has no entry for the actuators {missing}; it has {sorted(action)}")
        for name, actuator in self.items():
            actuator.operate(action[name])


class ModularEnvironment(InteractionWhole, Environment[ObsT, ActT]):
    """An environment that is observed through a sensor and affected through an actuator."""

    def __init__(self, sensor: Sensor[ObsT], actuator: Actuator[ActT]) -> None:
        super().__init__()
        self.sensor = sensor
        self.actuator = actuator

    @classmethod
    def from_dict(
        cls, sensors: Mapping[str, Sensor[Any]], actuators: Mapping[str, Actuator[Any]]
    ) -> ModularEnvironment[dict[str, Any], Mapping[str, Any]]:
        """Make an environment of several sensors and actuators by name.

        Raises:
            InvalidNameError: A name can't be that of a folder.
        """
        return ModularEnvironment(SensorsDict(sensors), ActuatorsDict(actuators))

    @override
    def parts(self) -> Mapping[str, InteractionPart]:
        """The sensor and the actuator."""
        return {"sensor": self.sensor, "actuator": self.actuator}

    @override
    def observe(self) -> ObsT:
        """Read the sensor."""
        return self.sensor.read()

    @override
    def affect(self, action: ActT) -> None:
        """Operate the actuator."""
        self.actuator.operate(action)
