"""Gymnasium environments and agents for them. Needs the extra ``gym``."""

from statevault.errors import MissingExtraError
from statevault.gym.agent import GymAgent
from statevault.gym.types import EnvReset, EnvStep, GymAction, GymObs

try:
    from statevault.gym.env import GymEnvironment
except ModuleNotFoundError as error:
    if error.name != "gymnasium":
        raise
    raise MissingExtraError("Gymnasium is not installed: pip install 'statevault[gym]'") from error

__all__ = [
    "EnvReset",
    "EnvStep",
    "GymAction",
    "GymAgent",
    "GymEnvironment",
    "GymObs",
]
