"""Models with a training side and an inference side, so that an agent can act while it learns."""

from statevault.model.container import InferenceModelsDict, TrainingModelsDict
from statevault.model.interface import InferenceModel, TrainingModel

__all__ = ["InferenceModel", "InferenceModelsDict", "TrainingModel", "TrainingModelsDict"]
