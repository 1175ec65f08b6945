"""The tensors of a module: copied to a twin, saved and loaded, always all or none."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from statevault.errors import FormatError, PickleNotAllowedError
from statevault.state_persistence import read_tree, write_tree

__all__ = ["copy_parameters", "load_parameters", "load_torch_file", "save_parameters"]


def copy_parameters(source: nn.Module, target: nn.Module) -> bool:
    """Copy parameters, buffers (also those that are not persistent) and extra state to a module's twin.

    Args:
        source: A module.
        target: A copy of it that may have other values.

    Returns:
        False if the two do not have the same structure any more; nothing was copied then.
    """
    sources, targets = _tensors(source), _tensors(target)
    if sources.keys() != targets.keys():
        return False
    for name, tensor in sources.items():
        other = targets[name]
        if (tensor.shape, tensor.dtype, tensor.device) != (other.shape, other.dtype, other.device):
            return False
    with torch.no_grad():
        for name, tensor in sources.items():
            targets[name].copy_(tensor, non_blocking=True)
    for module, twin in zip(source.modules(), target.modules(), strict=True):
        if type(module).get_extra_state is not nn.Module.get_extra_state:
            twin.set_extra_state(module.get_extra_state())
    return True


def save_parameters(module: nn.Module, file: Path) -> None:
    """Write a module's state dict as a tree file.

    Raises:
        UnsupportedTypeError: The module has extra state that can't be stored without pickle.
    """
    state = module.state_dict()
    # Modules read their version from it, to convert what older ones saved.
    metadata = {name: dict(entry) for name, entry in getattr(state, "_metadata", {}).items()}
    write_tree({"parameters": dict(state), "metadata": metadata}, file)


def load_parameters(module: nn.Module, file: Path) -> None:
    """Load what :func:`save_parameters` wrote, to the devices that the module is on.

    Raises:
        FileNotFoundError: There is no such file.
        FormatError: The file is not a module's, or the module's structure has changed; the message names the
            parameters, and the module is as it was.
    """
    # The values are copied into the module's tensors: no need to copy them out of the file first.
    record = read_tree(file, mapped=True)
    try:
        state = OrderedDict(record["parameters"])
        state._metadata = record["metadata"]  # type: ignore[attr-defined]  # noqa: SLF001
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{file} does not hold the parameters of a torch module") from error
    _load(module, state, str(file))


def load_torch_file(module: nn.Module, file: Path) -> None:
    """Load a state dict that :func:`torch.save` wrote, as tensors only: no code in the file is run.

    Raises:
        FileNotFoundError: There is no such file.
        FormatError: It does not fit the module, which is as it was then.
        PickleNotAllowedError: The file holds more than tensors and plain values.
    """
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise PickleNotAllowedError(
            f"{file} holds more than tensors, and loading it could run code: save the module's state_dict() with "
            "torch.save, not the module"
        ) from error
    if not isinstance(state, Mapping):
        raise FormatError(f"{file} holds a {type(state).__name__}, not the state dict of a torch module")
    _load(module, state, str(file))


def _load(module: nn.Module, state: Mapping[str, Any], origin: str) -> None:
    own = module.state_dict()
    problems = [f"{name} is missing" for name in own if name not in state]
    problems += [f"{name} is not in the module" for name in state if name not in own]
    for name, value in own.items():
        saved = state.get(name)
        if isinstance(value, torch.Tensor) and saved is not None and not nn.parameter.is_lazy(value):
            if not isinstance(saved, torch.Tensor):
                problems.append(f"{name} is a {type(saved).__name__}, not a tensor")
            elif saved.shape != value.shape:
                problems.append(f"{name} has the shape {tuple(saved.shape)}, the module's {tuple(value.shape)}")
    if problems:
        more = f", and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise FormatError(
            f"{origin} does not fit the {type(module).__name__}: {'; '.join(problems[:5])}{more}. Build the module "
            "as it was when the file was saved"
        )
    module.load_state_dict(state)


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}
