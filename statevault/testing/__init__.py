"""For the tests of agents and trainers: components wired as :func:`statevault.launch` does, and stand-ins."""

from statevault.testing.connect import ConnectedComponents, connect_components
from statevault.testing.stand_ins import (
    MockBuffer,
    MockModel,
    MockTrainingModel,
    create_mock_buffer,
    create_mock_models,
)

__all__ = [
    "ConnectedComponents",
    "MockBuffer",
    "MockModel",
    "MockTrainingModel",
    "connect_components",
    "create_mock_buffer",
    "create_mock_models",
]
