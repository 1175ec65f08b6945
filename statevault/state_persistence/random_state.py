"""The process's global random generators as a component: Python's, NumPy's and torch's.

Only what is loaded is saved: a program that never imported torch does not import it for this. Generators that
objects hold themselves (``numpy.random.default_rng()``, ``torch.Generator()``) are the business of those objects.
"""

from __future__ import annotations

import logging
import random
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from typing_extensions import override

from statevault.codecs import read_tree, write_tree
from statevault.errors import FormatError
from statevault.state_persistence.mixin import PersistentStateMixin

__all__ = ["RandomGenerators", "generator_states", "set_generator_states"]

_logger = logging.getLogger(__name__)


class RandomGenerators(PersistentStateMixin):
    """The global generators: :mod:`random`, ``numpy.random``, and torch's of the CPU and of each CUDA device.

    A program that draws from them in a fixed order goes on after a load with the numbers that it would have drawn.
    """

    @override
    def save_state(self, path: Path) -> None:
        """Save the generators of what is loaded as the file `path` + ``.tree``."""
        write_tree(generator_states(), _file(path))

    @override
    def load_state(self, path: Path) -> None:
        """Set the generators to what was saved.

        NumPy's and torch's are set if they are loaded, or can be. A CUDA device that is not there any more is
        passed over, with a warning in the log.

        Raises:
            FileNotFoundError: Nothing was saved under this path.
            FormatError: The file does not hold the states of generators; some may be set then.
        """
        file = _file(path)
        record = read_tree(file)
        if not isinstance(record, Mapping):
            raise FormatError(f"{file} holds no states of random generators but a {type(record).__name__}")
        try:
            set_generator_states(record)
        except FormatError as error:
            raise FormatError(f"{file} holds {error}") from error


def generator_states() -> dict[str, Any]:
    """The states of the global generators of what is loaded, as a record for :func:`set_generator_states`.

    Returns:
        A record of numbers, tuples, bytes and NumPy arrays: it can be read where torch is not installed.
    """
    record: dict[str, Any] = {"python": random.getstate()}
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        record["numpy"] = numpy_random.get_state(legacy=False)
    torch = sys.modules.get("torch")
    if torch is not None:
        record["torch"] = _save_torch(torch)
    return record


def set_generator_states(record: Mapping[str, Any]) -> None:
    """Set the global generators to what :func:`generator_states` returned. Those not in the record stay as they are.

    Raises:
        FormatError: The record does not hold the states of generators; some may be set then.
    """
    try:
        version, numbers, gauss = record["python"]
        random.setstate((version, tuple(numbers), gauss))
        if "numpy" in record:
            import numpy as np  # noqa: PLC0415 - heavy, and only where it was used before

            np.random.set_state(record["numpy"])
        if "torch" in record:
            _load_torch(record["torch"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise FormatError(f"no usable states of random generators: {error!r}") from error


def _save_torch(torch: Any) -> dict[str, Any]:
    """The states as bytes, so that a process without torch can read the file."""
    states: dict[str, Any] = {"cpu": bytes(torch.get_rng_state().tolist()), "cuda": []}
    # Asking for the state would initialize CUDA, which takes seconds and memory on the device.
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states["cuda"] = [bytes(state.tolist()) for state in torch.cuda.get_rng_state_all()]
    return states


def _load_torch(states: Mapping[str, Any]) -> None:
    try:
        import torch  # noqa: PLC0415 - heavy, and only where it was used before
    except ImportError:
        _logger.warning("the state has torch's random generators, but torch is not installed: they are not set")
        return

    def tensor(state: bytes) -> torch.Tensor:
        return torch.tensor(list(state), dtype=torch.uint8, device="cpu")

    torch.set_rng_state(tensor(states["cpu"]))
    devices = torch.cuda.device_count() if states["cuda"] else 0
    for index, state in enumerate(states["cuda"]):
        if index < devices:
            torch.cuda.set_rng_state(tensor(state), index)
        else:
            _logger.warning("the state has the random generator of cuda:%d, which is not there: it is not set", index)


def _file(path: Path) -> Path:
    return path.with_name(path.name + ".tree")
