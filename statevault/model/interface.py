"""What a model is: a training side, and an inference side that is brought up to date from it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Generic

from typing_extensions import TypeVar

from statevault.state_persistence import PersistentStateMixin

__all__ = ["InferenceModel", "TrainingModel"]


class InferenceModel(ABC):
    """The side of a model that the acting loop uses."""

    @abstractmethod
    def infer(self, *args: Any, **kwds: Any) -> Any:
        """Return the model's output for an input.

        Args:
            *args: The input.
            **kwds: More of it.
        """

    def __call__(self, *args: Any, **kwds: Any) -> Any:
        """Same as :meth:`infer`."""
        return self.infer(*args, **kwds)


T = TypeVar("T", bound=InferenceModel, default=Any)


class TrainingModel(ABC, PersistentStateMixin, Generic[T]):
    """The side of a model that trainers change; its state is the model's state.

    Attributes:
        has_inference_model: Whether the acting loop uses the model.
        inference_thread_only: Whether it is the only one that does: such a model is not trained, so both
            sides may share their parameters, and no trainer gets it.
    """

    def __init__(self, has_inference_model: bool = True, inference_thread_only: bool = False) -> None:
        """Initialize.

        Args:
            has_inference_model: Whether the acting loop uses the model.
            inference_thread_only: Whether it is the only one that does.

        Raises:
            ValueError: Nobody would use the model.
        """
        super().__init__()
        if inference_thread_only and not has_inference_model:
            raise ValueError("a model for the inference thread only must have an inference model")
        self.has_inference_model = has_inference_model
        self.inference_thread_only = inference_thread_only
        self._inference_model: T | None = None

    @property
    def inference_model(self) -> T:
        """The inference side, always the same object.

        It is created at the first use, from what the training side is then: ask for it before training begins
        in another thread. (:class:`TrainingModelsDict` does.)

        Raises:
            RuntimeError: The model has none.
        """
        if not self.has_inference_model:
            raise RuntimeError(f"this {type(self).__name__} was made with has_inference_model=False")
        if self._inference_model is None:
            self._inference_model = self._create_inference_model()
        return self._inference_model

    @abstractmethod
    def _create_inference_model(self) -> T:
        """Return a new inference side that is up to date."""

    @abstractmethod
    def forward(self, *args: Any, **kwds: Any) -> Any:
        """Return the training side's output for an input.

        Args:
            *args: The input.
            **kwds: More of it.
        """

    def __call__(self, *args: Any, **kwds: Any) -> Any:
        """Same as :meth:`forward`."""
        return self.forward(*args, **kwds)

    def sync(self) -> None:
        """Bring the inference side up to date, if there is one and it does not share its parameters."""
        if self.has_inference_model and not self.inference_thread_only:
            self.sync_impl(self.inference_model)

    @abstractmethod
    def sync_impl(self, inference_model: T) -> None:
        """Bring the inference side up to date.

        Args:
            inference_model: The inference side, which another thread may be using.
        """
