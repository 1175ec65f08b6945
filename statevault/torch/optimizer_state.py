"""The states of optimizers and learning rate schedulers, which go to the parameters that they are of.

A state dict of torch knows parameters by their position alone: in another order, moments would go to wrong parameters
without a word. So the names and shapes of the parameters are saved beside, and a state is put in the order that the
optimizer has now. All is checked before anything is changed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import nn
from torch.optim import LBFGS, Optimizer

from statevault.errors import FormatError

__all__ = ["SavedOptimizers", "capture", "name_parameters", "plan_restore", "restore"]

StateDict: TypeAlias = dict[str, Any]
Names: TypeAlias = Mapping[int, Sequence[str]]
"""The names of parameters by their id: several of one that is tied, or in several models."""

_NEW_KEYS = frozenset({
    "amsgrad", "capturable", "decoupled_weight_decay", "differentiable", "foreach", "fused", "maximize", "nesterov",
})  # fmt: skip
"""Hyperparameters that not all versions of torch have; those without take their defaults."""

_LIKE_PARAMETER = frozenset({
    "acc_delta", "ax", "exp_avg", "exp_avg_sq", "exp_inf", "grad_avg", "max_exp_avg_sq", "momentum_buffer", "prev",
    "square_avg", "step_size", "sum", "variance",
})  # fmt: skip
"""What optimizers keep of each parameter in the parameter's own shape."""

_PER_GROUP = frozenset({
    "_last_lr", "base_lrs", "base_momentums", "lr_lambdas", "max_lrs", "max_momentums", "min_lrs",
})  # fmt: skip
"""What schedulers keep in lists with an entry for each parameter group."""

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class SavedOptimizers:
    """State dicts by name, and of what the optimizers and schedulers were made.

    Attributes:
        optimizers: The state dicts of the optimizers.
        lr_schedulers: Those of the schedulers.
        made_of: Their classes, and the names and shapes of the parameters; None in what older versions saved.
    """

    optimizers: dict[str, StateDict]
    lr_schedulers: dict[str, StateDict]
    made_of: dict[str, Any] | None = None


class _Slot(NamedTuple):
    """The place of a parameter in an optimizer."""

    group: int
    key: Any
    """Its number in the state dict, or itself."""
    owned: Sequence[str]
    """Its names in the models."""
    given: str | None
    """The name that the optimizer was given with it."""
    shape: tuple[int, ...] | None


def name_parameters(modules: Mapping[str, nn.Module]) -> Names:
    """Name the parameters of some modules: ``<module>/<parameter>``, all names of each, the first one first."""
    names: dict[int, list[str]] = {}
    for module_name, module in modules.items():
        for name, parameter in module.named_parameters(remove_duplicate=False):
            names.setdefault(id(parameter), []).append(f"{module_name}/{name}")
    return names


def capture(optimizers: Mapping[str, Optimizer], lr_schedulers: Mapping[str, Any], names: Names) -> SavedOptimizers:
    """Take the states of optimizers and schedulers."""
    return SavedOptimizers(
        {name: optimizer.state_dict() for name, optimizer in optimizers.items()},
        {name: scheduler.state_dict() for name, scheduler in lr_schedulers.items()},
        {
            "optimizers": {name: _describe(optimizer, names) for name, optimizer in optimizers.items()},
            "lr_schedulers": {
                name: {"class": _scheduler_class(scheduler), "optimizer": _find_optimizer(scheduler, optimizers)}
                for name, scheduler in lr_schedulers.items()
            },
        },
    )


def plan_restore(
    saved: SavedOptimizers, optimizers: Mapping[str, Optimizer], lr_schedulers: Mapping[str, Any], names: Names
) -> list[tuple[Any, StateDict]]:
    """Find out which state each optimizer and scheduler gets, in the order of its parameters.

    Returns:
        Optimizers and schedulers with their states.

    Raises:
        FormatError: One has no state that fits; the message says what differs.
    """
    _check_names("optimizer", saved.optimizers, optimizers)
    _check_names("scheduler", saved.lr_schedulers, lr_schedulers)
    planned: list[tuple[Any, StateDict]] = []
    orders: dict[str | None, list[int]] = {}
    for name, optimizer in optimizers.items():
        with _fitting("optimizer", name):
            made_of = None if saved.made_of is None else saved.made_of["optimizers"][name]
            state, orders[name] = _arrange(optimizer, saved.optimizers[name], made_of, names)
            planned.append((optimizer, state))
    for name, scheduler in lr_schedulers.items():
        with _fitting("scheduler", name):
            made_of = None if saved.made_of is None else saved.made_of["lr_schedulers"][name]
            held = _find_optimizer(scheduler, optimizers)
            state = _arrange_scheduler(scheduler, saved.lr_schedulers[name], made_of, held, orders.get(held))
            planned.append((scheduler, state))
    return planned


def restore(planned: Sequence[tuple[Any, StateDict]]) -> None:
    """Load states as planned: all or none.

    Raises:
        FormatError: An optimizer or scheduler refuses its state.
    """
    before = [(target, target.state_dict()) for target, _ in planned]
    try:
        for target, state in planned:
            target.load_state_dict(state)
    except Exception as error:
        for target, state in before:
            target.load_state_dict(state)
        if isinstance(error, MemoryError | OSError | torch.OutOfMemoryError):
            raise
        raise FormatError(f"the saved state of the optimizers does not fit them: {error!r}") from error


def _check_names(kind: str, states: Mapping[str, StateDict], targets: Mapping[str, Any]) -> None:
    if targets.keys() != states.keys():
        raise FormatError(
            f"the state has the {kind}s {sorted(states)}, but create_optimizers() makes {sorted(targets)}: make "
            "them as they were when the state was saved"
        )


@contextmanager
def _fitting(kind: str, name: str) -> Iterator[None]:
    """Say whose state does not fit."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        # Others than a FormatError come of state dicts that are none.
        why = str(error) if isinstance(error, FormatError) else repr(error)
        raise FormatError(
            f"the saved state of the {kind} {name!r} does not fit it: {why}. Make it as it was when the state was saved"
        ) from error


def _describe(optimizer: Optimizer, names: Names) -> dict[str, Any]:
    groups: list[list[dict[str, Any]]] = [[] for _ in optimizer.param_groups]
    for slot in _slots_of(optimizer, names):
        groups[slot.group].append({"name": _label(slot), "shape": slot.shape})
    return {"class": type(optimizer).__qualname__, "groups": groups}


def _arrange(
    optimizer: Optimizer, state: StateDict, made_of: Mapping[str, Any] | None, names: Names
) -> tuple[StateDict, list[int]]:
    """Put the state in the order of the optimizer; also return which saved group each of its groups has."""
    if made_of is not None and made_of["class"] != type(optimizer).__qualname__:
        raise FormatError(f"it is of the class {made_of['class']}, not {type(optimizer).__qualname__}")
    saved, present = _slots_in(state, made_of), _slots_of(optimizer, names)
    saved_groups: list[StateDict] = state["param_groups"]
    matched = _match(saved, present, saved_groups, optimizer.param_groups)
    order = _match_groups(matched, saved, present, saved_groups, optimizer.param_groups)
    if isinstance(optimizer, LBFGS) and matched != sorted(matched):
        names_then = [str(_label(slot)) for slot in saved]
        raise FormatError(f"an LBFGS needs its parameters in the order that they had: {_list(names_then, ', ')}")
    problems = _wrong_shapes(optimizer, state["state"], [(saved[i], present[k]) for k, i in enumerate(matched)])
    groups = []
    for number, own in enumerate(optimizer.param_groups):
        group = {key: value for key, value in saved_groups[order[number]].items() if key != "param_names"}
        if made_of is None:
            differing = (group.keys() ^ own.keys()) - _NEW_KEYS - {"param_names"}
            problems += [f"{key} is set in only one of the two" for key in sorted(differing)]
        # What another version of torch, or the user, has added stays as it is made now.
        group = {**{key: value for key, value in own.items() if key != "param_names"}, **group}
        group["params"] = [saved[i].key for k, i in enumerate(matched) if present[k].group == number]
        groups.append(group)
    if problems:
        raise FormatError(_list(problems))
    return {**state, "param_groups": groups}, order


def _slots_of(optimizer: Optimizer, names: Names) -> list[_Slot]:
    return [
        _Slot(number, parameter, names.get(id(parameter), ()), given, _shape(parameter))
        for number, group in enumerate(optimizer.param_groups)
        for parameter, given in zip(group["params"], _given(group), strict=True)
    ]


def _slots_in(state: StateDict, made_of: Mapping[str, Any] | None) -> list[_Slot]:
    groups = state["param_groups"]
    if made_of is None:
        return [
            _Slot(number, key, (), given, None)
            for number, group in enumerate(groups)
            for key, given in zip(group["params"], _given(group), strict=True)
        ]
    return [
        _Slot(number, key, (), one["name"], None if one["shape"] is None else tuple(one["shape"]))
        for number, (group, described) in enumerate(zip(groups, made_of["groups"], strict=True))
        for key, one in zip(group["params"], described, strict=True)
    ]


def _match(
    saved: list[_Slot], present: list[_Slot], saved_groups: list[StateDict], groups: list[StateDict]
) -> list[int]:
    """For each place now, the one in the state that its parameter had."""
    labels = [slot.given for slot in saved]
    if not any(labels):
        sizes = [[len(group["params"]) for group in each] for each in (saved_groups, groups)]
        if sizes[0] != sizes[1]:
            raise FormatError(f"its parameter groups have the sizes {sizes[0]}, here {sizes[1]}")
        return list(range(len(saved)))
    # What was given to the optimizer, or is its name within the model, is tried for states of older versions: they
    # have no other names.
    schemes: list[list[Sequence[str]]] = [
        [slot.owned or _tuple(slot.given) for slot in present],
        [_tuple(slot.given) for slot in present],
        [[name.partition("/")[2] for name in slot.owned] for slot in present],
    ]
    for names in schemes:
        for simplify in (str, _without_prefixes):
            matched = _match_names(labels, names, simplify)
            if matched is not None:
                return matched
    # Told in the names that come nearest.
    here = max(schemes, key=lambda names: len({name for each in names for name in each} & set(labels)))
    known = {name for each in here for name in each}
    problems = [f"{label} is in the state only" for label in labels if label and label not in known]
    problems += [f"{each[0]} is not in the state" for each in here if each and not set(each) & set(labels)]
    if not known:
        problems = [f"the state has {_list([label for label in labels if label], ', ')}, here they have no names"]
    raise FormatError(
        _list(problems or [f"its {len(saved)} parameters are not told apart from the {len(present)} here"])
    )


def _match_names(
    labels: list[str | None], names: Sequence[Sequence[str]], simplify: Callable[[str], str]
) -> list[int] | None:
    """Match by name, and those without one in their order; None where names do not fit."""
    wanted = [None if label is None else simplify(label) for label in labels]
    own = [{simplify(name) for name in each} for each in names]
    if len(own) == len(wanted) and all(
        not each if label is None else label in each for label, each in zip(wanted, own, strict=True)
    ):
        return list(range(len(wanted)))
    count = Counter(name for each in own for name in each)
    place = {label: number for number, label in enumerate(wanted) if label is not None and count[label] == 1}
    nameless = iter([number for number, label in enumerate(wanted) if label is None])
    matched = [
        next((place[name] for name in each if name in place), None) if each else next(nameless, None) for each in own
    ]
    fits = [number for number in matched if number is not None]
    return fits if len(fits) == len(own) == len(wanted) == len(set(fits)) else None


def _match_groups(
    matched: list[int],
    saved: list[_Slot],
    present: list[_Slot],
    saved_groups: list[StateDict],
    groups: list[StateDict],
) -> list[int]:
    """For each group now, the one in the state that has its parameters."""
    if len(saved_groups) != len(groups):
        raise FormatError(f"it has {len(saved_groups)} parameter groups, here there are {len(groups)}")
    order: dict[int, int] = {}
    for slot, number in zip(present, matched, strict=True):
        was = order.setdefault(slot.group, saved[number].group)
        if was != saved[number].group or len(saved_groups[was]["params"]) != len(groups[slot.group]["params"]):
            raise FormatError(
                f"{_label(slot) or 'a parameter'} was in the parameter group {saved[number].group} with "
                f"{len(saved_groups[saved[number].group]['params'])} parameters, and is in the group {slot.group} with "
                f"{len(groups[slot.group]['params'])} here"
            )
    empty = iter([number for number in range(len(groups)) if number not in order.values()])
    return [order[number] if number in order else next(empty) for number in range(len(groups))]


def _wrong_shapes(optimizer: Optimizer, states: Mapping[Any, Any], pairs: Sequence[tuple[_Slot, _Slot]]) -> list[str]:
    problems = []
    for was, now in pairs:
        name = _label(now) or f"the parameter {was.key}"
        if now.shape is None:
            continue  # of a lazy module
        if was.shape is not None and was.shape != now.shape:
            problems.append(f"{name} had the shape {was.shape}, here {now.shape}")
            continue
        kept = states.get(was.key, {})
        problems += [
            f"{key} of {name} has the shape {tuple(value.shape)}, not {shape}"
            for key, value in (kept.items() if isinstance(kept, Mapping) else ())
            for shape in [_expected_shape(optimizer, key, now.shape, known=was.shape is not None)]
            if isinstance(value, torch.Tensor) and shape is not None and tuple(value.shape) != shape
        ]
    flat = sum(now.key.numel() * (2 if now.key.is_complex() else 1) for _, now in pairs if now.shape is not None)
    for kept in states.values() if isinstance(optimizer, LBFGS) else ():
        gradient = kept.get("prev_flat_grad")
        if gradient is not None and gradient.numel() != flat:
            problems.append(f"it is of {gradient.numel()} numbers in all, here there are {flat}")
    return problems


def _expected_shape(optimizer: Optimizer, key: str, shape: tuple[int, ...], *, known: bool) -> tuple[int, ...] | None:
    """The shape that what is kept as ``key`` must have; None where that can't be told."""
    of_torch = type(optimizer).__module__.startswith("torch.optim.")
    if of_torch and key == "row_var":
        return (*shape[:-1], 1)
    if of_torch and key == "col_var":
        return (*shape[:-2], 1, *shape[-1:])
    # Others may keep a projection under the same names. They are asked only where the shapes were not saved.
    return shape if key in _LIKE_PARAMETER and (of_torch or not known) else None


def _arrange_scheduler(
    scheduler: Any, state: StateDict, made_of: Mapping[str, Any] | None, optimizer: str | None, order: list[int] | None
) -> StateDict:
    if made_of is not None:
        if made_of["class"] != _scheduler_class(scheduler):
            raise FormatError(f"it is of the class {made_of['class']}, not {_scheduler_class(scheduler)}")
        if made_of["optimizer"] != optimizer:
            raise FormatError(f"it was for the optimizer {made_of['optimizer']!r}, and is for {optimizer!r} here")
    _check_keys(scheduler, state, strict=made_of is None)
    if order is None:
        return dict(state)
    moved = order != sorted(order)
    if moved and not type(scheduler).__module__.startswith("torch.optim."):
        raise FormatError("its optimizer has the parameter groups in another order, and it may depend on that")
    return _reorder(state, order)


def _check_keys(scheduler: Any, state: StateDict, *, strict: bool) -> None:
    """Refuse the state of a scheduler of another kind: its class is not known of older states."""
    own = scheduler.state_dict()
    public = [{key for key in each if not key.startswith("_")} for each in (state, own)]
    differing = (public[0] ^ public[1]) - {"verbose", "default_min_lr"}
    if strict and differing:
        raise FormatError(f"{sorted(differing)} is set in only one of the two")
    parts, own_parts = state.get("_schedulers", ()), getattr(scheduler, "_schedulers", ())
    if len(parts) != len(own_parts):
        raise FormatError(f"it is made of {len(parts)} schedulers, here there are {len(own_parts)}")
    for part, own_part in zip(parts, own_parts, strict=True):
        _check_keys(own_part, part, strict=strict)


def _reorder(state: StateDict, order: list[int]) -> StateDict:
    """Put what a scheduler keeps of each group into another order."""
    arranged = dict(state)
    for key, value in state.items():
        if key in _PER_GROUP and isinstance(value, list | tuple):
            if len(value) != len(order):
                raise FormatError(f"{key} is of {len(value)} parameter groups, here there are {len(order)}")
            arranged[key] = [value[number] for number in order]
        elif key == "_schedulers":
            arranged[key] = [_reorder(part, order) for part in value]
    return arranged


def _scheduler_class(scheduler: Any) -> str:
    parts = [_scheduler_class(part) for part in getattr(scheduler, "_schedulers", ())]
    return type(scheduler).__qualname__ + (f"({', '.join(parts)})" if parts else "")


def _find_optimizer(scheduler: Any, optimizers: Mapping[str, Optimizer]) -> str | None:
    held = getattr(scheduler, "optimizer", None)
    return next((name for name, optimizer in optimizers.items() if optimizer is held), None)


def _label(slot: _Slot) -> str | None:
    return slot.owned[0] if slot.owned else slot.given


def _given(group: StateDict) -> Sequence[str | None]:
    return group.get("param_names") or [None] * len(group["params"])


def _tuple(name: str | None) -> tuple[str, ...]:
    return () if name is None else (name,)


def _shape(parameter: torch.Tensor) -> tuple[int, ...] | None:
    return None if nn.parameter.is_lazy(parameter) else tuple(parameter.shape)


def _without_prefixes(name: str) -> str:
    """A name without what ``torch.compile`` and wrappers for data parallelism put into it."""
    return re.sub(r"(?<![^./])(_orig_mod|module)\.", "", name)


def _list(problems: list[str], separator: str = "; ") -> str:
    more = f", and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    return separator.join(problems[:_SHOWN]) + more
