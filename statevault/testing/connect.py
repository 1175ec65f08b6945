"""The wiring of an agent's components, without threads and without a store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from statevault.data import DataBuffer, DataCollectorsDict, DataUsersDict
from statevault.interaction import Agent
from statevault.model import InferenceModelsDict, TrainingModel, TrainingModelsDict
from statevault.trainer import Trainer, TrainersDict

__all__ = ["ConnectedComponents", "connect_components"]


class ConnectedComponents(NamedTuple):
    """What connects the components.

    Attributes:
        data_users: The training sides of the data pipelines, by name.
        data_collectors: Their acting sides.
        training_models: The training sides of the models, by name.
        inference_models: Their inference sides.
    """

    data_users: DataUsersDict
    data_collectors: DataCollectorsDict
    training_models: TrainingModelsDict
    inference_models: InferenceModelsDict


def connect_components(
    agent: Agent[Any, Any] | None = None,
    trainers: Trainer | Mapping[str, Trainer] | None = None,
    buffers: Mapping[str, DataBuffer[Any, Any]] | None = None,
    models: Mapping[str, TrainingModel[Any]] | None = None,
) -> ConnectedComponents:
    """Give an agent and trainers their models and data, as a launch does.

    Args:
        agent: The agent.
        trainers: One trainer, or trainers by name.
        buffers: The data buffers by name.
        models: The models by name.

    Returns:
        What was made in between, to put samples in and to look at what came out.

    Raises:
        KeyError: The agent or a trainer asks for something that is not there.
        InvalidNameError: A name can't be the name of a file.
    """
    data_users = DataUsersDict.from_data_buffers(buffers)
    training_models = TrainingModelsDict(models)
    if agent is not None:
        agent.attach_inference_models(training_models.inference_models_dict)
        agent.attach_data_collectors(data_users.data_collectors_dict)
    if trainers is not None:
        by_name = TrainersDict({"trainer": trainers} if isinstance(trainers, Trainer) else trainers)
        by_name.attach_training_models(training_models)
        by_name.attach_data_users(data_users)
    return ConnectedComponents(
        data_users, data_users.data_collectors_dict, training_models, training_models.inference_models_dict
    )
