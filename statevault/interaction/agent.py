"""The agent: decides on an action for each observation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Generic, Protocol, TypeVar

from typing_extensions import override

from statevault.format.names import check_component_name
from statevault.interaction.event_mixin import InteractionPart, InteractionWhole

__all__ = ["Agent", "DataCollectors", "InferenceModels"]

ObsT = TypeVar("ObsT")
ActT = TypeVar("ActT")


class InferenceModels(Protocol):
    """The models of the inference thread, by name."""

    def __getitem__(self, name: str, /) -> Any:
        """The model of that name; KeyError when there is none."""


class DataCollectors(Protocol):
    """The data collectors, by name; each can be acquired once."""

    def acquire(self, name: str, /) -> Any:
        """The collector of that name; KeyError when there is none or it was acquired before."""


class Agent(InteractionWhole, ABC, Generic[ObsT, ActT]):
    """Decides on actions. May be made of child agents, which share its models and data collectors."""

    # Class-level, so that an agent whose `__init__` does not call `super().__init__()` still works.
    _agents: Mapping[str, Agent[Any, Any]] = MappingProxyType({})
    _inference_models: InferenceModels | None = None
    _data_collectors: DataCollectors | None = None

    def __init__(self, agents: Mapping[str, Agent[Any, Any]] | None = None) -> None:
        """Make an agent.

        Args:
            agents: Child agents by name. Models, collectors and all events are passed on to them, and they
                are saved under this agent's folder by name.

        Raises:
            InvalidNameError: A name can't be that of a folder.
        """
        super().__init__()
        for name in agents or {}:
            check_component_name(name)
        self._agents = dict(agents or {})

    @abstractmethod
    def step(self, observation: ObsT) -> ActT:
        """Decide on the action that answers an observation."""

    @override
    def parts(self) -> Mapping[str, InteractionPart]:
        """The child agents."""
        return self._agents

    def attach_inference_models(self, inference_models: InferenceModels) -> None:
        """Give this agent and its children the models to infer with. Called once, at launch."""
        self._inference_models = inference_models
        for agent in self._agents.values():
            agent.attach_inference_models(inference_models)
        self.on_inference_models_attached()

    def on_inference_models_attached(self) -> None:
        """Called when the models are there: the place for :meth:`get_inference_model`."""

    def get_inference_model(self, name: str) -> Any:
        """The inference model of that name.

        Raises:
            KeyError: There is none.
            RuntimeError: No models are attached yet.
        """
        if self._inference_models is None:
            raise RuntimeError(
                f"{type(self).__name__} asked for the inference model {name!r} before models were attached: "
                "ask in on_inference_models_attached(), or later"
            )
        return self._inference_models[name]

    def attach_data_collectors(self, data_collectors: DataCollectors) -> None:
        """Give this agent and its children the data collectors. Called once, at launch."""
        self._data_collectors = data_collectors
        for agent in self._agents.values():
            agent.attach_data_collectors(data_collectors)
        self.on_data_collectors_attached()

    def on_data_collectors_attached(self) -> None:
        """Called when the collectors are there: the place for :meth:`get_data_collector`."""

    def get_data_collector(self, name: str) -> Any:
        """Acquire the data collector of that name, which nobody else can have afterwards.

        Raises:
            KeyError: There is none, or it was acquired before.
            RuntimeError: No collectors are attached yet.
        """
        if self._data_collectors is None:
            raise RuntimeError(
                f"{type(self).__name__} asked for the data collector {name!r} before collectors were attached"
                ": ask in on_data_collectors_attached(), or later"
            )
        return self._data_collectors.acquire(name)
