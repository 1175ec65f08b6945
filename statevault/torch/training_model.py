"""The training side of a torch module."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Generic

import torch
from torch import nn
from typing_extensions import TypeVar, override

from statevault.model import TrainingModel
from statevault.torch.copies import copy_module, update_copy
from statevault.torch.inference_model import InferenceProcedure, TorchInferenceModel, default_infer_procedure
from statevault.torch.parameters import load_parameters, load_torch_file, save_parameters

__all__ = ["TorchTrainingModel"]

M = TypeVar("M", bound=nn.Module, default=nn.Module)


class TorchTrainingModel(TrainingModel[TorchInferenceModel[M]], Generic[M]):
    """A torch module that trainers change, and its copies for inference.

    The module stays the same object for good, so optimizers can hold on to its parameters. A :meth:`sync`
    copies it into a spare module that no inference uses, then lets the spare one be the inference model's:
    inference never waits for a copy. The price is memory for two copies instead of one. On a GPU, train and infer
    on the same CUDA stream, as the default one is: its order is what lets a copy end before an inference uses it.

    Attributes:
        model: The module.
    """

    def __init__(  # noqa: PLR0917 (PAMIQ-Core fixes the order of the parameters)
        self,
        model: M,
        has_inference_model: bool = True,
        inference_thread_only: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        inference_procedure: InferenceProcedure | str | None = None,
        pretrained_parameter_file: str | Path | None = None,
        compile: bool = False,  # noqa: A002 (the name is fixed by PAMIQ-Core)
    ) -> None:
        """Initialize.

        Args:
            model: The module.
            has_inference_model: Whether the acting loop uses the model.
            inference_thread_only: Whether it is the only one that does; the module is not copied then.
            device: Where to put the module; None leaves it where it is.
            dtype: What to convert its floating-point parameters and buffers to; None leaves them as they are.
            inference_procedure: Computes the output of an inference: a callable that gets the module and the
                arguments, or the name of a method of the module. None: the module is called, with tensors
                moved to its device.
            pretrained_parameter_file: A state dict saved by :func:`torch.save`, with which the module begins.
            compile: Whether to compile the module, and its copies, by :meth:`torch.nn.Module.compile`.

        Raises:
            AttributeError: The module has no method of the given name.
            ValueError: What has that name is no method, or nobody would use the model.
            FileNotFoundError: There is no file with parameters.
            FormatError: The file is damaged, or its parameters do not fit the module.
            PickleNotAllowedError: The file holds more than tensors.
        """
        super().__init__(has_inference_model, inference_thread_only)
        self._inference_procedure = _procedure(model, inference_procedure)
        self.model = model.to(device=device, dtype=dtype)
        if pretrained_parameter_file is not None:
            load_torch_file(self.model, Path(pretrained_parameter_file))
        self._compile = compile
        if compile:
            self.model.compile()
        self._spare: M | None = None

    @override
    def _create_inference_model(self) -> TorchInferenceModel[M]:
        model = self.model if self.inference_thread_only else self._copy()
        model.eval()
        return TorchInferenceModel(model, self._inference_procedure)

    @override
    def sync_impl(self, inference_model: TorchInferenceModel[M]) -> None:
        """Let inferences that begin from now on use the present parameters; waits for none that is running.

        Parameters, buffers and extra state (:meth:`torch.nn.Module.get_extra_state`) are brought up to date, exchanged
        submodules, and other tensors that a module has as attributes, also in lists, tuples, dicts and dataclasses.
        Those that were computed are copied without the graph. Other attributes, as the ``p`` of a dropout, are not.

        Args:
            inference_model: The inference side.

        Raises:
            UnsupportedTypeError: The module holds something that can't be copied; the message names it.
        """
        spare, self._spare = self._spare, None
        # An inference that began two syncs ago may still run: it keeps its module, and there is a new spare
        # one.
        if spare is None or inference_model.uses(spare) or not update_copy(self.model, spare):
            spare = self._copy()
        spare.eval()
        self._spare = inference_model.exchange(spare)

    @override
    def forward(self, *args: Any, **kwds: Any) -> Any:
        """Call the module.

        Args:
            *args: Its arguments.
            **kwds: More of them.
        """
        return self.model(*args, **kwds)

    @override
    def save_state(self, path: Path) -> None:
        """Save the module's state dict to ``<path>.tree``.

        Raises:
            UnsupportedTypeError: A parameter has no values yet, or is distributed over processes; or the module has
                extra state that can't be stored without pickle.
        """
        save_parameters(self.model, path.with_name(path.name + ".tree"))

    @override
    def load_state(self, path: Path) -> None:
        """Load what :meth:`save_state` saved on any device, or the ``<path>.pt`` that PAMIQ-Core wrote.

        Raises:
            FileNotFoundError: Nothing was saved under this path.
            FormatError: The module's structure has changed; the message names the parameters.
            StateVaultError: The module is on the meta device.
        """
        file = path.with_name(path.name + ".tree")
        torch_file = path.with_name(path.name + ".pt")
        if not file.exists() and torch_file.exists():
            load_torch_file(self.model, torch_file)
        else:
            load_parameters(self.model, file)

    def _copy(self) -> M:
        twin = copy_module(self.model)
        if self._compile:
            twin.compile()
        return twin


def _procedure(model: nn.Module, given: InferenceProcedure | str | None) -> InferenceProcedure:
    if given is None:
        return default_infer_procedure
    if not isinstance(given, str):
        return given
    method = getattr(type(model), given, None)
    if method is None:
        raise AttributeError(f"{type(model).__name__} has no method {given!r} to be the inference procedure")
    if not callable(method):
        raise ValueError(f"{type(model).__name__}.{given} is not a method: it can't be the inference procedure")
    procedure: InferenceProcedure = method
    return procedure
