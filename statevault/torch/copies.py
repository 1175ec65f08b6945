"""Copies of modules for inference: made, and brought up to date. What was computed is copied without its graph."""

from __future__ import annotations

import copy
import dataclasses
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from typing_extensions import override

from statevault.errors import UnsupportedTypeError

__all__ = ["copy_module", "overlaps_itself", "update_copy"]

M = TypeVar("M", bound=nn.Module)

# Where a module keeps what is registered with it.
_REGISTRIES = frozenset({"_buffers", "_modules", "_parameters"})


def copy_module(module: M) -> M:
    """Copy a module, without the gradients of its parameters.

    Raises:
        UnsupportedTypeError: It holds something that can't be copied; the message names it.
    """
    gradients = [(parameter, parameter.grad) for parameter in module.parameters() if parameter.is_leaf]
    try:
        for parameter, _ in gradients:
            parameter.grad = None
        with _detached(module):
            return copy.deepcopy(module)
    finally:
        for parameter, gradient in gradients:
            parameter.grad = gradient


def update_copy(source: nn.Module, target: nn.Module) -> bool:
    """Copy parameters, buffers (also those that are not persistent), extra state, and other tensors to a module's copy.

    Other tensors are those that a module has as an attribute, or in lists, tuples, dicts and dataclasses that are one:
    a weight that a hook computes, a hidden state.

    Args:
        source: A module.
        target: A copy of it that may have other values.

    Returns:
        False if the two do not have the same structure any more, or if tensors can't be written to. Nothing was copied
        then.

    Raises:
        UnsupportedTypeError: Beside a tensor lies something that can't be copied; the message names it.
    """
    sources, targets = _tensors(source), _tensors(target)
    if _structure(source) != _structure(target) or any(map(overlaps_itself, targets.values())):
        return False
    parts = list(zip(source.modules(), target.modules(), strict=True))
    # What stands in the copy for what an attribute may refer to.
    memo: dict[int, Any] = {id(part): twin for part, twin in parts}
    for name, tensor in sources.items():
        memo[id(tensor)] = _update_tensor(tensor, targets[name])
    for part, twin in parts:
        for name, buffer in part.named_buffers(recurse=False):
            if getattr(twin, name) is not memo[id(buffer)]:
                setattr(twin, name, memo[id(buffer)])
    with _detached(source):
        for part, twin in parts:
            for name, value in vars(part).items():
                if name not in _REGISTRIES and (_holds_tensors(value) or _holds_tensors(vars(twin).get(name))):
                    vars(twin)[name] = copy.deepcopy(value, memo)
    for part, twin in parts:
        if type(part).get_extra_state is not nn.Module.get_extra_state:
            twin.set_extra_state(part.get_extra_state())
    return True


def _update_tensor(tensor: torch.Tensor, twin: torch.Tensor) -> torch.Tensor:
    """Give the copy of a parameter or buffer the present values; return it, or what is to take its place."""
    if nn.parameter.is_lazy(tensor):
        return twin
    if twin.is_inference() and not isinstance(twin, nn.Parameter):
        # A buffer that an inference has replaced, such as a recurrent state: it may have returned the tensor as well.
        return tensor.detach().clone()
    # A parameter may have been made in inference mode: nothing else changes it.
    with torch.inference_mode():
        twin.copy_(tensor)
        if isinstance(twin, nn.Parameter) and twin.requires_grad is not tensor.requires_grad:
            twin.requires_grad_(tensor.requires_grad)
    return twin


class _Detach(TorchFunctionMode):
    """Copies what torch refuses to copy: of tensors that were computed the values, and uninitialized buffers."""

    @override
    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.Tensor.__deepcopy__:
            tensor, memo = args
            if isinstance(tensor, nn.UninitializedBuffer):
                make: Any = type(tensor)
                twin = make(tensor.requires_grad, device=tensor.device, dtype=tensor.dtype)
                vars(twin).update(vars(tensor))
                return twin
            if not tensor.is_leaf:
                return copy.deepcopy(tensor.detach(), memo)
        return func(*args, **(kwargs or {}))


@contextmanager
def _detached(module: nn.Module) -> Iterator[None]:
    """Copy tensors without their graphs, and name what of a module can't be copied.

    Raises:
        UnsupportedTypeError: The block copied something that can't be.
    """
    try:
        with _Detach():
            yield
    except (MemoryError, OSError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        # Classes raise whatever they like.
        place, value, reason = _find_uncopyable(module) or (type(module).__name__, module, error)
        cls = type(value)
        raise UnsupportedTypeError(
            f"the {type(module).__name__} can't be copied for inference: {place} is a {cls.__module__}."
            f"{cls.__qualname__} ({type(reason).__name__}: {str(reason)[:200]}). Keep it out of the module, or give "
            "its class a __deepcopy__. A model with has_inference_model=False needs no copy, nor one with "
            "inference_thread_only=True"
        ) from error


def _find_uncopyable(module: nn.Module) -> tuple[str, object, Exception] | None:
    """Find what of a module can't be copied: its place, itself, and why."""
    # References among the modules lead nowhere: each is tried on its own, the innermost first.
    memo = {id(part): part for part in module.modules()}
    for path, part in reversed(list(module.named_modules())):
        tried: dict[str, object] = {}
        if not hasattr(type(part), "__deepcopy__"):  # which need not copy all of its attributes
            attributes = {name: value for name, value in vars(part).items() if name not in _REGISTRIES}
            attributes |= {**dict(part.named_parameters(recurse=False)), **dict(part.named_buffers(recurse=False))}
            tried = {f"{path}.{name}" if path else name: value for name, value in attributes.items()}
        tried[path or type(part).__name__] = part
        for place, value in tried.items():
            try:
                with _Detach():
                    copy.deepcopy(value, {key: known for key, known in memo.items() if known is not value})
            except Exception as error:  # noqa: BLE001 - this is what is looked for
                return place, value, error
    return None


def _structure(module: nn.Module) -> list[Hashable]:
    """What two modules have in common if the values of one fit the other, and make it the same function."""
    first: dict[int, str] = {}
    modules = [
        (name, first.setdefault(id(part), name), type(part))
        for name, part in module.named_modules(remove_duplicate=False)
    ]
    # The first name of a tensor tells with which others it is tied. One that is not initialized has no shape.
    tensors = [
        (
            *(name, first.setdefault(id(tensor), name), type(tensor)),
            *(None if nn.parameter.is_lazy(tensor) else tensor.shape, tensor.dtype, tensor.device, tensor.layout),
        )
        for named in (module.named_parameters, module.named_buffers)
        for name, tensor in named(remove_duplicate=False)
    ]
    return [*modules, *tensors]


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def overlaps_itself(tensor: torch.Tensor) -> bool:
    """Whether items of a tensor share memory, as those of an expanded one do: torch does not write to such."""
    if nn.parameter.is_lazy(tensor) or tensor.layout is not torch.strided:
        return False
    return any(size > 1 and stride == 0 for size, stride in zip(tensor.shape, tensor.stride(), strict=True))


def _holds_tensors(value: object) -> bool:
    """Whether a value is a tensor, or a container with one."""
    waiting, seen = [value], set[int]()
    while waiting:
        item = waiting.pop()
        if isinstance(item, torch.Tensor):
            return True
        if id(item) in seen:
            continue
        if isinstance(item, dict):
            below = list(item.values())
        elif isinstance(item, list | tuple | set | deque):
            below = list(item)
        elif dataclasses.is_dataclass(item) and not isinstance(item, type):
            below = [getattr(item, field.name, None) for field in dataclasses.fields(item)]
        else:
            continue
        seen.add(id(item))
        waiting += below
    return False
