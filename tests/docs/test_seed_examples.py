"""The examples of PAMIQ-Core's manual run with only the name of the package changed.

Classes, methods and calls are those of its pages on state persistence and on data; docstrings are left out. (Its
``class X[T]`` is spelled with ``Generic`` here, since Python 3.11 has no other way.)
"""

from __future__ import annotations

import os
import signal
import time as system_time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

import pytest
from typing_extensions import override
from upath import UPath

from statevault import Agent, Environment, Interaction, LaunchConfig, StateStore, Trainer, launch, time
from statevault.data import DataBuffer
from statevault.data.impls import RandomReplacementBuffer, SequentialBuffer
from statevault.state_persistence import LatestStatesKeeper, PeriodicSaveCondition, StatesKeeper
from tests.servers import Servers, StorageTarget, target_names

T = TypeVar("T")


class MyCustomAgent(Agent[float, int]):
    def __init__(self) -> None:
        super().__init__()
        self.episode_count = 0
        self.total_reward = 0.0
        self.learning_rate = 0.01

    @override
    def step(self, observation: float) -> int:
        action = 1 if observation > 0 else 0
        return action  # noqa: RET504

    @override
    def save_state(self, path: Path) -> None:
        super().save_state(path)
        path.mkdir(exist_ok=True)
        with open(path / "episode_stats.txt", "w") as f:  # noqa: PTH123
            f.write(f"episode_count: {self.episode_count}\n")
            f.write(f"total_reward: {self.total_reward}\n")
            f.write(f"learning_rate: {self.learning_rate}\n")

    @override
    def load_state(self, path: Path) -> None:
        super().load_state(path)
        try:
            with open(path / "episode_stats.txt", "r") as f:  # noqa: PTH123, UP015
                lines = f.readlines()
                for line in lines:
                    key, value = line.strip().split(": ")
                    if key == "episode_count":
                        self.episode_count = int(value)
                    elif key == "total_reward":
                        self.total_reward = float(value)
                    elif key == "learning_rate":
                        self.learning_rate = float(value)
        except FileNotFoundError:
            self.episode_count = 0
            self.total_reward = 0.0
            self.learning_rate = 0.01


class SizeBasedStatesKeeper(StatesKeeper):
    def __init__(self, states_dir: Path, max_total_size_mb: float) -> None:
        super().__init__()
        self.states_dir = states_dir
        self.max_total_size_bytes = max_total_size_mb * 1024 * 1024
        self._state_paths: list[Path] = []

    @override
    def append(self, path: Path) -> None:
        self._state_paths.append(path)

    @override
    def select_removal_states(self) -> Iterable[Path]:
        total_size = 0
        removal_states = []
        sorted_paths = sorted(self._state_paths, key=lambda p: p.stat().st_mtime)
        for path in reversed(sorted_paths):
            if path.exists():
                size = sum(f.stat().st_size for f in path.rglob("*") if f.is_file())
                total_size += size
                if total_size > self.max_total_size_bytes:
                    removal_states.append(path)
        for path in removal_states:
            self._state_paths.remove(path)
        return removal_states


class DataCollectingAgent(Agent[float, int]):
    @override
    def on_data_collectors_attached(self) -> None:
        self.experience_collector = self.get_data_collector("experience")

    @override
    def step(self, observation: float) -> int:
        action = int(observation > 0)
        self.experience_collector.collect(
            {"observation": observation, "action": action, "reward": 1.0 if action == 1 else -1.0}
        )
        return action


class ExperienceTrainer(Trainer):
    @override
    def on_data_users_attached(self) -> None:
        self.experience_data = self.get_data_user("experience")

    @override
    def train(self) -> None:
        self.experience_data.update()
        data = self.experience_data.get_data()
        observations = data["observation"]
        actions = data["action"]
        rewards = data["reward"]
        self.trained_on = len(observations)
        assert len(actions) == len(rewards) == len(observations)


class SimpleBuffer(DataBuffer[T], Generic[T]):
    @override
    def __init__(self, collecting_data_names: list[str], max_size: int) -> None:
        super().__init__(collecting_data_names, max_size)
        self._data: dict[str, list[T]] = {name: [] for name in collecting_data_names}
        self._count = 0

    @override
    def add(self, step_data: dict[str, T]) -> None:
        for name in self._collecting_data_names:
            if name not in step_data:
                raise KeyError(f"Required data '{name}' not found in step_data")
        if self._count < self.max_size:
            for name in self._collecting_data_names:
                self._data[name].append(step_data[name])
            self._count += 1
        else:
            for name in self._collecting_data_names:
                self._data[name].pop(0)
                self._data[name].append(step_data[name])

    @override
    def get_data(self) -> dict[str, list[T]]:
        return {name: data.copy() for name, data in self._data.items()}

    @override
    def __len__(self) -> int:
        return self._count


class Weather(Environment[float, int]):
    """Not of the manual: something for its agents to act on, which ends the system when something has happened.

    Args:
        until: Asked a few times a second; None for never.
    """

    def __init__(self, until: Callable[[], bool] | None = None) -> None:
        super().__init__()
        self._until = until
        self._asked_at = system_time.monotonic()

    @override
    def observe(self) -> float:
        return 0.5

    @override
    def affect(self, action: int) -> None:
        system_time.sleep(0.001)
        if self._until is not None and system_time.monotonic() - self._asked_at > 0.2:
            self._asked_at = system_time.monotonic()
            if self._until():
                self._until = None
                os.kill(os.getpid(), signal.SIGTERM)


class CountingAgent(MyCustomAgent):
    """The manual's agent, whose numbers move."""

    @override
    def step(self, observation: float) -> int:
        self.episode_count += 1
        self.total_reward += 0.5
        return super().step(observation)


@pytest.fixture(params=["local", "juicefs", "fake-gcs"])
def place(request: pytest.FixtureRequest, servers: Servers) -> StorageTarget:
    """A store on a local disk, in S3, and in GCS."""
    if request.param not in target_names():
        pytest.skip("this run uses no storage servers")
    return servers.target(request.param)


@pytest.fixture
def states(place: StorageTarget) -> Iterator[StateStore]:
    """A look at the store from outside."""
    with StateStore(place.url, storage_options=place.storage_options) as store:
        yield store


def last_sequence(states: StateStore) -> int:
    """The sequence of the newest state, 0 if there is none."""
    newest = states.latest()
    return 0 if newest is None else newest.sequence


def test_a_custom_agent_comes_back_with_its_own_state(place: StorageTarget, states: StateStore) -> None:
    agent = CountingAgent()
    agent.learning_rate = 0.25
    interaction = Interaction(agent, Weather(lambda: last_sequence(states) > 2))
    launch(
        interaction=interaction,
        models={},
        buffers={},
        trainers={},
        config=LaunchConfig(
            states_dir=place.url,
            storage_options=place.storage_options,
            save_state_condition=PeriodicSaveCondition(0.3),
            states_keeper=LatestStatesKeeper(states_dir=place.url, max_keep=2),
            max_uptime=60.0,
        ),
    )
    assert agent.episode_count > 0
    saved = states.states()
    assert len(saved) == 2
    assert saved[-1].sequence > 2, "there were more saves than are kept"
    keys = place.raw.keys()
    assert any(key.startswith(f"{saved[-1].name}/interaction/agent/episode_stats.txt") for key in keys)
    shared = {entry.key for info in saved for entry in states.open_state(info.name).manifest.objects}
    gone = [key for key in keys if ".state/" in key and key.partition("/")[0] not in {s.name for s in saved}]
    assert shared.issuperset(gone), "of removed states only what a kept one shares is left"

    resumed = MyCustomAgent()
    launch(
        interaction=Interaction(resumed, Weather()),
        models={},
        buffers={},
        trainers={},
        config=LaunchConfig(
            states_dir=place.url,
            storage_options=place.storage_options,
            saved_state_path=saved[-1].path,
            max_uptime=0.2,
        ),
    )
    assert resumed.episode_count == agent.episode_count
    assert resumed.total_reward == agent.total_reward
    assert resumed.learning_rate == 0.25


def test_a_custom_save_condition_decides(place: StorageTarget, states: StateStore) -> None:
    asked: list[float] = []

    def save_on_the_hour() -> bool:
        current_time = time.time()
        asked.append(current_time)
        minutes_elapsed = (current_time % 3600) / 60
        return minutes_elapsed < 0.1

    def run(seconds_past: float, until: Callable[[], bool] | None, max_uptime: float) -> int:
        """How many states were saved when the agent's clock began so many seconds past the hour."""
        before = len(states.names())
        time.load_state_dict(dict.fromkeys(time.state_dict(), 7200.0 + seconds_past))
        try:
            launch(
                Interaction(MyCustomAgent(), Weather(until)),
                config=LaunchConfig(
                    states_dir=place.url,
                    storage_options=place.storage_options,
                    save_state_condition=save_on_the_hour,
                    max_uptime=max_uptime,
                ),
            )
        finally:
            now = {"time": system_time.time(), "monotonic": system_time.monotonic()}
            time.load_state_dict({**now, "perf_counter": system_time.perf_counter()})
        return len(states.names()) - before

    assert run(1800.0, None, 1.0) == 1, "the final state only"
    assert run(1.0, lambda: last_sequence(states) > 1, 60.0) > 1
    assert asked


def test_a_custom_keeper_keeps_states_below_a_size(place: StorageTarget, states: StateStore) -> None:
    class HeavyAgent(CountingAgent):
        """A state of 100 kB that can't be compressed."""

        @override
        def save_state(self, path: Path) -> None:
            super().save_state(path)
            (path / "noise.bin").write_bytes(os.urandom(100_000))

    launch(
        Interaction(HeavyAgent(), Weather(lambda: last_sequence(states) > 3)),
        config=LaunchConfig(
            states_dir=place.url,
            storage_options=place.storage_options,
            save_state_condition=PeriodicSaveCondition(0.2),
            states_keeper=SizeBasedStatesKeeper(Path(place.url), max_total_size_mb=0.25),
            max_uptime=60.0,
        ),
    )
    kept = states.states()
    assert kept[-1].sequence > 3, "there were more saves than fit"
    assert 1 <= len(kept) <= 2
    assert sum(info.stored_size for info in kept) <= 0.25 * 1024**2
    assert kept[-1].metadata == {"exit": "clean"}


@pytest.mark.parametrize(
    "buffer",
    [
        lambda: SequentialBuffer(["observation", "action", "reward"], max_size=1000),
        lambda: RandomReplacementBuffer(["observation", "action", "reward"], max_size=1000, replace_probability=0.8),
        lambda: SimpleBuffer(["observation", "action", "reward"], 1000),
    ],
    ids=["sequential", "random replacement", "custom"],
)
@pytest.mark.parametrize("keyword", ["data", "buffers"])
def test_data_flows_from_agent_to_trainer(
    keyword: str, buffer: Callable[[], DataBuffer[Any, Any]], tmp_path: Path
) -> None:
    trainer = ExperienceTrainer()
    parts: Mapping[str, Any] = {keyword: {"experience": buffer()}}
    launch(
        interaction=Interaction(DataCollectingAgent(), Weather()),
        models={},
        trainers={"experience": trainer},
        config={"states_dir": tmp_path, "max_uptime": 0.5},
        **parts,
    )
    assert trainer.trained_on > 0


def test_the_older_launch_configuration_works(tmp_path: Path) -> None:
    config = LaunchConfig(
        states_dir=tmp_path / "states",
        state_name_format="%Y-%m-%d_%H-%M-%S,%f.state",
        saved_state_path=None,
        save_state_interval=0.1,
        max_keep_states=3,
        state_name_pattern="*.state",
        states_cleanup_interval=60.0,
        timeout_for_all_threads_pause=60.0,
        max_attempts_to_pause_all_threads=3,
        max_uptime=1.0,
        web_api_address=("localhost", 8319),
        web_api_command_queue_size=1,
        log_tick_time_statistics_interval=60.0,
        time_scale=1.0,
    )
    launch(Interaction(CountingAgent(), Weather()), {}, {}, {}, config)
    with StateStore(tmp_path / "states") as store:
        assert len(store.names()) == 3


def test_a_buffer_by_itself() -> None:
    buffer: SequentialBuffer[Any] = SequentialBuffer(["state", "action", "reward"], max_size=1000)
    buffer.add({"state": [0.1, 0.2], "action": 1, "reward": 0.5})
    data = buffer.get_data()
    assert data == {"state": [[0.1, 0.2]], "action": [1], "reward": [0.5]}


def test_configurations_of_the_manual(tmp_path: Path) -> None:
    condition = PeriodicSaveCondition(300.0)
    keeper = LatestStatesKeeper(states_dir="./saved_states", max_keep=5, state_name_pattern="*.state")
    assert LaunchConfig(save_state_condition=condition).condition() is condition
    assert LaunchConfig(states_keeper=keeper).states_keeper is keeper
    assert isinstance(LaunchConfig(states_dir=UPath(tmp_path)).states_dir, Path)
