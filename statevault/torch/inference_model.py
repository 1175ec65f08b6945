"""The inference side of a torch module."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any, Generic, TypeAlias

import torch
from torch import nn
from typing_extensions import TypeVar, override

from statevault.model import InferenceModel

__all__ = ["InferenceProcedure", "TorchInferenceModel", "default_infer_procedure", "get_device"]

M = TypeVar("M", bound=nn.Module, default=nn.Module)

InferenceProcedure: TypeAlias = Callable[..., Any]
"""Computes a model's output: called with the module, then with the arguments of ``infer``."""


def get_device(module: nn.Module, default_device: torch.device | None = None) -> torch.device:
    """Return the device that a module is on: that of its first parameter or buffer.

    Args:
        module: The module.
        default_device: What to return for a module without any; None: torch's default device.
    """
    for tensor in chain(module.parameters(), module.buffers()):
        return tensor.device
    return torch.get_default_device() if default_device is None else default_device


def default_infer_procedure(model: nn.Module, *args: Any, **kwds: Any) -> Any:
    """Call a module, with those arguments that are tensors moved to its device.

    Args:
        model: The module.
        *args: Its arguments.
        **kwds: More of them.
    """
    device = get_device(model)

    def move(value: Any) -> Any:
        return value.to(device) if isinstance(value, torch.Tensor) else value

    return model(*map(move, args), **{name: move(value) for name, value in kwds.items()})


class TorchInferenceModel(InferenceModel, Generic[M]):
    """A torch module for inference, which another thread may exchange at any time.

    Threads that infer take turns. Exchanging the module never makes them wait: an inference keeps the module
    with which it began, and the next one gets the new module.
    """

    def __init__(self, model: M, inference_procedure: InferenceProcedure = default_infer_procedure) -> None:
        """Initialize.

        Args:
            model: The module, in the mode (``eval()``) in which it should infer.
            inference_procedure: Computes the output: it gets the module, then the arguments of :meth:`infer`.
        """
        self._current = model
        self._inference_procedure = inference_procedure
        # Held during an inference. Reentrant: inside unwrap(), infer() may be called.
        self._turn = threading.RLock()
        self._depth = 0
        # Makes "take the current module" one step to exchange(), and is held for a few instructions only.
        self._lock = threading.Lock()
        self._in_use: M | None = None

    @property
    def module(self) -> M:
        """The module that the next inference will use. It may be in use; don't change it."""
        return self._current

    @override
    def infer(self, *args: Any, **kwds: Any) -> Any:
        """Return the module's output, computed in inference mode.

        Args:
            *args: Passed on to the inference procedure.
            **kwds: Passed on to the inference procedure.
        """
        with self.unwrap() as model:
            return self._inference_procedure(model, *args, **kwds)

    @contextmanager
    def unwrap(self, inference_mode: bool = True) -> Iterator[M]:
        """Lend the module to a ``with`` block. Other threads' inferences wait until it ends.

        Args:
            inference_mode: Whether the block runs in :class:`torch.inference_mode`.

        Yields:
            The module, which stays the same inside the block.
        """
        with self._turn, torch.inference_mode(inference_mode):
            if self._depth == 0:
                with self._lock:
                    self._in_use = self._current
            assert self._in_use is not None
            self._depth += 1
            try:
                yield self._in_use
            finally:
                self._depth -= 1
                if self._depth == 0:
                    self._in_use = None

    def exchange(self, model: M) -> M:
        """Let inferences that begin from now on use another module.

        Args:
            model: The other module.

        Returns:
            The module until now, with which an inference may still be running: see :meth:`uses`.
        """
        with self._lock:
            previous, self._current = self._current, model
        return previous

    def uses(self, model: M) -> bool:
        """Tell whether an inference is running with a module; for one that was exchanged, no new one will begin.

        Args:
            model: The module.
        """
        with self._lock:
            return self._in_use is model
