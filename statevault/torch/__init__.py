"""Torch models, agents and trainers. Needs the extra ``torch``: ``pip install 'statevault[torch]'``."""

from statevault.errors import MissingExtraError

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise MissingExtraError(
        "statevault.torch needs torch: install it with `pip install 'statevault[torch]'`"
    ) from error

from statevault.torch.agent import TorchAgent
from statevault.torch.inference_model import (
    InferenceProcedure,
    TorchInferenceModel,
    default_infer_procedure,
    get_device,
)
from statevault.torch.trainer import OptimizersSetup, TorchTrainer
from statevault.torch.training_model import TorchTrainingModel

__all__ = [
    "InferenceProcedure",
    "OptimizersSetup",
    "TorchAgent",
    "TorchInferenceModel",
    "TorchTrainer",
    "TorchTrainingModel",
    "default_infer_procedure",
    "get_device",
]
