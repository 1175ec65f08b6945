"""Agents, environments, and their interaction."""

from statevault.interaction.agent import Agent
from statevault.interaction.env import Environment
from statevault.interaction.event_mixin import InteractionEventMixin, ThreadEventMixin
from statevault.interaction.interactions import FixedIntervalInteraction, Interaction
from statevault.interaction.interval_adjustors import IntervalAdjustor, SleepIntervalAdjustor
from statevault.interaction.modular_env import (
    Actuator,
    ActuatorsDict,
    ModularEnvironment,
    Sensor,
    SensorsDict,
)
from statevault.interaction.wrappers import (
    ActuatorWrapper,
    EnvironmentWrapper,
    LambdaWrapper,
    SensorWrapper,
    Wrapper,
)

__all__ = [
    "Actuator",
    "ActuatorWrapper",
    "ActuatorsDict",
    "Agent",
    "Environment",
    "EnvironmentWrapper",
    "FixedIntervalInteraction",
    "Interaction",
    "InteractionEventMixin",
    "IntervalAdjustor",
    "LambdaWrapper",
    "ModularEnvironment",
    "Sensor",
    "SensorWrapper",
    "SensorsDict",
    "SleepIntervalAdjustor",
    "ThreadEventMixin",
    "Wrapper",
]
