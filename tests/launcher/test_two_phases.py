"""A save in two phases: the agent acts on while models, buffers and trainers are saved; the state is of one instant."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from benchmarks.idlers import Nowhere
from statevault.data.impls import SequentialBuffer
from statevault.interaction import Agent, Interaction
from statevault.launcher import LaunchConfig, launch
from statevault.model import InferenceModel, TrainingModel
from statevault.state_persistence import StateStore, read_tree, write_tree
from statevault.trainer import Trainer

LIMIT_S = 300.0


class Actor(Agent[int, int]):
    """Collects the number of each of its steps, and draws nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0
        self.fails = self.has_failed = False

    @override
    def on_data_collectors_attached(self) -> None:
        self.collector = self.get_data_collector("steps")

    @override
    def step(self, observation: int) -> int:
        if self.fails:
            self.has_failed = True
            raise ZeroDivisionError
        self.steps += 1
        self.collector.collect({"step": self.steps})
        time.sleep(0.0005)
        return self.steps

    @override
    def save_state(self, path: Path) -> None:
        super().save_state(path)
        path.mkdir(exist_ok=True)
        write_tree(self.steps, path / "steps.tree")

    @override
    def load_state(self, path: Path) -> None:
        super().load_state(path)
        self.steps = read_tree(path / "steps.tree")


class Reader(InferenceModel):
    @override
    def infer(self) -> int:
        return 0


class Counted(TrainingModel[Reader]):
    """Counts how often it was trained; its save takes as long as the test wants."""

    def __init__(self, *, inference_thread_only: bool = False) -> None:
        super().__init__(has_inference_model=True, inference_thread_only=inference_thread_only)
        self.count = 0
        self.while_saving: Callable[[], None] = lambda: None

    @override
    def _create_inference_model(self) -> Reader:
        return Reader()

    @override
    def sync_impl(self, inference_model: Reader) -> None:
        pass

    @override
    def forward(self) -> int:
        return self.count

    @override
    def save_state(self, path: Path) -> None:
        before = self.count
        self.while_saving()
        assert self.count == before
        write_tree(self.count, path.with_name(path.name + ".tree"))

    @override
    def load_state(self, path: Path) -> None:
        self.count = read_tree(path.with_name(path.name + ".tree"))


class Counting(Trainer):
    """Counts in the model, and how many samples it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0
        self.while_saving: Callable[[], None] = lambda: None

    @override
    def save_state(self, path: Path) -> None:
        super().save_state(path)
        self.while_saving()

    @override
    def on_training_models_attached(self) -> None:
        self.model = self.get_training_model("counted")

    @override
    def on_data_users_attached(self) -> None:
        self.data = self.get_data_user("steps")

    @override
    def is_trainable(self) -> bool:
        return True

    @override
    def train(self) -> None:
        self.model.count += 1
        self.seen = len(self.data.get_data()["step"])
        time.sleep(0.001)


def run(tmp_path: Path, **parts: Any) -> tuple[Actor, Counted]:
    actor, model = parts.pop("actor", None) or Actor(), parts.pop("model", None) or Counted()
    launch(
        Interaction(actor, Nowhere()),
        models={"counted": model, "own": Counted(inference_thread_only=True)},
        buffers={"steps": parts.pop("buffer", None) or SequentialBuffer(["step"], 100_000)},
        trainers={"counting": parts.pop("trainer", None) or Counting()},
        config=LaunchConfig(states_dir=tmp_path, web_api_address=None, **parts),
    )
    return actor, model


def steps_in(state: str, tmp_path: Path) -> tuple[int, list[int], bool]:
    """The agent's count, the samples that a resumed agent has, and whether some of them were waiting."""
    from statevault.data import DataUsersDict

    buffer = SequentialBuffer[Any](["step"], 100_000)
    actor = Actor()
    with StateStore(tmp_path) as store:
        store.register("data", DataUsersDict.from_data_buffers(steps=buffer))
        store.register("interaction", _Only(actor))
        store.load_state(state, strict=False)
        files = [file.path for file in store.open_state(state).manifest.files]
    return actor.steps, list(buffer.get_data()["step"]), "data/steps/waiting.tree" in files


class _Only:
    """The agent out of an interaction."""

    def __init__(self, agent: Actor) -> None:
        self.agent = agent

    def save_state(self, path: Path) -> None:
        raise NotImplementedError

    def load_state(self, path: Path) -> None:
        self.agent.load_state(path / "agent")


def once_after(times: int) -> Callable[[], bool]:
    """A save condition that holds a single time, after it was asked so many times."""
    answers = iter([False] * times + [True])
    return lambda: next(answers, False)


def test_the_agent_acts_on_while_the_training_side_is_saved(tmp_path: Path) -> None:
    actor, trainer = Actor(), Counting()
    acted: list[int] = []

    def save_slowly() -> None:
        if acted or actor.steps == 0:
            return
        before, end = actor.steps, time.monotonic() + LIMIT_S
        while actor.steps < before + 50 and time.monotonic() < end:
            time.sleep(0.001)
        acted.append(actor.steps - before)

    # A trainer, which is saved after the buffers: what the agent collects meanwhile has to wait.
    trainer.while_saving = save_slowly
    run(
        tmp_path,
        actor=actor,
        trainer=trainer,
        save_state_condition=once_after(20),
        max_uptime=3.0,
    )
    assert acted
    assert acted[0] >= 50
    first, *_ = [info.name for info in StateStore(tmp_path).states()]
    steps, samples, some_waited = steps_in(first, tmp_path)
    assert some_waited
    assert steps >= 50
    assert samples == list(range(1, steps + 1)), "the samples of all steps that the agent remembers, and no others"


def test_an_agent_that_fails_between_the_phases_leaves_its_last_state(tmp_path: Path) -> None:
    actor, trainer = Actor(), Counting()

    def wait_for_the_end() -> None:
        if actor.fails or actor.steps == 0:
            return
        actor.fails = True
        end = time.monotonic() + LIMIT_S
        while not actor.has_failed and time.monotonic() < end:
            time.sleep(0.001)

    trainer.while_saving = wait_for_the_end
    with pytest.raises(ZeroDivisionError):
        run(
            tmp_path,
            actor=actor,
            trainer=trainer,
            save_state_condition=once_after(20),
            max_uptime=20.0,
        )
    with StateStore(tmp_path) as store:
        [state] = store.states()
        assert str(state.metadata["exit"]).startswith("error: ZeroDivisionError")
    steps, samples, _ = steps_in(state.name, tmp_path)
    assert samples == list(range(1, steps + 1))


def test_every_state_is_of_one_instant(tmp_path: Path) -> None:
    run(tmp_path, save_state_condition=lambda: True, max_uptime=2.0)
    with StateStore(tmp_path) as store:
        names = store.names()
    assert len(names) > 3
    for name in names:
        steps, samples, _ = steps_in(name, tmp_path)
        assert samples == list(range(1, steps + 1)), name


def test_an_agent_goes_on_with_what_was_waiting(tmp_path: Path) -> None:
    run(tmp_path, save_state_condition=lambda: True, max_uptime=1.0)
    name = StateStore(tmp_path).names()[1]
    before, _, _ = steps_in(name, tmp_path)
    resumed = Actor()
    buffer = SequentialBuffer[Any](["step"], 100_000)
    run(tmp_path, actor=resumed, buffer=buffer, saved_state_path=name, max_uptime=0.5)
    assert resumed.steps > before
    assert list(buffer.get_data()["step"]) == list(range(1, len(buffer) + 1))


def test_a_model_of_the_agents_own_is_saved_while_it_stands_still(tmp_path: Path) -> None:
    moved: list[bool] = []
    actor, own = Actor(), Counted(inference_thread_only=True)

    def watch() -> None:
        before = actor.steps
        time.sleep(0.02)
        moved.append(actor.steps != before)

    own.while_saving = watch
    launch(
        Interaction(actor, Nowhere()),
        models={"own": own},
        buffers={"steps": SequentialBuffer(["step"], 100)},
        config=LaunchConfig(
            states_dir=tmp_path,
            web_api_address=None,
            save_state_condition=once_after(20),
            max_uptime=2.0,
        ),
    )
    assert moved == [False, False], "in the save, and in the final one"


class Diary(SequentialBuffer[Any]):
    """A buffer of objects that only it knows how to store."""

    def __init__(self) -> None:
        super().__init__(100)

    @override
    def validate(self, sample: Any) -> None:
        pass

    @override
    def save_state(self, path: Path) -> None:
        path.mkdir()
        (path / "diary.txt").write_text("\n".join(str(sample.number) for sample in self.get_data()))

    @override
    def load_state(self, path: Path) -> None:
        for number in (path / "diary.txt").read_text().split():
            self.add(Entry(int(number)))


class Entry:
    def __init__(self, number: int) -> None:
        self.number = number


def test_samples_that_only_their_buffer_can_store_are_stored_by_it(tmp_path: Path) -> None:
    from statevault.data import DataUsersDict

    users = DataUsersDict.from_data_buffers(diary=Diary())
    with StateStore(tmp_path) as store:
        store.register("data", users)
        users["diary"].collector.collect(Entry(1))
        prepared = store.prepare_save()
        users["diary"].collector.collect(Entry(2))
        prepared.finish().result()
        loaded = DataUsersDict.from_data_buffers(diary=Diary())
    with StateStore(tmp_path) as store:
        store.register("data", loaded)
        store.load_state("latest")
    assert [sample.number for sample in loaded["diary"].get_data()] == [1, 2]
    assert [sample.number for sample in users["diary"].get_data()] == [1, 2]


def test_a_buffer_that_is_read_between_the_phases_is_saved_as_it_is_then(tmp_path: Path) -> None:
    from statevault.data import DataUsersDict

    users = DataUsersDict.from_data_buffers(steps=SequentialBuffer[Any](["step"], 100))
    with StateStore(tmp_path) as store:
        store.register("data", users)
        users["steps"].collector.collect({"step": 1})
        prepared = store.prepare_save()
        users["steps"].collector.collect({"step": 2})
        assert len(users["steps"].get_data()["step"]) == 2
        users["steps"].collector.collect({"step": 3})
        prepared.finish().result()
        loaded = DataUsersDict.from_data_buffers(steps=SequentialBuffer[Any](["step"], 100))
    with StateStore(tmp_path) as store:
        store.register("data", loaded)
        store.load_state("latest")
    assert list(loaded["steps"].get_data()["step"]) == [1, 2, 3]


def test_a_prepared_save_is_finished_or_discarded_once(tmp_path: Path) -> None:
    with StateStore(tmp_path) as store:
        store.register("own", _Notes())
        store.prepare_save().discard()
        prepared = store.prepare_save()
        waiting = threading.Thread(target=lambda: store.prepare_save().discard())
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive(), "nothing else is saved meanwhile"
        prepared.finish(metadata={"step": 1}).result()
        waiting.join(LIMIT_S)
        prepared.discard()
        with pytest.raises(ValueError, match="finished or discarded"):
            prepared.finish()
        assert [info.metadata for info in store.states()] == [{"step": 1}]


class _Notes:
    def save_state(self, path: Path) -> None:
        path.write_text("note")

    def load_state(self, path: Path) -> None:
        pass


def test_a_model_that_can_not_be_saved_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = Counted()
    failures = iter([True, True])

    def fail() -> None:
        if next(failures, False):
            raise ValueError("the model can't be saved now")

    model.while_saving = fail
    saves = iter([False] * 20 + [True, True])
    run(tmp_path, model=model, save_state_condition=lambda: next(saves, False), max_uptime=1.5)
    assert "the model can't be saved now" in caplog.text
    assert len(StateStore(tmp_path).names()) == 2, "the next one, and the final one"
