"""What of a Gymnasium environment can be saved and restored.

Gymnasium has no interface for the state of an environment. Three kinds are known here:

* The random number generator, which every environment has in ``np_random``.
* Environments, or wrappers around them, that offer ``get_state()`` and ``set_state(state)``.
* Gymnasium's own ``classic_control`` and ``toy_text``, whose state lies in a few attributes.

An episode is restored only when the state of everything in the stack of wrappers is known. A half-restored
simulator would be worse than a new episode.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from gymnasium import Env, Wrapper
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit

from statevault.errors import FormatError

__all__ = ["capture_episode", "capture_rng", "restore_episode", "restore_rng"]

_STATELESS = (OrderEnforcing, PassiveEnvChecker)
_BUILT_IN = ("gymnasium.envs.classic_control.", "gymnasium.envs.toy_text.")
_STATE_ATTRIBUTES = ("state", "s")
_COMPANIONS = ("steps_beyond_terminated", "last_u", "lastaction")


def capture_rng(env: Env[Any, Any]) -> dict[str, Any] | None:
    """The state of the environment's random number generator; None where it is not one of numpy's."""
    rng: object = env.unwrapped.np_random
    return dict(rng.bit_generator.state) if isinstance(rng, np.random.Generator) else None


def restore_rng(env: Env[Any, Any], state: dict[str, Any]) -> None:
    """Set the generator to a captured state, in place: the environment may hold it under other names too.

    Raises:
        FormatError: The state is that of another kind of generator.
    """
    rng = env.unwrapped.np_random
    try:
        rng.bit_generator.state = state
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise FormatError(
            f"the saved state of a {state.get('bit_generator')!r} generator doesn't fit {rng!r} of {env}"
        ) from error


def capture_episode(env: Env[Any, Any]) -> list[Any] | None:
    """The state of each layer of the environment, from the outside in; None when one is not known."""
    states: list[Any] = []
    for layer in _layers(env):
        if _offers_state(layer):
            states.append(layer.get_state())  # type: ignore[attr-defined] # checked by _offers_state
            return states
        if isinstance(layer, TimeLimit):
            states.append(layer._elapsed_steps)  # noqa: SLF001 - it has no other access
        elif isinstance(layer, Wrapper):
            if not isinstance(layer, _STATELESS):
                return None
            states.append(None)
        else:
            attributes = _built_in_state(layer)
            if attributes is None:
                return None
            states.append(attributes)
    return states


def restore_episode(env: Env[Any, Any], states: list[Any]) -> None:
    """Set each layer to a captured state. The environment must have been reset, so that it may be stepped.

    Raises:
        FormatError: The environment is not made of the layers that were saved.
    """
    layers = list(_layers(env))
    if len(layers) < len(states) or not states:
        raise FormatError(f"the saved episode has {len(states)} layers, {env} has {len(layers)}")
    for layer, state in zip(layers, states, strict=False):
        if _offers_state(layer):
            layer.set_state(state)  # type: ignore[attr-defined] # checked by _offers_state
        elif isinstance(layer, TimeLimit):
            layer._elapsed_steps = state  # noqa: SLF001 - it has no other access
        elif not isinstance(layer, Wrapper):
            if not isinstance(state, dict):
                raise FormatError(f"the saved episode holds no attributes for {layer}")
            for name in (*_STATE_ATTRIBUTES, *_COMPANIONS):
                if name in state:
                    setattr(layer, name, state[name])


def _layers(env: Env[Any, Any]) -> Iterator[Env[Any, Any]]:
    layer = env
    while isinstance(layer, Wrapper):
        yield layer
        layer = layer.env
    yield layer


def _offers_state(layer: Env[Any, Any]) -> bool:
    return callable(getattr(layer, "get_state", None)) and callable(getattr(layer, "set_state", None))


def _built_in_state(env: Env[Any, Any]) -> dict[str, Any] | None:
    # The exact class: a subclass may keep a state of its own beside.
    if not type(env).__module__.startswith(_BUILT_IN):
        return None
    if not any(getattr(env, name, None) is not None for name in _STATE_ATTRIBUTES):
        return None
    return {name: getattr(env, name) for name in (*_STATE_ATTRIBUTES, *_COMPANIONS) if hasattr(env, name)}
