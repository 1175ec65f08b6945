"""The layers of a Gymnasium environment: what is known of their classes, and how they were made."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from gymnasium import Env, Wrapper, spaces

__all__ = [
    "Layer",
    "WrapperAttributes",
    "class_of",
    "describe",
    "is_known_wrapper",
    "is_passive",
    "iterate_layers",
    "list_differences",
    "offers_state",
    "short_name",
    "simulator_attributes",
    "wrapper_attributes",
    "wrapper_name",
]


class WrapperAttributes(NamedTuple):
    """The attributes of a wrapper in which its state lies."""

    episode: tuple[str, ...] = ()
    lasting: tuple[str, ...] = ()


_WRAPPERS = {
    "Autoreset": WrapperAttributes(("autoreset",)),
    "DelayObservation": WrapperAttributes(("observation_queue",)),
    "FrameStackObservation": WrapperAttributes(("obs_queue", "padding_value")),
    "MaxAndSkipObservation": WrapperAttributes(("_obs_buffer",)),
    "NormalizeObservation": WrapperAttributes((), ("obs_rms",)),
    "NormalizeReward": WrapperAttributes((), ("return_rms", "discounted_reward")),
    "RecordEpisodeStatistics": WrapperAttributes(
        ("episode_start_time", "episode_returns", "episode_lengths"),
        ("episode_count", "time_queue", "return_queue", "length_queue"),
    ),
    "StickyAction": WrapperAttributes(("last_action", "is_sticky_actions", "num_repeats", "repeats_taken")),
    "TimeAwareObservation": WrapperAttributes(("timesteps",)),
    "TimeLimit": WrapperAttributes(("_elapsed_steps",)),
}
# Not TransformAction, TransformObservation and TransformReward: their function is the user's, and may remember things.
_STATELESS = frozenset({
    "AddRenderObservation", "AddWhiteNoise", "ArrayConversion", "ClipAction", "ClipReward", "DiscretizeAction",
    "DiscretizeObservation", "DtypeObservation", "FilterObservation", "FlattenObservation", "GrayscaleObservation",
    "HumanRendering", "JaxToNumpy", "JaxToTorch", "NumpyToTorch", "ObstructView", "OrderEnforcing",
    "PassiveEnvChecker", "RepeatAction", "RescaleAction", "RescaleObservation", "ReshapeObservation",
    "ResizeObservation",
})  # fmt: skip
# Those that only look on: it makes no difference to an episode whether they are there.
_PASSIVE = frozenset({"HumanRendering", "OrderEnforcing", "PassiveEnvChecker"})
_WRAPPER_MODULES = "gymnasium.wrappers."

_SIMULATORS = {
    "AcrobotEnv": ("state",),
    "BlackjackEnv": ("player", "dealer", "dealer_top_card_suit", "dealer_top_card_value_str"),
    "CartPoleEnv": ("state", "steps_beyond_terminated"),
    "CliffWalkingEnv": ("s", "lastaction"),
    "Continuous_MountainCarEnv": ("state",),
    "FrozenLakeEnv": ("s", "lastaction"),
    "MountainCarEnv": ("state",),
    "PendulumEnv": ("state", "last_u"),
    "TaxiEnv": ("s", "lastaction", "fickle_step", "taxi_orientation"),
}
_SIMULATOR_MODULES = ("gymnasium.envs.classic_control.", "gymnasium.envs.toy_text.")
_NO_PARAMETERS = frozenset({"isopen", "render_mode", "_np_random_seed"})

Layer: TypeAlias = Env[Any, Any]


def iterate_layers(env: Layer) -> Iterator[Layer]:
    """All layers, from the outside in: wrappers, and the simulator."""
    layer = env
    while isinstance(layer, Wrapper):
        yield layer
        layer = layer.env
    yield layer


def offers_state(layer: Layer) -> bool:
    """Whether it has ``get_state()`` and ``set_state(state)``."""
    return callable(getattr(layer, "get_state", None)) and callable(getattr(layer, "set_state", None))


def class_of(layer: Layer) -> str:
    """The class of a layer, with its module."""
    return f"{type(layer).__module__}.{type(layer).__qualname__}"


def short_name(class_path: str) -> str:
    """The name of a class without its module."""
    return class_path.rpartition(".")[2]


def wrapper_name(layer: Layer) -> str | None:
    """The name of a wrapper of Gymnasium's. The exact class: a subclass may keep a state of its own beside."""
    return short_name(class_of(layer)) if class_of(layer).startswith(_WRAPPER_MODULES) else None


def is_known_wrapper(layer: Layer) -> bool:
    """Whether it is a wrapper of Gymnasium's whose state is known."""
    name = wrapper_name(layer)
    return name in _STATELESS or name in _WRAPPERS


def is_passive(class_path: str) -> bool:
    """Whether wrappers of this class make no difference to an episode."""
    return class_path.startswith(_WRAPPER_MODULES) and short_name(class_path) in _PASSIVE


def wrapper_attributes(layer: Layer) -> WrapperAttributes:
    """In which attributes the state of a wrapper lies."""
    return _WRAPPERS.get(wrapper_name(layer) or "", WrapperAttributes())


def simulator_attributes(layer: Layer) -> tuple[str, ...] | None:
    """In which attributes the state of a simulator lies; None where that is not known."""
    path = class_of(layer)
    return _SIMULATORS.get(short_name(path)) if path.startswith(_SIMULATOR_MODULES) else None


def list_differences(saved: Mapping[str, Any], present: Mapping[str, Any]) -> list[str]:
    """Say in what two environments are built differently, passive wrappers aside."""
    old, new = ([one for one in build["layers"] if not is_passive(one["class"])] for build in (saved, present))
    classes = [[one["class"] for one in layers] for layers in (old, new)]
    if classes[0] != classes[1]:
        short = [[short_name(name) for name in names] for names in classes]
        # Two classes may have the same name in different modules.
        was, now = short if short[0] != short[1] else classes
        return [f"the saved one is made of {' > '.join(was)}, this one of {' > '.join(now)}"]
    found = [
        f"{name} of {short_name(one['class'])} was {one['arguments'][name]}, here it is {value}"
        for one, other in zip(old, new, strict=True)
        # What only one of the two has comes from another version of Gymnasium.
        for name, value in other["arguments"].items()
        if one["arguments"].get(name, value) != value
    ]
    found += [
        f"the {kind} was {space}, here it is {present['spaces'][kind]}"
        for kind, space in saved["spaces"].items()
        if space != present["spaces"][kind]
    ]
    return found


def describe(layers: list[Layer]) -> dict[str, Any]:
    """How an environment is built: its layers, and with what they were made, and its spaces."""
    return {
        "layers": [{"class": class_of(layer), "arguments": _arguments(layer)} for layer in layers],
        "spaces": {
            kind: _space_signature(getattr(layers[0], kind, None)) for kind in ("observation_space", "action_space")
        },
    }


def _arguments(layer: Layer) -> dict[str, str]:
    """With what a layer of Gymnasium's was made, as far as it tells. Others answer for themselves in set_state()."""
    given: dict[str, Any] = {}
    if wrapper_name(layer) is not None:
        given = {name: value for name, value in getattr(layer, "_saved_kwargs", {}).items() if name != "env"}
        if hasattr(layer, "update_running_mean"):
            given["update_running_mean"] = layer.update_running_mean
    else:
        state = simulator_attributes(layer)
        if state is not None:
            plain = (bool, int, float, str, np.generic)
            # The constants of the simulation. A wrapper, or a curriculum, may have changed them.
            given = {
                name: value
                for name, value in vars(layer).items()
                if isinstance(value, plain) and name not in _NO_PARAMETERS and name not in state
            }
            transitions = getattr(layer, "P", None)
            if transitions is not None:
                # The map, and how slippery it is: FrozenLake draws a map where none is given.
                encoded = json.dumps(transitions, default=str).encode()
                given["transitions P"] = f"<{hashlib.sha256(encoded).hexdigest()[:16]}>"
    return {name: _as_text(value) for name, value in given.items()}


def _as_text(value: Any) -> str:
    # numpy's own repr depends on its version.
    plain = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
    return re.sub(r" at 0x[0-9a-f]+", "", repr(plain))


def _space_signature(space: Any) -> str:
    match space:
        case None:
            return "none"
        case spaces.Dict():
            return "{" + ", ".join(f"{name}: {_space_signature(one)}" for name, one in space.spaces.items()) + "}"
        case spaces.Tuple():
            return "(" + ", ".join(_space_signature(one) for one in space.spaces) + ")"
        case spaces.Discrete():
            return f"Discrete({space.n}, start={space.start})"
    return f"{type(space).__name__}({space.shape}, {space.dtype})"
