"""What of a Gymnasium environment can be saved and restored.

Gymnasium has no interface for the state of an environment. Known here are:

* The random generators: ``np_random``, and those of the spaces.
* Environments, or wrappers around them, that offer ``get_state()`` and ``set_state(state)``.
* Gymnasium's own ``classic_control``, ``toy_text`` and wrappers, whose state lies in a few attributes.

An episode is restored only where the state of every layer is known, and only in an environment that is built as the
saved one was. A half-restored simulator would be worse than a new episode. What wrappers keep from one episode to the
next, such as the statistics of a normalization, is saved by itself and restored also where the episode is not.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import Space, Wrapper
from gymnasium.wrappers.utils import RunningMeanStd

from statevault.errors import FormatError
from statevault.gym.layers import (
    Layer,
    class_of,
    describe,
    is_known_wrapper,
    is_passive,
    iterate_layers,
    list_differences,
    offers_state,
    short_name,
    simulator_attributes,
    wrapper_attributes,
    wrapper_name,
)

__all__ = ["EnvState", "Plan", "capture", "plan_restore", "unknown_layers"]

# Older states of a Taxi lack them. Without a fickle passenger they are never set, or matter only to a drawing.
_NOT_OF_AN_OLD_TAXI = frozenset({"fickle_step", "taxi_orientation"})


@dataclass(frozen=True, slots=True)
class EnvState:
    """What is saved of an environment: plain values. The lists hold one entry for each layer, from the outside in.

    Attributes:
        rng: The state of ``np_random``; None where that is no generator of numpy's.
        layers: What each layer keeps of the running episode; None where there is no episode, or it is not known.
        build: How the environment is built. None in what older versions saved: their :attr:`layers` end at the first
            one with ``get_state``, and hold the count of a ``TimeLimit`` as it is.
        lasting: What each layer keeps across episodes.
        spaces: The states of the generators of all spaces.
    """

    rng: dict[str, Any] | None
    layers: list[Any] | None = None
    build: dict[str, Any] | None = None
    lasting: Sequence[dict[str, Any]] = ()
    spaces: Sequence[dict[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """How a state is restored. Making it changes nothing.

    Attributes:
        differences: In what the environment is built otherwise than the saved one.
        unplaced: What wrappers kept across episodes and has no place here.
        episode: Layers and what they get of the saved episode, from the outside in; None: it can't go on here.
        lasting: Layers and what they get of what lasts.
        generators: Generators and their states.
    """

    differences: list[str]
    unplaced: list[str]
    episode: list[tuple[Layer, Any]] | None
    lasting: list[tuple[Layer, dict[str, Any]]]
    generators: list[tuple[np.random.Generator, dict[str, Any]]]

    def restore_generators(self) -> None:
        """Set the generators, in place: the environment may hold them under other names too."""
        for generator, state in self.generators:
            generator.bit_generator.state = state

    def restore_lasting(self) -> None:
        """Give wrappers back what they kept across episodes."""
        for layer, state in self.lasting:
            _set_attributes(layer, state)

    def restore_episode(self) -> None:
        """Give the layers back their episode. The environment must have been reset, so that it may be stepped."""
        for layer, state in self.episode or ():
            if offers_state(layer):
                layer.set_state(state["state"])  # type: ignore[attr-defined] # checked by offers_state
            else:
                _set_attributes(layer, state)


def capture(env: Layer, *, running: bool) -> EnvState:
    """Take the state of an environment.

    Args:
        env: The environment.
        running: Whether it has an episode, which is captured if all of it is known.
    """
    layers = list(iterate_layers(env))
    rng: object = env.unwrapped.np_random
    return EnvState(
        rng=dict(rng.bit_generator.state) if isinstance(rng, np.random.Generator) else None,
        layers=_capture_episode(layers) if running and not unknown_layers(env) else None,
        build=describe(layers),
        lasting=[_get_attributes(layer, wrapper_attributes(layer).lasting) for layer in layers],
        spaces=[dict(generator.bit_generator.state) for generator in _space_generators(layers)],
    )


def unknown_layers(env: Layer) -> list[str]:
    """Name the layers whose state is not known; their episodes can't be saved."""
    unknown: list[str] = []
    for layer in iterate_layers(env):
        if offers_state(layer):
            break
        known = is_known_wrapper(layer) if isinstance(layer, Wrapper) else simulator_attributes(layer) is not None
        if not known:
            unknown.append(type(layer).__name__)
    return unknown


def plan_restore(env: Layer, state: EnvState) -> Plan:
    """Find out what of a state fits an environment, and where it goes.

    Raises:
        FormatError: A generator is of another kind than the saved one.
    """
    layers = list(iterate_layers(env))
    pairs: list[tuple[Layer, Any]] | None = None
    if state.build is not None:
        differences = list_differences(state.build, describe(layers))
        if state.layers is not None and not differences:
            names = [layer["class"] for layer in state.build["layers"]]
            saved = [one for name, one in zip(names, state.layers, strict=True) if not is_passive(name)]
            pairs = list(zip([one for one in layers if not is_passive(class_of(one))], saved, strict=True))
            differences = _unfit(pairs)
    elif state.layers is not None:
        pairs = _pair_as_older_versions(layers, state.layers)
        differences = [f"the saved one has other layers than {env}"] if pairs is None else _unfit(pairs)
    else:
        differences = []
    lasting, unplaced = _place_lasting(layers, state)
    return Plan(
        differences,
        unplaced,
        # What lies below a layer that answers for it is None where it is not known by itself.
        None if pairs is None or differences else [(layer, one) for layer, one in pairs if one is not None],
        lasting,
        _plan_generators(env, layers, state, differences),
    )


def _capture_episode(layers: list[Layer]) -> list[Any]:
    states: list[Any] = []
    answered = False
    for layer in layers:
        if not answered and offers_state(layer):
            # It answers for all layers below. What is known of these by itself is saved nevertheless: a TimeLimit
            # inside a wrapper of the user's own.
            answered = True
            states.append({"state": layer.get_state()})  # type: ignore[attr-defined] # checked by offers_state
        elif isinstance(layer, Wrapper):
            known = is_known_wrapper(layer) and not offers_state(layer)
            states.append(_get_attributes(layer, wrapper_attributes(layer).episode) if known else None)
        else:
            states.append(None if answered else _get_attributes(layer, simulator_attributes(layer) or ()))
    return states


def _pair_as_older_versions(layers: list[Layer], states: list[Any]) -> list[tuple[Layer, Any]] | None:
    """Match layers with what was saved without a description of them; None where they can't be the same ones."""
    visible: list[Layer] = []
    for layer in layers:
        visible.append(layer)
        if offers_state(layer):
            break
    wrappers = [layer for layer in visible[:-1] if not is_passive(class_of(layer))]
    counts = [state for state in states[:-1] if state is not None]
    limits = all(wrapper_name(layer) == "TimeLimit" for layer in wrappers)
    if not states or not limits or len(wrappers) != len(counts) or not all(isinstance(one, int) for one in counts):
        return None
    last = {"state": states[-1]} if offers_state(visible[-1]) else states[-1]
    limited = [(layer, {"_elapsed_steps": count}) for layer, count in zip(wrappers, counts, strict=True)]
    return [*limited, (visible[-1], last)]


def _unfit(pairs: list[tuple[Layer, Any]]) -> list[str]:
    """Name the layers that keep other things than what was saved of them."""
    problems = []
    for layer, state in pairs:
        if state is None:
            continue
        own = ("state",) if offers_state(layer) else simulator_attributes(layer)
        if own is None:
            own = tuple(name for name in wrapper_attributes(layer).episode if hasattr(layer, name))
        optional = frozenset() if getattr(layer, "fickle_passenger", False) else _NOT_OF_AN_OLD_TAXI
        if not isinstance(state, dict) or not set(own) - optional <= state.keys() <= set(own):
            kept = sorted(state) if isinstance(state, dict) else type(state).__name__
            problems.append(f"the saved {type(layer).__name__} keeps {kept}, this one {sorted(own)}")
    return problems


def _place_lasting(layers: list[Layer], state: EnvState) -> tuple[list[tuple[Layer, dict[str, Any]]], list[str]]:
    """Match what lasts with the wrappers of the same class, in their order."""
    free = list(layers)
    placed: list[tuple[Layer, dict[str, Any]]] = []
    unplaced: list[str] = []
    for described, kept in zip(state.build["layers"] if state.build else (), state.lasting, strict=True):
        if not kept:
            continue
        name = short_name(described["class"])
        layer = next((layer for layer in free if class_of(layer) == described["class"]), None)
        if layer is None:
            unplaced.append(f"what the {name} has gathered: there is no such wrapper")
            continue
        free.remove(layer)
        own = _get_attributes(layer, wrapper_attributes(layer).lasting)
        misfit = [key for key in kept.keys() | own.keys() if _shape(kept.get(key)) != _shape(own.get(key))]
        if misfit:
            unplaced.append(f"what the {name} has gathered: {', '.join(sorted(misfit))} has another shape here")
        else:
            placed.append((layer, kept))
    return placed, unplaced


def _plan_generators(
    env: Layer, layers: list[Layer], state: EnvState, differences: list[str]
) -> list[tuple[np.random.Generator, dict[str, Any]]]:
    planned = [] if state.rng is None else [(env.unwrapped.np_random, state.rng)]
    own = _space_generators(layers)
    if not differences and len(own) == len(state.spaces):
        planned += zip(own, state.spaces, strict=True)
    for generator, saved in planned:
        try:
            # On one of its kind: a state that does not fit must change nothing.
            type(generator.bit_generator)().state = saved
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise FormatError(
                f"the saved state of a {saved.get('bit_generator')!r} generator doesn't fit {generator!r} of {env}"
            ) from error
    return planned


def _space_generators(layers: list[Layer]) -> list[np.random.Generator]:
    """The generators of all spaces of the layers, and of the spaces in these."""
    waiting: list[Any] = [
        getattr(layer, kind, None) for layer in layers for kind in ("action_space", "observation_space")
    ]
    seen: set[int] = set()
    generators: list[Any] = []
    while waiting:
        space = waiting.pop(0)
        if not isinstance(space, Space) or id(space) in seen:
            continue
        seen.add(id(space))
        parts = getattr(space, "spaces", ())
        waiting += parts.values() if isinstance(parts, Mapping) else parts
        waiting += [getattr(space, name, None) for name in ("feature_space", "node_space", "edge_space")]
        generators.append(space.np_random)
    return [generator for generator in generators if isinstance(generator, np.random.Generator)]


def _get_attributes(layer: Layer, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: _get_attribute(layer, name) for name in names if hasattr(layer, name)}


def _get_attribute(layer: Layer, name: str) -> Any:
    value = getattr(layer, name)
    if isinstance(value, RunningMeanStd):
        return dict(vars(value))
    # This clock begins anew with each process.
    return time.perf_counter() - value if name == "episode_start_time" else value


def _set_attributes(layer: Layer, state: dict[str, Any]) -> None:
    for name, value in state.items():
        present = getattr(layer, name, None)
        if isinstance(present, RunningMeanStd):
            vars(present).update(value)
        elif isinstance(present, deque):
            # Its length is that of this environment.
            present.clear()
            present.extend(value)
        else:
            setattr(layer, name, time.perf_counter() - value if name == "episode_start_time" else value)


def _shape(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: np.shape(one) for name, one in value.items()}
    return "any" if isinstance(value, deque) else None if value is None else np.shape(value)
