"""What PAMIQ-Core wrote is loaded, as it lies or imported into a store."""

from __future__ import annotations

import logging
import os
import pickle
from pathlib import Path

import pytest
import torch
from typing_extensions import override

from statevault import launch, time
from statevault.data import DataUsersDict
from statevault.data.impls import DictSequentialBuffer
from statevault.errors import (
    ComponentNotFoundError,
    FormatError,
    InvalidNameError,
    PickleNotAllowedError,
    StateExistsError,
    StateNotFoundError,
    UnsupportedTypeError,
)
from statevault.interaction import Agent, Environment, Interaction
from statevault.model import TrainingModelsDict
from statevault.state_persistence import StateStore
from statevault.time import TimeController
from statevault.torch import TorchTrainer, TorchTrainingModel
from statevault.trainer import TrainersDict
from tests.cli.run import statevault
from tests.migration.pamiq_folder import NOW, SAMPLES, TIMESTAMPS, write_folder

NAME = "2025-06-01_12-00-00,000000.state"


class Walker(Agent[torch.Tensor, int]):
    steps = 0

    @override
    def step(self, observation: torch.Tensor) -> int:
        self.steps += 1
        time.sleep(0.001)
        return 0

    @override
    def save_state(self, path: Path) -> None:
        super().save_state(path)
        path.mkdir(exist_ok=True)
        (path / "episode_stats.txt").write_text(f"steps: {self.steps}\n")

    @override
    def load_state(self, path: Path) -> None:
        super().load_state(path)
        self.steps = int((path / "episode_stats.txt").read_text().split(": ")[1])


class World(Environment[torch.Tensor, int]):
    level = 0

    @override
    def observe(self) -> torch.Tensor:
        return torch.zeros(4)

    @override
    def affect(self, action: int) -> None:
        pass

    @override
    def save_state(self, path: Path) -> None:
        path.mkdir()
        (path / "world.pkl").write_bytes(pickle.dumps({"level": self.level}))

    @override
    def load_state(self, path: Path) -> None:
        self.level = pickle.loads((path / "world.pkl").read_bytes())["level"]


class Learner(TorchTrainer):
    @override
    def on_training_models_attached(self) -> None:
        self.policy = self.get_torch_training_model("policy")

    @override
    def create_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"adam": torch.optim.Adam(self.policy.model.parameters(), lr=0.01)}

    @override
    def train(self) -> None:
        time.sleep(0.001)


def module(width: int = 4) -> torch.nn.Linear:
    return torch.nn.Linear(width, 2)


class Agency:
    """The components of the agent that the folder is of, new."""

    def __init__(self, width: int = 4) -> None:
        self.agent, self.world = Walker(), World()
        self.interaction = Interaction(self.agent, self.world)
        self.policy = TorchTrainingModel(module(width))
        self.buffer: DictSequentialBuffer[object] = DictSequentialBuffer(["observation", "action"], 100)
        self.learner = Learner()
        self.clock = TimeController()

    def store(self, where: Path, *, allow_pickle: bool = True) -> StateStore:
        """A store with all of them registered, as `launch` does it."""
        self.models = TrainingModelsDict({"policy": self.policy})
        self.users = DataUsersDict.from_data_buffers({"experience": self.buffer})
        trainers = TrainersDict({"learner": self.learner})
        trainers.attach_training_models(self.models)
        store = StateStore(where, allow_pickle=allow_pickle)
        store.register("interaction", self.interaction)
        store.register("models", self.models)
        store.register("data", self.users)
        store.register("trainers", trainers)
        store.register("time", self.clock)
        return store


class Source:
    """The folder, and what it pictures."""

    def __init__(self, path: Path) -> None:
        self.module = module()
        optimizer = torch.optim.Adam(self.module.parameters(), lr=0.01)
        self.module(torch.ones(4)).sum().backward()
        optimizer.step()
        self.optimizer_state = optimizer.state_dict()
        self.path = write_folder(path, self.module, optimizer)

    def assert_loaded(self, agency: Agency) -> None:
        assert agency.agent.steps == 41
        assert agency.world.level == 3
        for name, value in self.module.state_dict().items():
            assert torch.equal(agency.policy.model.state_dict()[name], value)
            assert torch.equal(agency.policy.inference_model.module.state_dict()[name], value)
        data = agency.buffer.get_data()
        assert data["action"] == [sample["action"] for sample in SAMPLES]
        assert all(torch.equal(one, torch.full((4,), float(i))) for i, one in enumerate(data["observation"]))  # type: ignore[arg-type]
        assert agency.users["experience"].count_data_added_since(TIMESTAMPS[2]) == 3
        state = agency.learner.optimizers["adam"].state_dict()["state"]
        for index, expected in self.optimizer_state["state"].items():
            assert torch.equal(state[index]["exp_avg"], expected["exp_avg"])
        assert agency.clock.time() == pytest.approx(NOW, abs=60)
        assert agency.clock.perf_counter() == pytest.approx(60.0, abs=60)


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(tmp_path / "pamiq" / NAME)


def test_a_folder_is_loaded_as_it_lies(source: Source, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    agency = Agency()
    with agency.store(tmp_path / "states") as store:
        loaded = store.load_state(source.path)
    source.assert_loaded(agency)
    assert loaded.loaded == ("interaction", "models", "data", "trainers", "time")
    assert (loaded.name, loaded.sequence, loaded.files) == (NAME, 0, 8)
    assert "is a plain folder, not a committed state" in caplog.text
    assert not (tmp_path / "states").exists()


def test_a_folder_in_the_store_itself_is_loaded_by_its_path(source: Source, tmp_path: Path) -> None:
    agency = Agency()
    with agency.store(source.path.parent) as store:
        store.save_state()
        store.load_state(source.path)
        source.assert_loaded(agency)
        with pytest.raises(StateNotFoundError):
            store.load_state(NAME)  # a name is that of a committed state


def test_pickles_need_to_be_allowed_before_anything_is_loaded(source: Source, tmp_path: Path) -> None:
    agency = Agency()
    with agency.store(tmp_path, allow_pickle=False) as store:
        with pytest.raises(PickleNotAllowedError, match=r"data/experience/buffer\.pkl.*allow_pickle=True"):
            store.load_state(source.path)
        assert agency.agent.steps == 0
        store.load_state(source.path, components=["models", "trainers", "interaction"])  # nothing that we unpickle
    assert agency.agent.steps == 41
    assert torch.equal(agency.policy.model.weight, source.module.weight)


def test_parts_of_a_folder_are_loaded(source: Source, tmp_path: Path) -> None:
    agency = Agency()
    with agency.store(tmp_path) as store:
        store.register("more", World())
        with pytest.raises(ComponentNotFoundError, match="'more'"):
            store.load_state(source.path)
        assert store.load_state(source.path, components=["models/policy"]).loaded == ("models/policy",)
        assert agency.agent.steps == 0
        assert store.load_state(source.path, strict=False).missing == ("more",)
    source.assert_loaded(agency)


def test_a_folder_that_is_not_whole_is_refused(source: Source, tmp_path: Path) -> None:
    (source.path / "time.pkl").unlink()  # PAMIQ-Core writes it last
    agency = Agency()
    with agency.store(tmp_path) as store, pytest.raises(ComponentNotFoundError, match="'time'"):
        store.load_state(source.path)
    assert agency.agent.steps == 0


def test_a_model_whose_shape_has_changed_is_named(source: Source, tmp_path: Path) -> None:
    agency = Agency(width=5)
    with agency.store(tmp_path) as store, pytest.raises(FormatError, match=r"weight has the shape \(2, 4\)") as info:
        store.load_state(source.path)
    assert any("'models'" in note for note in info.value.__notes__)


def test_an_unfinished_save_is_not_taken_for_a_folder(tmp_path: Path) -> None:
    with Agency().store(tmp_path) as store:
        store.save_state(name="whole.state")
        [marker] = (tmp_path / "_vault" / "commits").iterdir()
        session = tmp_path / "_vault" / "sessions" / "whole.state"
        session.parent.mkdir(exist_ok=True)
        marker.rename(session)
        with pytest.raises(StateNotFoundError):
            store.load_state(tmp_path / "whole.state")
        session.unlink()
        with pytest.raises(FormatError, match="statevault saved"):
            store.load_state(tmp_path / "whole.state")


@pytest.mark.parametrize("record", ["sessions/killed.state", "aborts/killed.state"])
def test_what_a_killed_save_has_left_is_not_imported(tmp_path: Path, record: str) -> None:
    root = tmp_path / "states"
    debris = root / "killed.state" / "models"
    with StateStore(root) as store:
        store.save_state(name="whole.state")
    debris.mkdir(parents=True)
    (debris / ".tmp-4711-weights.bin").write_bytes(b"half of it")
    (root / "_vault" / record).parent.mkdir(exist_ok=True)
    (root / "_vault" / record).write_text("{}")
    (tmp_path / "link").symlink_to(root / "killed.state")
    with StateStore(tmp_path / "other") as store:
        for folder in (root / "killed.state", debris, tmp_path / "link"):
            with pytest.raises(FormatError, match="'killed.state' of the store .*states.*no plain folder"):
                store.import_folder(folder)
        assert not store.exists()
    run = statevault("import", str(root / "killed.state"), str(tmp_path / "other"))
    assert (run.code, "no plain folder" in run.err) == (7, True)


def test_a_store_is_no_state(tmp_path: Path) -> None:
    with Agency().store(tmp_path / "states") as store:
        store.save_state()
        with pytest.raises(FormatError, match="is a store of states"):
            store.load_state(tmp_path / "states")
        with pytest.raises(FormatError, match="is a store of states"):
            store.import_folder(tmp_path / "states")


def test_an_imported_folder_is_a_state_like_any_other(source: Source, tmp_path: Path) -> None:
    before = {file: file.read_bytes() for file in source.path.rglob("*") if file.is_file()}
    agency = Agency()
    with agency.store(tmp_path / "states") as store:
        path = store.import_folder(source.path, name="imported.state", metadata={"from": "pamiq"})
        assert path == tmp_path / "states" / "imported.state"
        [info] = store.states()
        assert info.components == ("data", "interaction", "models", "time", "trainers")
        assert info.metadata == {"from": "pamiq"}
        store.verify("imported.state")
        loaded = store.load_state("latest")
    source.assert_loaded(agency)
    assert loaded.loaded == ("interaction", "models", "data", "trainers", "time")
    assert {file: file.read_bytes() for file in source.path.rglob("*") if file.is_file()} == before


def test_pickles_are_flagged_in_the_manifest(source: Source, tmp_path: Path) -> None:
    agency = Agency()
    with agency.store(tmp_path, allow_pickle=False) as store:
        store.import_folder(source.path)
        files = {file.path: (file.holds_pickle, file.needs_allow_pickle) for file in store.open_state().manifest.files}
        assert files == {
            "data/experience/buffer.pkl": (True, True),
            "data/experience/timestamps.pkl": (True, True),
            "interaction/agent/episode_stats.txt": (False, False),
            "interaction/environment/world.pkl": (True, False),
            "models/policy.pt": (True, False),
            "time.pkl": (True, True),
            "trainers/learner/adam.optim.pt": (True, False),
            "trainers/learner/previous_training_time": (False, False),
        }
        with pytest.raises(PickleNotAllowedError):
            store.load_state()
        store.load_state(components=["models", "trainers", "interaction"])
    assert agency.agent.steps == 41


def test_what_is_no_folder_of_a_state_is_not_imported(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "models").symlink_to(tmp_path)
    with StateStore(tmp_path / "states") as store:
        with pytest.raises(StateNotFoundError, match="no folder"):
            store.import_folder(tmp_path / "nonsense")
        with pytest.raises(StateNotFoundError, match="empty"):
            store.import_folder(tmp_path / "empty")
        with pytest.raises(UnsupportedTypeError, match="link"):
            store.import_folder(tmp_path / "linked")
        assert not store.exists()


def test_a_folder_that_lies_in_the_store_is_never_written_into(source: Source) -> None:
    with StateStore(source.path.parent) as store:
        with pytest.raises(StateExistsError, match="choose another name"):
            store.import_folder(source.path, name=NAME)
        path = store.import_folder(source.path)
        assert path.name != NAME
        store.remove([path.name])
    assert (source.path / "time.pkl").exists()
    assert sorted(entry.name for entry in source.path.iterdir()) == [
        "data",
        "interaction",
        "models",
        "time.pkl",
        "trainers",
    ]


@pytest.mark.parametrize("imported", [False, True])
def test_a_launched_agent_goes_on_from_a_folder(imported: bool, source: Source, tmp_path: Path) -> None:
    agency = Agency()
    start: object = source.path
    if imported:
        with StateStore(tmp_path / "states") as store:
            start = store.import_folder(source.path).name
    seen: list[float] = []
    agency.agent.setup = lambda: seen.append(time.time())  # type: ignore[method-assign]
    launch(
        agency.interaction,
        {"policy": agency.policy},
        {"experience": agency.buffer},
        {"learner": agency.learner},
        {
            "states_dir": tmp_path / "states",
            "saved_state_path": start,
            "allow_pickle": True,
            "max_uptime": 0.2,
            "web_api_address": None,
        },
    )
    assert agency.agent.steps > 41
    assert seen[0] == pytest.approx(NOW, abs=60)
    with StateStore(tmp_path / "states") as store:
        saved = store.open_state().manifest
    # The agent's own state is now statevault's: no pickles but the environment's.
    assert [file.path for file in saved.files if file.holds_pickle] == ["interaction/environment/world.pkl"]


@pytest.mark.parametrize(
    "content", [[1], {"time": 1.0}, {"scaled_anchor_time": "noon"}], ids=["list", "ours", "not a number"]
)
def test_a_pickle_that_is_no_clock_is_refused(content: object, tmp_path: Path) -> None:
    (tmp_path / "time.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(FormatError):
        TimeController().load_state(tmp_path / "time")


def test_the_command_imports(source: Source, tmp_path: Path) -> None:
    url = str(tmp_path / "states")
    run = statevault("import", str(source.path), url, "--name", "imported.state")
    assert run.code == 0, run.err
    assert "8 files" in run.out
    assert "allow_pickle=True" in run.out
    again = statevault("import", str(source.path), url, "--json")
    assert again.json.keys() == {"state", "files", "size", "pickles"}
    assert again.json["files"] == 8
    assert "time.pkl" in again.json["pickles"]
    assert [state["metadata"] for state in statevault("ls", url, "--json").json] == [{"imported_from": NAME}] * 2
    taken = statevault("import", str(source.path), url, "--name", "imported.state")
    assert taken.code == 1
    assert "imported.state" in taken.err
    assert statevault("import", str(tmp_path / "nonsense"), url).code == 3


def test_an_imported_state_is_exported_as_it_was(source: Source, tmp_path: Path) -> None:
    url, out = str(tmp_path / "states"), tmp_path / "out"
    statevault("import", str(source.path), url)
    assert statevault("export", url, "latest", str(out)).code == 0
    files = [file.relative_to(source.path) for file in source.path.rglob("*") if file.is_file()]
    assert files
    for file in files:
        assert (out / file).read_bytes() == (source.path / file).read_bytes(), os.fspath(file)


def test_the_log_of_a_load_in_part_names_what_was_left(
    source: Source, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with StateStore(tmp_path) as store, caplog.at_level(logging.WARNING):
        store.register("models", TrainingModelsDict({"policy": TorchTrainingModel(module())}))
        store.load_state(source.path, strict=False)
    assert "data, interaction, time, trainers" in caplog.text


def test_a_stray_file_without_a_name_is_told(source: Source, tmp_path: Path) -> None:
    (source.path / ".DS_Store").write_bytes(b"")
    with StateStore(tmp_path) as store, pytest.raises(InvalidNameError, match=r"\.DS_Store can't be a component"):
        store.import_folder(source.path)
