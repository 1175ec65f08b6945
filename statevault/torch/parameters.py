"""The tensors of a module: saved and loaded, always all or none."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from statevault.codecs.pickles import require_safe_torch_load
from statevault.errors import FormatError, PickleNotAllowedError, StateVaultError, UnsupportedTypeError
from statevault.state_persistence import read_tree, write_tree
from statevault.torch.copies import copy_module, overlaps_itself

__all__ = ["load_parameters", "load_torch_file", "read_torch_file", "save_parameters"]


def save_parameters(module: nn.Module, file: Path) -> None:
    """Write a module's state dict as a tree file.

    Raises:
        UnsupportedTypeError: A parameter has no values yet, is distributed over processes, or can't be stored for
            another reason; or the module has extra state that can't be stored without pickle. The message names it.
    """
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if nn.parameter.is_lazy(tensor):
            raise UnsupportedTypeError(
                f"{file.name}: {name} of the {type(module).__name__} has no values yet: call the module once, which "
                "initializes it, before it is saved"
            )
    state = module.state_dict()
    # Modules read their version from it, to convert what older ones saved.
    metadata = {name: dict(entry) for name, entry in getattr(state, "_metadata", {}).items()}
    write_tree({"parameters": dict(state), "metadata": metadata}, file, held=True)


def load_parameters(module: nn.Module, file: Path) -> None:
    """Load what :func:`save_parameters` wrote, to the devices that the module is on.

    Raises:
        FileNotFoundError: There is no such file.
        FormatError: The file is not a module's, or the module's structure has changed; the message names the
            parameters, and the module is as it was.
        StateVaultError: The module is on the meta device.
    """
    # The values are copied into the module's tensors: no need to copy them out of the file first.
    record = read_tree(file, mapped=True)
    try:
        state = OrderedDict(record["parameters"])
        state._metadata = dict(record["metadata"])  # type: ignore[attr-defined]  # noqa: SLF001
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{file} does not hold the parameters of a torch module") from error
    _load(module, state, str(file))


def load_torch_file(module: nn.Module, file: Path) -> None:
    """Load a state dict that :func:`torch.save` wrote, as tensors only: no code in the file is run.

    Raises:
        FileNotFoundError: There is no such file.
        FormatError: It is damaged, or does not fit the module, which is as it was then.
        PickleNotAllowedError: The file holds more than tensors and plain values.
        MissingExtraError: This torch would run code in the file all the same.
        StateVaultError: The module is on the meta device.
    """
    state = read_torch_file(file)
    if not isinstance(state, Mapping):
        raise FormatError(f"{file} holds a {type(state).__name__}, not the state dict of a torch module")
    _load(module, state, str(file))


def read_torch_file(file: Path) -> Any:
    """Read what :func:`torch.save` wrote, on the CPU: tensors and plain values, no code in the file is run.

    Raises:
        FileNotFoundError: There is no such file.
        FormatError: It is damaged, or of another kind.
        PickleNotAllowedError: The file holds more than tensors and plain values.
        MissingExtraError: This torch would run code in the file all the same.
    """
    require_safe_torch_load(torch)
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise PickleNotAllowedError(
            f"{file} holds more than tensors and plain values, or is no file of torch.save: it is not loaded, "
            "because that could run code. Save the state_dict() of an object, not the object"
        ) from error
    except (OSError, MemoryError):
        raise
    # An empty file is an EOFError, a cut one a RuntimeError, others are struct.error, KeyError, UnicodeDecodeError…
    except Exception as error:
        raise FormatError(
            f"{file} is damaged, or no file of torch.save ({type(error).__name__}: {str(error)[:100]}): copy or save "
            "it again"
        ) from error


def _load(module: nn.Module, state: Mapping[str, Any], origin: str) -> None:
    own = module.state_dict(keep_vars=True)
    tensors = {
        name: value
        for name, value in own.items()
        if isinstance(value, torch.Tensor) and not nn.parameter.is_lazy(value)
    }
    if valueless := [name for name, value in tensors.items() if value.is_meta]:
        # Torch would warn that nothing is copied there, and go on.
        raise StateVaultError(
            f"{origin} can't be loaded: {valueless[0]} of the {type(module).__name__} is on the meta device, which "
            "keeps no values. Build the module on another device, or call its to_empty(device=...) first"
        )
    if expanded := [name for name, value in tensors.items() if overlaps_itself(value)]:
        raise StateVaultError(
            f"{origin} can't be loaded: items of {expanded[0]} of the {type(module).__name__} share memory, as in an "
            "expanded tensor, so that it can't be written to. Let the module keep a clone() of it"
        )
    problems = [f"{name} is missing" for name in own if name not in state]
    problems += [f"{name} is not in the module" for name in state if name not in own]
    for name, value in tensors.items():
        saved = state.get(name)
        if saved is not None:
            if not isinstance(saved, torch.Tensor):
                problems.append(f"{name} is a {type(saved).__name__}, not a tensor")
            elif saved.shape != value.shape:
                problems.append(f"{name} has the shape {tuple(saved.shape)}, the module's {tuple(value.shape)}")
    if problems and _is_converted(module, state):
        problems = []
    problems += _untied(own, state)
    if problems:
        more = f", and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise FormatError(
            f"{origin} does not fit the {type(module).__name__}: {'; '.join(problems[:5])}{more}. Build the module "
            "as it was when the file was saved"
        )
    # What was made in inference mode, such as a state that a forward pass has replaced, can be changed there only.
    with torch.inference_mode(any(value.is_inference() for value in tensors.values())):
        try:
            module.load_state_dict(state)
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            raise FormatError(f"{origin} could not be loaded into the {type(module).__name__}: {error}") from error


def _untied(own: Mapping[str, Any], state: Mapping[str, Any]) -> list[str]:
    """Name the values of which one would be lost, as their names are those of one tensor in the module."""
    first: dict[int, str] = {}
    problems = []
    for name, value in own.items():
        other = first.setdefault(id(value), name)
        one, same = state.get(other), state.get(name)
        if other == name or not isinstance(one, torch.Tensor) or not isinstance(same, torch.Tensor):
            continue
        if one.data_ptr() != same.data_ptr() and not torch.equal(one, same):
            problems.append(f"{other} and {name} have different values, and are one tensor in the module")
    return problems


def _is_converted(module: nn.Module, state: Mapping[str, Any]) -> bool:
    """Whether torch makes the state fit: modules convert what their older versions saved."""
    # On a copy, as torch does not undo what it loaded before a misfit. Only states that look wrong get here.
    try:
        copy_module(module).load_state_dict(state)
    except Exception:  # noqa: BLE001 - hooks may raise anything; the caller tells what does not fit
        return False
    return True
