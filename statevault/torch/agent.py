"""Agents with torch models."""

from __future__ import annotations

from typing import Any, Generic, TypeVar, overload

from torch import nn

from statevault.interaction import Agent
from statevault.torch.inference_model import TorchInferenceModel

__all__ = ["TorchAgent"]

ObsT = TypeVar("ObsT")
ActT = TypeVar("ActT")
M = TypeVar("M", bound=nn.Module)


class TorchAgent(Agent[ObsT, ActT], Generic[ObsT, ActT]):
    """An agent that gets its torch models with their types checked."""

    @overload
    def get_torch_inference_model(self, name: str) -> TorchInferenceModel[nn.Module]: ...
    @overload
    def get_torch_inference_model(self, name: str, module_cls: type[M]) -> TorchInferenceModel[M]: ...
    def get_torch_inference_model(self, name: str, module_cls: type[nn.Module] = nn.Module) -> Any:
        """Return an inference model.

        Args:
            name: Its name.
            module_cls: The class that its module has.

        Raises:
            KeyError: There is no such model.
            ValueError: It is not a torch model.
            TypeError: Its module is of another class.
            RuntimeError: No models have been attached yet.
        """
        model = self.get_inference_model(name)
        if not isinstance(model, TorchInferenceModel):
            raise ValueError(f"the model {name!r} is a {type(model).__name__}, not a TorchInferenceModel")
        if not isinstance(model.module, module_cls):
            raise TypeError(f"the model {name!r} has a {type(model.module).__name__}, not a {module_cls.__name__}")
        return model
