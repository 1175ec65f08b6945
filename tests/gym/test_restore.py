"""What was saved of an environment, in one built like it or differently: it goes on to the last bit, or is refused."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces, wrappers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from statevault import read_tree, write_tree
from statevault.errors import FormatError
from statevault.gym import EnvReset, EnvStep, GymAction, GymEnvironment, layers
from tests.profiles import rounds

Env: TypeAlias = gymnasium.Env[Any, Any]
Wrap: TypeAlias = Callable[[Env], Env]


class Seeker(gymnasium.Env[Any, Any]):
    """Moves towards where it is sent, with noise; can tell its whole state, and draw itself."""

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 1}  # noqa: RUF012 - as Env has it

    def __init__(self, size: int = 3, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.observation_space = spaces.Box(-9, 9, (size,), np.float64)
        self.action_space = spaces.Box(-1, 1, (size,), np.float64)
        self.place = np.zeros(size)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.place = self.np_random.normal(size=self.place.shape)
        return self.place.copy(), {"options": options}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.place = np.clip(self.place + action + self.np_random.normal(0, 0.1, self.place.shape), -9, 9)
        away = float(np.abs(self.place).sum())
        return self.place.copy(), -away, bool(away > 9), False, {"away": away}

    def render(self) -> Any:
        return (self.place * 20).astype(np.int64).astype(np.uint8).reshape(1, -1, 1).repeat(3, 2)

    def get_state(self) -> Any:
        return self.place

    def set_state(self, state: Any) -> None:
        self.place = np.array(state)


class Silent(Seeker):
    """Does not tell its state."""

    get_state = set_state = None  # type: ignore[assignment]


class TimeLimit(wrappers.TimeLimit[Any, Any]):
    """Of the same name as Gymnasium's, with a state that is not known."""


def make(env: str | Env, *wraps: Wrap, resume_episode: bool = True, **kwargs: Any) -> GymEnvironment[Any, Any]:
    made = gymnasium.make(env, **kwargs) if isinstance(env, str) else env
    for wrap in wraps:
        made = wrap(made)
    return GymEnvironment(made, resume_episode=resume_episode)


def seed(env: GymEnvironment[Any, Any], number: int) -> None:
    env.env.reset(seed=number)
    env.env.action_space.seed(number)


def play(env: GymEnvironment[Any, Any], steps: int) -> list[Any]:
    """What an environment shows now and in the next steps, with actions that it draws, and of its statistics."""
    seen = [plain(env.observe())]
    for _ in range(steps):
        env.affect(GymAction(env.env.action_space.sample()))
        seen.append(plain(env.observe()))
    layer = env.env
    while isinstance(layer, gymnasium.Wrapper):
        if isinstance(layer, wrappers.RecordEpisodeStatistics):
            seen.append([layer.episode_count, list(layer.return_queue), list(layer.length_queue)])
        layer = layer.env
    return seen


def plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return (str(value.dtype), value.shape, value.tobytes())
    if isinstance(value, dict):
        # How long an episode took by the clock.
        return {name: plain(one) for name, one in value.items() if name != "t"}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, EnvReset | EnvStep):
        return [type(value).__name__, *(plain(getattr(value, name)) for name in type(value).__slots__)]
    return value


def without_stack(path: Path) -> None:
    """Rewrite a saved environment as versions wrote it that did not describe it."""
    stack, episode = read_tree(path / "stack.tree"), read_tree(path / "episode.tree")
    layers: list[Any] = []
    for described, state in zip(stack["build"]["layers"], episode["layers"], strict=True):
        if set(state) == {"state"} and "Seeker" in described["class"]:
            layers.append(state["state"])
        elif described["class"].endswith("TimeLimit"):
            layers.append(state["_elapsed_steps"])
        else:
            layers.append(state or None)
    write_tree({**episode, "layers": layers}, path / "episode.tree")
    (path / "stack.tree").unlink()


CLASSIC: list[tuple[str, dict[str, Any]]] = [
    ("Acrobot-v1", {}), ("Blackjack-v1", {}), ("CartPole-v1", {"sutton_barto_reward": True}), ("CliffWalking-v1", {}),
    ("FrozenLake-v1", {"map_name": "8x8"}), ("MountainCar-v0", {}), ("MountainCarContinuous-v0", {}),
    ("Pendulum-v1", {"g": 9.81}), ("Taxi-v4", {"is_rainy": True, "fickle_passenger": True}),
]  # fmt: skip

# By the kinds of space that they take: any, arrays of numbers to observe, boxes to act in.
ANY: dict[str, Wrap] = {
    "TimeLimit": lambda env: wrappers.TimeLimit(env, 7),
    "OrderEnforcing": wrappers.OrderEnforcing,
    "RecordEpisodeStatistics": lambda env: wrappers.RecordEpisodeStatistics(env, 5, f"episode {str(env).count('Rec')}"),
    "Autoreset": wrappers.Autoreset,
    "StickyAction": lambda env: wrappers.StickyAction(env, 0.4, (1, 3)),
    "RepeatAction": lambda env: wrappers.RepeatAction(env, 2),
    "DelayObservation": lambda env: wrappers.DelayObservation(env, 2),
    "TimeAwareObservation": lambda env: wrappers.TimeAwareObservation(wrappers.TimeLimit(env, 9)),
    "FlattenObservation": wrappers.FlattenObservation,
    "FrameStackObservation": lambda env: wrappers.FrameStackObservation(env, 3, padding_type="zero"),
    "ClipReward": lambda env: wrappers.ClipReward(env, -1, 1),
    "NormalizeReward": wrappers.NormalizeReward,
    "AddRenderObservation": lambda env: wrappers.AddRenderObservation(env, render_only=False),
    "AddWhiteNoise": lambda env: wrappers.AddRenderObservation(wrappers.AddWhiteNoise(env, 0.5)),
    "ObstructView": lambda env: wrappers.AddRenderObservation(wrappers.ObstructView(env, 0.5, 1)),
}
ARRAYS: dict[str, Wrap] = {
    "NormalizeObservation": wrappers.NormalizeObservation,
    "MaxAndSkipObservation": lambda env: wrappers.MaxAndSkipObservation(env, 2),
    "DtypeObservation": lambda env: wrappers.DtypeObservation(env, np.float16),
    "ReshapeObservation": lambda env: wrappers.ReshapeObservation(env, (1, *(env.observation_space.shape or ()))),
}
ACTIONS: dict[str, Wrap] = {
    "ClipAction": wrappers.ClipAction,
    "RescaleAction": lambda env: wrappers.RescaleAction(env, np.float32(-3), np.float32(3)),
    "DiscretizeAction": lambda env: wrappers.DiscretizeAction(env, 4),
}
ALL = {**ANY, **ARRAYS, **ACTIONS}


def stacked(names: list[str], start: Env) -> tuple[Env, list[str]]:
    """Put wrappers around an environment, without those that it can't take."""
    env, applied = start, []
    for name in names:
        try:
            env = ALL[name](env)
        except (TypeError, ValueError, AttributeError, NotImplementedError, gymnasium.error.Error):
            continue
        applied.append(name)
    return env, applied


def base(choice: int) -> Env:
    if choice < len(CLASSIC):
        name, kwargs = CLASSIC[choice]
        return gymnasium.make(name, **kwargs)
    return Seeker(render_mode="rgb_array")


stacks = st.lists(st.sampled_from(sorted(ALL)), max_size=5)


@pytest.mark.filterwarnings("ignore")  # Gymnasium's, about stacks that nobody would build
class TestEveryStack:
    @settings(deadline=None, max_examples=rounds(short=60, long=1000), suppress_health_check=list(HealthCheck))
    @given(choice=st.integers(0, len(CLASSIC)), names=stacks, number=st.integers(0, 99), steps=st.integers(0, 20))
    def test_an_episode_goes_on_to_the_last_bit(
        self, choice: int, names: list[str], number: int, steps: int, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        path = tmp_path_factory.mktemp("env") / "env"
        saved = make(stacked(names, base(choice))[0])
        seed(saved, number)
        saved.setup()
        play(saved, steps)
        saved.save_state(path)
        assert (path / "episode.tree").exists()
        again = make(stacked(names, base(choice))[0])
        again.load_state(path)
        again.setup()
        assert play(again, 25) == play(saved, 25)

    @settings(deadline=None, max_examples=rounds(short=60, long=1000), suppress_health_check=list(HealthCheck))
    @given(
        choice=st.tuples(*[st.integers(0, len(CLASSIC))] * 2),
        names=st.tuples(stacks, stacks),
        moved=st.booleans(),
        steps=st.integers(0, 9),
    )
    def test_in_another_stack_it_goes_on_to_the_last_bit_or_is_refused_before_anything_has_changed(
        self,
        choice: tuple[int, int],
        names: tuple[list[str], list[str]],
        moved: bool,
        steps: int,
        tmp_path_factory: pytest.TempPathFactory,
    ) -> None:
        path = tmp_path_factory.mktemp("env") / "env"
        one, applied = stacked(names[0], base(choice[0]))
        saved = make(one)
        saved.setup()
        play(saved, steps)
        saved.save_state(path)
        wanted = list(reversed(applied)) if moved else names[1]
        env, here = stacked(wanted, base(choice[0] if moved else choice[1]))
        other = make(env)
        other.setup()
        play(other, 2)
        twin = make(stacked(wanted, base(choice[0] if moved else choice[1]))[0])
        other.save_state(path.with_name("before"))
        passive = {"OrderEnforcing"}
        same = [n for n in here if n not in passive] == [n for n in applied if n not in passive]
        if same and (moved or choice[0] == choice[1]):
            other.load_state(path)
            assert play(other, 25) == play(saved, 25)
        else:
            with pytest.raises(FormatError, match="Build it as it was, or begin a new episode"):
                other.load_state(path)
            twin.load_state(path.with_name("before"))
            twin.setup()
            assert play(other, 9) == play(twin, 9)


def saved_and(other: GymEnvironment[Any, Any], saved: GymEnvironment[Any, Any], path: Path, steps: int = 5) -> None:
    """Save an environment in the middle of an episode, and load and set up another one."""
    saved.setup()
    play(saved, steps)
    saved.save_state(path)
    other.load_state(path)
    other.setup()


def unchecked(env: str, **kwargs: Any) -> Env:
    return gymnasium.make(env, disable_env_checker=True, **kwargs)


class TestLookersOn:
    """Wrappers that keep nothing of an episode may come and go."""

    @pytest.mark.parametrize("old", [False, True], ids=["described", "older version"])
    @pytest.mark.parametrize(
        ("one", "other"),
        [
            (lambda: unchecked("CartPole-v1"), lambda: gymnasium.make("CartPole-v1")),
            (lambda: gymnasium.make("CartPole-v1"), lambda: unchecked("CartPole-v1")),
            (
                lambda: gymnasium.make("Taxi-v4").unwrapped,
                lambda: wrappers.OrderEnforcing(unchecked("Taxi-v4").unwrapped),
            ),
            (Seeker, lambda: wrappers.PassiveEnvChecker(wrappers.OrderEnforcing(Seeker()))),
            (
                lambda: wrappers.TimeLimit(wrappers.OrderEnforcing(Seeker()), 9),
                lambda: wrappers.OrderEnforcing(wrappers.TimeLimit(Seeker(), 9)),
            ),
            (lambda: gymnasium.make("Acrobot-v1"), lambda: gymnasium.make("Acrobot-v1", render_mode="rgb_array")),
        ],
    )
    def test_the_episode_goes_on(
        self, one: Callable[[], Env], other: Callable[[], Env], old: bool, tmp_path: Path
    ) -> None:
        saved, again = make(one()), make(other())
        seed(saved, 4)
        saved.setup()
        play(saved, 5)
        saved.save_state(tmp_path / "env")
        if old:
            without_stack(tmp_path / "env")
            again.env.action_space.seed(1)
            saved.env.action_space.seed(1)
        again.load_state(tmp_path / "env")
        again.setup()
        assert play(again, 20) == play(saved, 20)


def cart(*wraps: Wrap, **kwargs: Any) -> Callable[[], Env]:
    return lambda: make("CartPole-v1", *wraps, **kwargs).env


def heavier() -> Env:
    env = gymnasium.make("CartPole-v1")
    env.unwrapped.gravity = 20.0  # type: ignore[attr-defined]
    return env


def lake(**kwargs: Any) -> Callable[[], Env]:
    return lambda: gymnasium.make("FrozenLake-v1", **kwargs)


CHANGED = {
    "a limit more": (cart(max_episode_steps=-1), cart(), "made of CartPoleEnv, this one of TimeLimit > CartPoleEnv"),
    "a limit less": (cart(), cart(max_episode_steps=-1), "made of TimeLimit > CartPoleEnv, this one of CartPoleEnv"),
    "another limit": (cart(), cart(max_episode_steps=9), "max_episode_steps of TimeLimit was 500, here it is 9"),
    "statistics more": (
        cart(),
        cart(ANY["RecordEpisodeStatistics"]),
        "this one of RecordEpisodeStatistics > TimeLimit",
    ),
    "statistics less": (cart(ANY["RecordEpisodeStatistics"]), cart(), "there is no such wrapper"),
    "another order": (
        cart(ANY["DelayObservation"], ANY["FrameStackObservation"]),
        cart(ANY["FrameStackObservation"], ANY["DelayObservation"]),
        "made of FrameStackObservation > DelayObservation > TimeLimit",
    ),
    "another delay": (
        cart(lambda env: wrappers.DelayObservation(env, 1)),
        cart(lambda env: wrappers.DelayObservation(env, 2)),
        "delay of DelayObservation was 1, here it is 2",
    ),
    "a subclass of the same name": (
        cart(lambda env: wrappers.TimeLimit(env, 9), max_episode_steps=-1),
        cart(lambda env: TimeLimit(env, 9), max_episode_steps=-1),
        r"made of gymnasium\.wrappers\.common\.TimeLimit.*, this one of .*test_restore\.TimeLimit",
    ),
    "frozen statistics": (
        cart(wrappers.NormalizeReward),
        lambda: frozen(cart(wrappers.NormalizeReward)()),
        "update_running_mean of NormalizeReward was True, here it is False",
    ),
    "another environment": (lambda: gymnasium.make("Acrobot-v1"), cart(), "TimeLimit > AcrobotEnv, this one of"),
    "one with the same attributes": (
        lambda: gymnasium.make("MountainCar-v0"),
        lambda: gymnasium.make("MountainCarContinuous-v0"),
        "TimeLimit > MountainCarEnv, this one of",
    ),
    "another world": (cart(), heavier, "gravity of CartPoleEnv was 9.8, here it is 20.0"),
    "another reward": (cart(), cart(sutton_barto_reward=True), "_sutton_barto_reward of CartPoleEnv was False"),
    "another map": (lake(), lake(map_name="8x8"), "nrow of FrozenLakeEnv was 4, here it is 8"),
    "a map drawn anew": (lake(map_name=None), lake(map_name=None), "P of FrozenLakeEnv was"),
    "less slippery": (lake(), lake(is_slippery=False), "P of FrozenLakeEnv was"),
    "another space": (lambda: Seeker(3), lambda: Seeker(4), r"observation_space was Box\(\(3,\), float64\), here"),
    "another wrapper of the user's": (
        lambda: Teller(cart()()),
        lambda: Teller2(cart()()),
        "made of Teller > TimeLimit",
    ),
}


def frozen(env: Env) -> Env:
    env.update_running_mean = False  # type: ignore[attr-defined]
    return env


class Teller(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Answers for a CartPole, and for itself."""

    steps = 0

    def step(self, action: Any) -> Any:
        self.steps += 1
        obs, reward, terminated, truncated, info = self.env.step(action)
        return obs, float(reward) + self.steps, terminated, truncated, info

    def get_state(self) -> Any:
        return {"steps": self.steps, "state": self.unwrapped.state}  # type: ignore[attr-defined]

    def set_state(self, state: Any) -> None:
        self.steps = state["steps"]
        self.unwrapped.state = state["state"]  # type: ignore[attr-defined]


class Teller2(Teller):
    """The same, by another name."""


class TestAnotherEnvironment:
    @pytest.mark.parametrize("running", [False, True], ids=["new", "running"])
    @pytest.mark.parametrize("change", sorted(CHANGED))
    def test_it_is_refused_with_what_differs_and_nothing_has_changed(
        self, change: str, running: bool, tmp_path: Path
    ) -> None:
        one, other, difference = CHANGED[change]
        saved, env = make(one()), make(other())
        saved.setup()
        play(saved, 3)
        saved.save_state(tmp_path / "env")
        if running:
            env.setup()
            play(env, 3)
        before = plain(env.env.unwrapped.np_random.bit_generator.state)
        with pytest.raises(FormatError, match=difference) as caught:
            env.load_state(tmp_path / "env")
        assert "GymEnvironment(…, resume_episode=False)" in str(caught.value)
        assert plain(env.env.unwrapped.np_random.bit_generator.state) == before
        if not running:
            env.setup()
        play(env, 30)

    @pytest.mark.parametrize("change", sorted(CHANGED))
    def test_a_new_episode_begins_where_that_is_wanted_and_the_log_says_why(
        self, change: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        one, other, _ = CHANGED[change]
        saved, env = make(one()), make(other(), resume_episode=False)
        with caplog.at_level(logging.WARNING):
            saved_and(env, saved, tmp_path / "env")
        assert isinstance(env.observe(), EnvReset)
        assert "a new episode of" in caplog.text
        play(env, 30)

    @pytest.mark.parametrize("change", ["a limit more", "a limit less", "statistics more", "another environment"])
    def test_what_older_versions_saved_is_refused_as_well(self, change: str, tmp_path: Path) -> None:
        one, other, _ = CHANGED[change]
        saved, env = make(one()), make(other())
        saved.setup()
        play(saved, 3)
        saved.save_state(tmp_path / "env")
        without_stack(tmp_path / "env")
        with pytest.raises(FormatError, match="other layers than|keeps"):
            env.load_state(tmp_path / "env")
        relaxed = make(other(), resume_episode=False)
        relaxed.load_state(tmp_path / "env")
        relaxed.setup()
        assert isinstance(relaxed.observe(), EnvReset)

    def test_it_may_be_built_differently_where_no_episode_was_saved(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        env = make(Silent(), ANY["TimeLimit"])
        with caplog.at_level(logging.WARNING):
            saved_and(env, make(Silent()), tmp_path / "env")
        assert isinstance(env.observe(), EnvReset)
        assert "made of Silent, this one of TimeLimit > Silent" in caplog.text


class TestWhatLasts:
    """Wrappers gather statistics for longer than an episode: they come back also where the episode does not."""

    WRAPS = (ARRAYS["NormalizeObservation"], wrappers.NormalizeReward, ANY["RecordEpisodeStatistics"])

    def test_it_comes_back_with_a_new_episode(self, tmp_path: Path) -> None:
        saved, env = make(Silent(), *self.WRAPS), make(Silent(), *self.WRAPS)
        saved.env.action_space.seed(1)
        saved_and(env, saved, tmp_path / "env", steps=60)
        assert not (tmp_path / "env" / "episode.tree").exists()
        saved._obs = saved._reset()
        assert play(env, 60) == play(saved, 60)

    def test_it_comes_back_where_the_episode_is_not_wanted(self, tmp_path: Path) -> None:
        saved = make("Pendulum-v1", *self.WRAPS)
        env = make("Pendulum-v1", *self.WRAPS, ANY["ClipReward"], resume_episode=False)
        saved_and(env, saved, tmp_path / "env", steps=250)
        assert env.env.get_wrapper_attr("length_queue") == saved.env.get_wrapper_attr("length_queue")
        gathered, lasting = (one.env.get_wrapper_attr("obs_rms").count for one in (saved, env))
        assert lasting == gathered + 1

    def test_the_time_of_an_episode_is_what_it_took_before_and_after(self, tmp_path: Path) -> None:
        saved, env = (make("CartPole-v1", ANY["RecordEpisodeStatistics"]) for _ in range(2))
        saved.setup()
        saved.env.episode_start_time -= 1000.0  # type: ignore[attr-defined]
        saved.save_state(tmp_path / "env")
        env.load_state(tmp_path / "env")
        env.setup()
        while env.env.get_wrapper_attr("episode_count") == 0:
            env.affect(GymAction(0))
        assert 1000.0 < env.env.get_wrapper_attr("time_queue")[0] < 2000.0

    def test_it_is_refused_where_it_has_no_place(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        saved = make(Silent(), *self.WRAPS)
        saved.setup()
        saved.save_state(tmp_path / "env")
        with pytest.raises(FormatError, match="what the NormalizeObservation has gathered: there is no such wrapper"):
            make(Silent(), *self.WRAPS[1:]).load_state(tmp_path / "env")
        wider = Silent(5)
        with pytest.raises(FormatError, match="NormalizeObservation has gathered: obs_rms has another shape"):
            make(wider, *self.WRAPS).load_state(tmp_path / "env")
        relaxed = make(wider, *self.WRAPS, resume_episode=False)
        relaxed.load_state(tmp_path / "env")
        with caplog.at_level(logging.WARNING):
            relaxed.setup()
        assert "obs_rms has another shape here" in caplog.text
        assert relaxed.env.get_wrapper_attr("obs_rms").mean.shape == (5,)


def test_a_limit_inside_a_wrapper_that_answers_for_it_goes_on(tmp_path: Path) -> None:
    def build() -> GymEnvironment[Any, Any]:
        return make("CartPole-v1", Teller, max_episode_steps=8)

    saved, env = build(), build()
    saved.env.action_space.seed(1)
    saved_and(env, saved, tmp_path / "env")
    assert play(env, 20) == play(saved, 20)


def test_a_subclass_of_a_known_wrapper_may_keep_more(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        env = make(Seeker(), lambda env: TimeLimit(env, 9))
        saved_and(env, make(Seeker(), lambda env: TimeLimit(env, 9)), tmp_path / "env")
    assert "the state of TimeLimit in <TimeLimit<Seeker instance>> is not known" in caplog.text
    assert "a new episode of <TimeLimit<Seeker instance>> begins: the last one was not saved" in caplog.text


@pytest.mark.parametrize("wrap", [wrappers.TransformObservation, wrappers.TransformAction])
def test_a_function_of_the_users_may_remember_things(
    wrap: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    env = make(Seeker(), lambda env: wrap(env, lambda value: value, None))
    with caplog.at_level(logging.WARNING):
        saved_and(env, make(Seeker(), lambda env: wrap(env, lambda value: value, None)), tmp_path / "env")
    assert f"the state of {wrap.__name__} in" in caplog.text
    assert isinstance(env.observe(), EnvReset)


def test_an_environment_that_was_never_reset_begins_as_it_would_have(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    saved, env = make("CartPole-v1"), make("CartPole-v1")
    with caplog.at_level(logging.WARNING):
        saved.save_state(tmp_path / "env")
        env.load_state(tmp_path / "env")
        env.setup()
    saved.setup()
    assert play(env, 20) == play(saved, 20)
    assert caplog.text == ""


def test_a_state_that_no_setup_followed_is_saved_as_it_was_loaded(tmp_path: Path) -> None:
    saved, idle, env = (make("CartPole-v1", wrappers.NormalizeReward) for _ in range(3))
    saved_and(idle, saved, tmp_path / "one")
    idle.teardown()
    idle.load_state(tmp_path / "one")
    idle.save_state(tmp_path / "two")
    env.load_state(tmp_path / "two")
    env.setup()
    assert play(env, 20) == play(saved, 20)


def test_a_state_without_an_episode_begins_one_in_a_running_environment(tmp_path: Path) -> None:
    env = make(Silent())
    env.setup()
    play(env, 3)
    env.save_state(tmp_path / "env")
    env.load_state(tmp_path / "env")
    assert isinstance(env.observe(), EnvReset)


def test_a_state_of_nothing_is_a_state(tmp_path: Path) -> None:
    class Bandit(Seeker):
        told: ClassVar[list[Any]] = []

        def get_state(self) -> None:
            return None

        def set_state(self, state: Any) -> None:
            self.told.append(state)

    saved_and(make(Bandit()), make(Bandit()), tmp_path / "env")
    assert Bandit.told == [None]


@pytest.mark.parametrize("fickle", [False, True])
def test_an_older_taxi_goes_on_unless_its_passenger_may_change_his_mind(fickle: bool, tmp_path: Path) -> None:
    saved, env = (make("Taxi-v4", fickle_passenger=fickle) for _ in range(2))
    saved.setup()
    play(saved, 3)
    saved.save_state(tmp_path / "env")
    without_stack(tmp_path / "env")
    episode = read_tree(tmp_path / "env" / "episode.tree")
    episode["layers"][-1] = {name: episode["layers"][-1][name] for name in ("s", "lastaction")}
    write_tree(episode, tmp_path / "env" / "episode.tree")
    if fickle:
        with pytest.raises(FormatError, match=r"the saved TaxiEnv keeps \['lastaction', 's'\], this one"):
            env.load_state(tmp_path / "env")
    else:
        env.load_state(tmp_path / "env")
        env.setup()
        for one in (env, saved):
            one.env.action_space.seed(1)
        assert play(env, 9) == play(saved, 9)


def test_nothing_of_an_environment_in_the_state_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        make(Seeker()).load_state(tmp_path / "nothing")
    assert "the state holds nothing of <Seeker instance>: a new episode begins" in caplog.text


def test_a_damaged_state_is_refused(tmp_path: Path) -> None:
    env = make(Seeker())
    env.setup()
    for name, content in (("episode.tree", {"layers": []}), ("rng.tree", 3), ("stack.tree", {})):
        env.save_state(tmp_path / name)
        write_tree(content, tmp_path / name / name)
        with pytest.raises(FormatError, match="does not hold the state of a GymEnvironment"):
            env.load_state(tmp_path / name)


def test_vector_environments_are_refused() -> None:
    env = gymnasium.make_vec("CartPole-v1", 2)
    with pytest.raises(TypeError, match="is not a gymnasium.Env: give a single environment"):
        GymEnvironment(env)  # type: ignore[arg-type]
    env.close()


def test_every_wrapper_of_gymnasium_is_known_or_known_not_to_be() -> None:
    unknown = {"AtariPreprocessing", "RecordVideo", "RenderCollection", "vector"}
    unknown |= {"TransformAction", "TransformObservation", "TransformReward"}
    assert set(wrappers.__all__) <= unknown | layers._STATELESS | layers._WRAPPERS.keys()
