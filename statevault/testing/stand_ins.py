"""Models and buffers that do nothing of their own, answer what a test tells them to, and note their calls.

They are real models and buffers (subclasses, with the state and the syncs of such), so that a wrong call of a
method that does not exist is an error. Only what they compute is a :class:`unittest.mock.Mock`.
"""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

from typing_extensions import override

from statevault.data import DataBuffer
from statevault.model import InferenceModel, TrainingModel

__all__ = ["MockBuffer", "MockModel", "MockTrainingModel", "create_mock_buffer", "create_mock_models"]

# What of a Mock is reached through the model itself: `model.return_value = 1`, `model.assert_called_once()`.
_OF_ANSWERS = frozenset(
    {
        "assert_any_call",
        "assert_called",
        "assert_called_once",
        "assert_called_once_with",
        "assert_called_with",
        "assert_has_calls",
        "assert_not_called",
        "call_args",
        "call_args_list",
        "call_count",
        "called",
        "reset_mock",
        "return_value",
        "side_effect",
    }
)


class _Answering:
    """Makes the attributes of a mock for calls reachable on the object that is called."""

    answers: Mock
    """What the calls return and were: ``answers.return_value``, ``answers.call_args``."""

    def __getattr__(self, name: str) -> Any:
        if name in _OF_ANSWERS:
            return getattr(self.answers, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @override
    def __setattr__(self, name: str, value: Any) -> None:
        if name in _OF_ANSWERS:
            setattr(self.answers, name, value)
        else:
            super().__setattr__(name, value)


class MockModel(_Answering, InferenceModel):
    """An inference model whose answers a test sets: ``model.return_value = …``.

    Attributes:
        answers: The mock behind :meth:`infer`.
    """

    def __init__(self) -> None:
        self.answers = Mock(name="infer")

    @override
    def infer(self, *args: Any, **kwds: Any) -> Any:
        """Return the answer that the test has set, and note the call.

        Args:
            *args: Noted.
            **kwds: Noted.
        """
        return self.answers(*args, **kwds)


class MockTrainingModel(_Answering, TrainingModel[MockModel]):
    """A training model whose answers a test sets. It has no state.

    Attributes:
        answers: The mock behind :meth:`forward`.
        syncs: How often its inference model was brought up to date.
    """

    def __init__(self, has_inference_model: bool = True, inference_thread_only: bool = False) -> None:
        """Initialize.

        Args:
            has_inference_model: Whether the acting loop uses the model.
            inference_thread_only: Whether it is the only one that does.

        Raises:
            ValueError: Nobody would use the model.
        """
        self.answers = Mock(name="forward")
        self.syncs = 0
        super().__init__(has_inference_model, inference_thread_only)

    @override
    def _create_inference_model(self) -> MockModel:
        return MockModel()

    @override
    def forward(self, *args: Any, **kwds: Any) -> Any:
        """Return the answer that the test has set, and note the call.

        Args:
            *args: Noted.
            **kwds: Noted.
        """
        return self.answers(*args, **kwds)

    @override
    def sync_impl(self, inference_model: MockModel) -> None:
        """Count.

        Args:
            inference_model: Left as it is.
        """
        self.syncs += 1


class MockBuffer(DataBuffer[Any, list[Any]]):
    """A buffer that keeps all samples, of any type, in a list. It has no state.

    Attributes:
        samples: What was added, oldest first; a test may set it.
    """

    def __init__(self, max_queue_size: int | None = 1) -> None:
        """Initialize without samples.

        Args:
            max_queue_size: How many collected samples may wait; None for any number.
        """
        super().__init__(max_queue_size)
        self.samples: list[Any] = []

    @override
    def add(self, data: Any, /) -> None:
        self.samples.append(data)

    @override
    def get_data(self) -> list[Any]:
        return list(self.samples)

    @override
    def __len__(self) -> int:
        return len(self.samples)


def create_mock_models(
    has_inference_model: bool = True, inference_thread_only: bool = False
) -> tuple[MockTrainingModel, MockModel]:
    """Make a model without content, both its sides.

    Args:
        has_inference_model: Whether the training side has an inference side.
        inference_thread_only: Whether the model is hidden from trainers.

    Returns:
        The training side and the inference side; the latter is the former's, if that has one.

    Raises:
        ValueError: Nobody would use the model.
    """
    model = MockTrainingModel(has_inference_model, inference_thread_only)
    return model, model.inference_model if has_inference_model else MockModel()


def create_mock_buffer(max_queue_size: int | None = 1) -> MockBuffer:
    """Make a buffer that takes samples of any type.

    Args:
        max_queue_size: How many collected samples may wait; None for any number.
    """
    return MockBuffer(max_queue_size)
