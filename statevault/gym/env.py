"""A Gymnasium environment as the environment of an agent."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import gymnasium
from typing_extensions import override

from statevault.errors import FormatError, UnsupportedTypeError
from statevault.gym.env_state import capture_episode, capture_rng, restore_episode, restore_rng
from statevault.gym.types import EnvReset, EnvStep, GymAction, GymObs
from statevault.interaction import Environment
from statevault.state_persistence import read_tree, write_tree

__all__ = ["GymEnvironment"]

_logger = logging.getLogger(__name__)

ObsT = TypeVar("ObsT")
ActT = TypeVar("ActT")

_RNG = "rng.tree"
_EPISODE = "episode.tree"


@dataclass(frozen=True, slots=True)
class _Picture:
    """What is saved of the environment: plain values."""

    rng: dict[str, Any] | None
    episode: dict[str, Any] | None


class GymEnvironment(Environment[GymObs[ObsT], GymAction[ActT]], Generic[ObsT, ActT]):
    """Steps a Gymnasium environment, and begins a new episode when one is over or the agent asks for it.

    Saved are the random number generator, always, and the running episode where the state of the environment is
    known (see :mod:`statevault.gym.env_state`): it then goes on after a restart; else a new one begins.

    Attributes:
        env: The Gymnasium environment.
    """

    def __init__(self, env: gymnasium.Env[ObsT, ActT] | str, **make_kwargs: Any) -> None:
        """Take an environment, or make one.

        Args:
            env: The environment, or the id of a registered one.
            **make_kwargs: What :func:`gymnasium.make` takes besides the id.

        Raises:
            TypeError: Keywords are given for an environment that is made already.
            gymnasium.error.Error: There is no environment of that id.
        """
        super().__init__()
        if isinstance(env, str):
            self.env: gymnasium.Env[ObsT, ActT] = gymnasium.make(env, **make_kwargs)
        elif make_kwargs:
            raise TypeError(f"{sorted(make_kwargs)} are for gymnasium.make(): give the id of an environment")
        else:
            self.env = env
        self._obs: GymObs[ObsT] | None = None
        self._last: _Picture | None = None
        self._loaded: _Picture | None = None
        self._warned = False

    @override
    def setup(self) -> None:
        """Begin an episode, or go on with the one that was loaded."""
        super().setup()
        self._last = None
        if self._loaded is not None and self._loaded.rng is not None:
            restore_rng(self.env, self._loaded.rng)
        self._obs = self._reset()
        if self._loaded is not None:
            self._restore(self._loaded)
            self._loaded = None

    @override
    def teardown(self) -> None:
        """Close the environment."""
        # The final state is saved after this, when the environment may not be able to tell its own any more.
        self._last = self._picture()
        self.env.close()
        super().teardown()

    @override
    def observe(self) -> GymObs[ObsT]:
        """What the last reset or step has shown.

        Raises:
            RuntimeError: :meth:`setup` was not called.
        """
        if self._obs is None:
            raise RuntimeError("a GymEnvironment is observed before its setup()")
        return self._obs

    @override
    def affect(self, action: GymAction[ActT]) -> None:
        """Take a step; reset when that ends the episode or the agent wants it."""
        obs, reward, terminated, truncated, info = self.env.step(action.action)
        step = EnvStep(obs, float(reward), bool(terminated), bool(truncated), info)
        self._obs = (step, self._reset()) if step.done or action.need_reset else step

    @override
    def save_state(self, path: Path) -> None:
        """Save the generator as ``rng.tree`` and, where it is known, the episode as ``episode.tree``."""
        super().save_state(path)
        picture = self._loaded or self._last or self._picture()
        path.mkdir(exist_ok=True)
        if picture.rng is not None:
            write_tree(picture.rng, path / _RNG)
        if picture.episode is not None:
            try:
                write_tree(picture.episode, path / _EPISODE)
            except UnsupportedTypeError as error:
                self._warn(f"the running episode is not saved: {error}")

    @override
    def load_state(self, path: Path) -> None:
        """Load what was saved; it takes effect in the next :meth:`setup`, or now if that was before.

        Raises:
            FormatError: The state is that of another environment.
        """
        super().load_state(path)
        rng = read_tree(path / _RNG) if (path / _RNG).exists() else None
        episode = read_tree(path / _EPISODE) if (path / _EPISODE).exists() else None
        if not isinstance(rng, dict | None) or not isinstance(episode, dict | None):
            raise FormatError(f"{path} holds no state of a GymEnvironment")
        loaded = _Picture(rng, episode)
        if self._obs is None or self._last is not None:
            self._loaded = loaded
        else:
            if loaded.rng is not None:
                restore_rng(self.env, loaded.rng)
            self._restore(loaded)

    def _reset(self) -> EnvReset[ObsT]:
        obs, info = self.env.reset()
        return EnvReset(obs, info)

    def _picture(self) -> _Picture:
        layers = None if self._obs is None else capture_episode(self.env)
        if layers is None:
            if self._obs is not None:
                self._warn(f"the state of {self.env} is not known: its episodes are not saved")
            return _Picture(capture_rng(self.env), None)
        return _Picture(capture_rng(self.env), {"layers": layers, "shown": _as_records(self._obs)})

    def _restore(self, picture: _Picture) -> None:
        if picture.episode is not None:
            try:
                layers, shown = picture.episode["layers"], picture.episode["shown"]
                self._obs = _from_records(shown)
            except (KeyError, TypeError, ValueError) as error:
                raise FormatError(f"the saved episode of {self.env} can't be understood: {error!r}") from error
            restore_episode(self.env, list(layers))
            # The reset before drew from the generator.
            if picture.rng is not None:
                restore_rng(self.env, picture.rng)

    def _warn(self, message: str) -> None:
        # Once: a state is saved again and again.
        if not self._warned:
            self._warned = True
            _logger.warning("%s; after a restart a new episode begins", message)


def _as_records(obs: GymObs[Any] | None) -> list[dict[str, Any]]:
    parts = obs if isinstance(obs, tuple) else (obs,)
    return [
        {
            name: getattr(part, name)
            for name in ("obs", "reward", "terminated", "truncated", "info")
            if hasattr(part, name)
        }
        for part in parts
    ]


def _from_records(records: list[dict[str, Any]]) -> GymObs[Any]:
    parts = [EnvStep(**record) if "reward" in record else EnvReset(**record) for record in records]
    match parts:
        case [EnvStep() as step, EnvReset() as reset]:
            return step, reset
        case [EnvStep() | EnvReset() as part]:
            return part
    raise ValueError(f"{len(parts)} observations")
