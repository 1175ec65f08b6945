"""A Gymnasium environment as the environment of an agent."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import gymnasium
from typing_extensions import override

from statevault.errors import FormatError, UnsupportedTypeError
from statevault.gym.env_state import EnvState, Plan, capture, plan_restore, unknown_layers
from statevault.gym.types import EnvReset, EnvStep, GymAction, GymObs
from statevault.interaction import Environment
from statevault.state_persistence import read_tree, write_tree

__all__ = ["GymEnvironment"]

_logger = logging.getLogger(__name__)

ObsT = TypeVar("ObsT")
ActT = TypeVar("ActT")

_RNG = "rng.tree"
_EPISODE = "episode.tree"
_STACK = "stack.tree"


@dataclass(frozen=True, slots=True)
class _Picture:
    """What is saved: plain values.

    ``running`` tells whether there was an episode, saved or not; ``shown`` what its agent is to observe next.
    """

    state: EnvState
    running: bool
    shown: list[dict[str, Any]]


class GymEnvironment(Environment[GymObs[ObsT], GymAction[ActT]], Generic[ObsT, ActT]):
    """Steps a Gymnasium environment, and begins a new episode when one is over or the agent asks for it.

    Saved are the random generators, what wrappers keep across episodes, and the running episode where the state of
    the environment is known (see :mod:`statevault.gym.env_state`): it then goes on after a restart, in an
    environment that is built as it was; else a new one begins.

    Attributes:
        env: The Gymnasium environment.
    """

    def __init__(
        self, env: gymnasium.Env[ObsT, ActT] | str, *, resume_episode: bool = True, **make_kwargs: Any
    ) -> None:
        """Take an environment, or make one.

        Args:
            env: The environment, or the id of a registered one.
            resume_episode: Whether a saved episode goes on. False: a new one begins, and the environment need not be
                built as the saved one was; the log tells what it does not share with it.
            **make_kwargs: What :func:`gymnasium.make` takes besides the id.

        Raises:
            TypeError: Keywords are given for an environment that is made already, or it is a vector environment.
            gymnasium.error.Error: There is no environment of that id.
        """
        super().__init__()
        if isinstance(env, str):
            self.env: gymnasium.Env[ObsT, ActT] = gymnasium.make(env, **make_kwargs)
        elif make_kwargs:
            raise TypeError(f"{sorted(make_kwargs)} are for gymnasium.make(): give the id of an environment")
        elif not isinstance(env, gymnasium.Env):
            raise TypeError(f"{env} is not a gymnasium.Env: give a single environment, not a vector of them")
        else:
            self.env = env
        self._resume_episode = resume_episode
        self._obs: GymObs[ObsT] | None = None
        self._last: _Picture | None = None
        self._loaded: _Picture | None = None
        self._warned = False

    @override
    def setup(self) -> None:
        """Begin an episode, or go on with the one that was loaded."""
        super().setup()
        self._last = None
        if self._loaded is None:
            self._obs = self._reset()
        else:
            self._restore(self._loaded, self._plan(self._loaded), reset=True)
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
        """Save the generator as ``rng.tree``, the stack of wrappers and what lasts in it as ``stack.tree``.

        The episode is saved as ``episode.tree`` where all of it is known.
        """
        super().save_state(path)
        picture = self._loaded or self._last or self._picture()
        state = picture.state
        path.mkdir(exist_ok=True)
        if state.rng is not None:
            write_tree(state.rng, path / _RNG)
        if state.build is not None:
            record = {"build": state.build, "lasting": state.lasting, "spaces": state.spaces}
            write_tree({**record, "running": picture.running}, path / _STACK)
        if state.layers is not None:
            try:
                write_tree({"layers": state.layers, "shown": picture.shown}, path / _EPISODE)
            except UnsupportedTypeError as error:
                self._warn(f"the running episode is not saved: {error}")

    @override
    def load_state(self, path: Path) -> None:
        """Load what was saved; it takes effect in the next :meth:`setup`, or now if that was before.

        Raises:
            FormatError: The saved episode, or what the wrappers had gathered, does not fit this environment; the
                message says in what they differ. Nothing has changed.
        """
        super().load_state(path)
        if not path.exists():
            _logger.warning("the state holds nothing of %s: a new episode begins", self.env)
            return
        loaded = _read(path)
        plan = self._plan(loaded)
        if self._obs is None or self._last is not None:
            self._loaded = loaded
        else:
            self._restore(loaded, plan, reset=False)

    def _reset(self) -> EnvReset[ObsT]:
        obs, info = self.env.reset()
        return EnvReset(obs, info)

    def _picture(self) -> _Picture:
        state = capture(self.env, running=self._obs is not None)
        if self._obs is None:
            return _Picture(state, False, [])
        if state.layers is None:
            unknown = ", ".join(unknown_layers(self.env))
            self._warn(f"the state of {unknown} in {self.env} is not known: its episodes are not saved")
        return _Picture(state, True, _as_records(self._obs))

    def _plan(self, picture: _Picture) -> Plan:
        plan = plan_restore(self.env, picture.state)
        if self._resume_episode and (plan.unplaced or (plan.differences and picture.state.layers is not None)):
            raise FormatError(
                f"{self.env} is not built as the environment of the state: {_list_problems(plan)}. Build it as it was, "
                "or begin a new episode with what fits: GymEnvironment(…, resume_episode=False)"
            )
        return plan

    def _restore(self, picture: _Picture, plan: Plan, *, reset: bool) -> None:
        shown = _from_records(picture.shown) if self._resume_episode and plan.episode is not None else None
        if shown is None:
            plan.restore_generators()
            plan.restore_lasting()
            self._obs = self._reset()
            if plan.differences or plan.unplaced:
                _logger.warning("a new episode of %s begins: %s", self.env, _list_problems(plan))
            elif picture.running:
                has = "is not resumed" if picture.state.layers is not None else "was not saved"
                _logger.warning("a new episode of %s begins: the last one %s", self.env, has)
            return
        if reset:
            self._reset()
        plan.restore_episode()
        plan.restore_lasting()
        # Last: the reset has drawn from them.
        plan.restore_generators()
        self._obs = shown

    def _warn(self, message: str) -> None:
        # Once: a state is saved again and again.
        if not self._warned:
            self._warned = True
            _logger.warning("%s; after a restart a new episode begins", message)


def _list_problems(plan: Plan) -> str:
    problems = [*plan.differences, *plan.unplaced]
    more = f"; and {len(problems) - 4} more" if len(problems) > 4 else ""
    return "; ".join(problems[:4]) + more


def _read(path: Path) -> _Picture:
    rng, episode, stack = (
        read_tree(path / name) if (path / name).exists() else None for name in (_RNG, _EPISODE, _STACK)
    )
    try:
        layers, shown = (None, []) if episode is None else (list(episode["layers"]), episode["shown"])
        _from_records(shown) if layers is not None else None
        kept = {} if stack is None else {name: stack[name] for name in ("build", "lasting", "spaces")}
        state = EnvState(None if rng is None else dict(rng), layers, **kept)
        # Without a stack, an older version wrote it.
        return _Picture(state, True if stack is None else stack["running"], shown)
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{path} does not hold the state of a GymEnvironment: {error!r}") from error


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
