"""Gymnasium environments and agents, with real environments."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import pytest
from gymnasium.wrappers import TransformReward

from statevault.errors import FormatError
from statevault.gym import EnvReset, EnvStep, GymAction, GymAgent, GymEnvironment
from statevault.interaction import Interaction

Obs = npt.NDArray[np.float32]


class Balancer(GymAgent[Any, int]):
    """Pushes against the tilt, and keeps a diary."""

    def __init__(self) -> None:
        super().__init__()
        self.diary: list[tuple[Any, ...]] = []
        self.give_up = False

    def on_reset(self, obs: Any, info: dict[str, Any]) -> int:
        self.diary.append(("reset", obs))
        return 0

    def on_step(self, obs: Any, reward: float, terminated: bool, truncated: bool, info: dict[str, Any]) -> int:
        self.diary.append(("step", obs, reward, terminated, truncated))
        self.need_reset = self.need_reset or self.give_up
        return int(np.asarray(obs).flat[-2] > 0)


class Walk(gymnasium.Env[Any, Any]):
    """A random walk that can tell its whole state."""

    observation_space: gymnasium.spaces.Space[Any] = gymnasium.spaces.Discrete(100)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self) -> None:
        self.place = 50
        self.trail: list[int] = []
        self.closed = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        super().reset(seed=seed)
        self.place, self.trail = 50, []
        return self.place, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        self.trail.append(self.place)
        self.place += int(self.np_random.integers(-1, 2))
        return self.place, 0.0, False, False, {"trail": len(self.trail)}

    def close(self) -> None:
        self.closed = True

    def get_state(self) -> dict[str, Any]:
        if self.closed:
            raise OSError("the simulator is gone")
        return {"place": self.place, "trail": list(self.trail)}

    def set_state(self, state: dict[str, Any]) -> None:
        self.place, self.trail = state["place"], list(state["trail"])


def shown(env: GymEnvironment[Any, Any], steps: int) -> list[Any]:
    """What an environment shows in the next steps, as plain values."""
    seen = []
    for number in range(steps):
        env.affect(GymAction(number % 2))
        obs = env.observe()
        parts = obs if isinstance(obs, tuple) else (obs,)
        seen.append(
            [(type(part).__name__, np.asarray(part.obs).tolist(), getattr(part, "reward", None)) for part in parts]
        )
    return seen


class TestGymAgent:
    def test_a_reset_and_steps_are_answered(self) -> None:
        agent = Balancer()
        agent.setup()
        assert agent.step(EnvReset(np.zeros(4))) == GymAction(0, need_reset=False)
        assert agent.step(EnvStep(np.ones(4), 1.0, False, False)) == GymAction(1, need_reset=False)
        assert [entry[0] for entry in agent.diary] == ["reset", "step"]

    def test_the_end_of_an_episode_and_the_next_begin_are_answered_in_one_step(self) -> None:
        agent = Balancer()
        agent.give_up = True
        last, reset = EnvStep(np.ones(4), 1.0, True, False), EnvReset(np.zeros(4))
        assert agent.step((last, reset)) == GymAction(0, need_reset=False)
        assert [entry[0] for entry in agent.diary] == ["step", "reset"]

    def test_a_wish_for_a_reset_is_passed_on_and_cleared_by_it(self) -> None:
        agent = Balancer()
        agent.give_up = True
        assert agent.step(EnvStep(np.ones(4), 1.0, False, False)).need_reset
        assert not agent.step(EnvReset(np.zeros(4))).need_reset
        assert not agent.need_reset


class TestGymEnvironment:
    def test_it_is_made_of_an_id_or_of_an_environment(self) -> None:
        made = GymEnvironment[Obs, int]("CartPole-v1", max_episode_steps=3)
        made.setup()
        given = GymEnvironment(gymnasium.make("CartPole-v1"))
        given.setup()
        assert isinstance(made.observe(), EnvReset)
        assert isinstance(given.observe(), EnvReset)
        with pytest.raises(TypeError, match="max_episode_steps"):
            GymEnvironment(gymnasium.make("CartPole-v1"), max_episode_steps=3)
        made.teardown()
        given.teardown()

    def test_observing_before_setup_is_an_error(self) -> None:
        with pytest.raises(RuntimeError, match="setup"):
            GymEnvironment("CartPole-v1").observe()

    def test_an_episode_that_is_cut_short_shows_its_last_step_and_a_reset(self) -> None:
        env = GymEnvironment[Obs, int]("CartPole-v1", max_episode_steps=2)
        env.setup()
        env.affect(GymAction(0))
        assert isinstance(env.observe(), EnvStep)
        env.affect(GymAction(1))
        obs = env.observe()
        assert isinstance(obs, tuple)
        step, reset = obs
        assert (step.done, step.truncated, step.terminated) == (True, True, False)
        assert isinstance(reset, EnvReset)
        env.teardown()

    def test_a_reset_that_the_agent_wants_is_made_after_the_step(self) -> None:
        env = GymEnvironment[Obs, int]("CartPole-v1")
        env.setup()
        env.affect(GymAction(0, need_reset=True))
        assert isinstance(env.observe(), tuple)
        env.teardown()

    @pytest.mark.parametrize("steps", [0, 2, 3], ids=["begin", "middle", "cut short"])
    def test_nested_observations_are_saved_with_the_episode(self, steps: int, tmp_path: Path) -> None:
        spaces = gymnasium.spaces

        class Nested(Walk):
            observation_space = spaces.Dict(
                {
                    "joints": spaces.Box(-1, 1, (3,)),
                    "hand": spaces.Dict({"held": spaces.Tuple((spaces.Discrete(2), spaces.MultiBinary(3)))}),
                    "words": spaces.Text(5),
                }
            )

            def reset(self, **arguments: Any) -> tuple[Any, dict[str, Any]]:
                place, _ = super().reset(**arguments)
                return self.observation_space.sample(), {"place": np.float64(place)}

            def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
                super().step(action)
                cut = np.bool_(len(self.trail) == 3)
                return self.observation_space.sample(), np.float32(1), False, cut, {"trail": np.arange(2)}  # type: ignore[return-value]

        env = GymEnvironment(Nested())
        env.setup()
        for _ in range(steps):
            env.affect(GymAction(1))
        assert isinstance(env.observe(), tuple) == (steps == 3)
        env.save_state(tmp_path / "env")
        again = GymEnvironment(Nested())
        again.load_state(tmp_path / "env")
        again.setup()
        assert repr(again.observe()) == repr(env.observe())

    def test_an_agent_plays_many_episodes(self) -> None:
        agent = Balancer()
        interaction: Interaction[Any, Any] = Interaction(agent, GymEnvironment("CartPole-v1"))
        interaction.setup()
        for _ in range(500):
            interaction.step()
        interaction.teardown()
        assert sum(entry[0] == "reset" for entry in agent.diary) > 2


@pytest.mark.parametrize(
    ("make", "steps"),
    [
        (lambda: GymEnvironment("CartPole-v1"), 5),
        (lambda: GymEnvironment("CartPole-v1", max_episode_steps=8), 5),
        (lambda: GymEnvironment("CartPole-v1", max_episode_steps=5), 5),
        (lambda: GymEnvironment("MountainCar-v0"), 5),
        (lambda: GymEnvironment("Acrobot-v1"), 5),
        (lambda: GymEnvironment("FrozenLake-v1"), 3),
        (lambda: GymEnvironment(Walk()), 5),
    ],
)
@pytest.mark.parametrize("torn_down", [False, True])
def test_a_restored_environment_goes_on_exactly_as_the_saved_one(
    make: Any, steps: int, torn_down: bool, tmp_path: Path
) -> None:
    saved = make()
    saved.setup()
    shown(saved, steps)
    twin = saved
    if torn_down:
        # As at the end of a launch; what follows is known from a save before.
        saved.save_state(tmp_path / "reference")
        saved.teardown()
        twin = make()
        twin.load_state(tmp_path / "reference")
        twin.setup()
    saved.save_state(tmp_path / "environment")
    restored = make()
    restored.load_state(tmp_path / "environment")
    restored.setup()
    assert str(restored.observe()) == str(twin.observe())
    assert shown(restored, 30) == shown(twin, 30)
    restored.teardown()
    twin.teardown()


def test_a_state_loaded_into_a_running_environment_takes_effect_at_once(tmp_path: Path) -> None:
    env = GymEnvironment[Obs, int]("CartPole-v1")
    env.setup()
    shown(env, 3)
    env.save_state(tmp_path / "environment")
    first = shown(env, 20)
    env.load_state(tmp_path / "environment")
    assert shown(env, 20) == first
    env.teardown()


def test_of_an_unknown_environment_the_generator_is_saved_and_a_new_episode_begins(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def make() -> GymEnvironment[Any, int]:
        return GymEnvironment(TransformReward(gymnasium.make("CartPole-v1"), float))

    saved = make()
    saved.setup()
    shown(saved, 5)
    with caplog.at_level(logging.WARNING):
        saved.save_state(tmp_path / "environment")
        saved.save_state(tmp_path / "again")
    assert {file.name for file in (tmp_path / "environment").iterdir()} == {"rng.tree", "stack.tree"}
    assert caplog.text.count("a new episode begins") == 1
    starts = []
    for _ in range(2):
        restored = make()
        restored.load_state(tmp_path / "environment")
        restored.setup()
        obs = restored.observe()
        assert isinstance(obs, EnvReset)
        starts.append(obs.obs.tolist())
        restored.teardown()
    assert starts[0] == starts[1]
    saved.teardown()


def test_an_observation_that_can_not_be_stored_costs_only_the_episode(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    env = GymEnvironment(Walk())
    env.setup()
    env._obs = EnvReset(0, {"window": object()})
    with caplog.at_level(logging.WARNING):
        env.save_state(tmp_path / "environment")
    assert {file.name for file in (tmp_path / "environment").iterdir()} == {"rng.tree", "stack.tree"}
    assert "the running episode is not saved" in caplog.text


def test_a_state_without_an_environments_files_changes_nothing(tmp_path: Path) -> None:
    env = GymEnvironment(Walk())
    env.load_state(tmp_path / "nothing")
    env.setup()
    assert isinstance(env.observe(), EnvReset)


def test_the_state_of_another_environment_is_refused(tmp_path: Path) -> None:
    env = GymEnvironment[Obs, int]("CartPole-v1")
    env.setup()
    env.save_state(tmp_path / "environment")
    other = GymEnvironment(Walk())
    with pytest.raises(FormatError, match="made of TimeLimit > CartPoleEnv, this one of Walk"):
        other.load_state(tmp_path / "environment")
