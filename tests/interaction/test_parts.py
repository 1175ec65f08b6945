"""Events and states reach every part of an interaction."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from statevault.errors import InvalidNameError
from statevault.interaction import (
    Actuator,
    ActuatorsDict,
    ActuatorWrapper,
    Agent,
    Environment,
    EnvironmentWrapper,
    Interaction,
    LambdaWrapper,
    ModularEnvironment,
    Sensor,
    SensorsDict,
    SensorWrapper,
    Wrapper,
)
from statevault.interaction.event_mixin import InteractionPart

EVENTS = ["setup", "on_paused", "on_resumed", "teardown"]


class Recorder(InteractionPart):
    """Keeps a diary of what it is told, and has a number as its state."""

    def __init__(self, diary: list[tuple[str, str]], name: str, number: int = 0) -> None:
        super().__init__()
        self.diary, self.name, self.number = diary, name, number

    def setup(self) -> None:
        self.diary.append((self.name, "setup"))

    def teardown(self) -> None:
        self.diary.append((self.name, "teardown"))

    def on_paused(self) -> None:
        self.diary.append((self.name, "on_paused"))

    def on_resumed(self) -> None:
        self.diary.append((self.name, "on_resumed"))

    def save_state(self, path: Path) -> None:
        path.mkdir(exist_ok=True)
        (path / "number").write_text(str(self.number))

    def load_state(self, path: Path) -> None:
        self.number = int((path / "number").read_text())


class TSensor(Recorder, Sensor[int]):
    def read(self) -> int:
        return self.number


class TActuator(Recorder, Actuator[int]):
    def operate(self, action: int) -> None:
        self.number = action


class TWrapper(Recorder, Wrapper[int, int]):
    def wrap(self, value: int) -> int:
        return value + self.number


class TEnvironment(Recorder, Environment[int, int]):
    def observe(self) -> int:
        return self.number

    def affect(self, action: int) -> None:
        self.number = action


class TAgent(Recorder, Agent[int, int]):
    def step(self, observation: int) -> int:
        return observation + 1


class Parent(Agent[int, int]):
    """An agent whose own state lies beside that of its children, saved as the manual says."""

    count = 0

    def step(self, observation: int) -> int:
        self.count += 1
        return observation

    def save_state(self, path: Path) -> None:
        super().save_state(path)
        path.mkdir(exist_ok=True)
        (path / "count.txt").write_text(str(self.count))

    def load_state(self, path: Path) -> None:
        super().load_state(path)
        self.count = int((path / "count.txt").read_text())


class Plain(Agent[int, int]):
    """An agent without state, which does not even call ``super().__init__()``."""

    def __init__(self) -> None:
        pass

    def step(self, observation: int) -> int:
        return observation


def whole(diary: list[tuple[str, str]], number: int) -> Interaction[Any, Any]:
    """An interaction of every kind of part."""
    agent = Parent({"a": TAgent(diary, "a", number), "b": Parent({"c": TAgent(diary, "c", number)})})
    env = EnvironmentWrapper(
        ModularEnvironment.from_dict(
            {"eye": SensorWrapper(TSensor(diary, "eye", number), TWrapper(diary, "lens", number))},
            {"hand": ActuatorWrapper(TActuator(diary, "hand", number), TWrapper(diary, "glove", number))},
        ),
        LambdaWrapper(lambda obs: obs["eye"]),
        lambda act: {"hand": act},
    )
    return Interaction(agent, env)


NAMES = ["a", "c", "eye", "lens", "hand", "glove"]


@pytest.mark.parametrize("event", EVENTS)
def test_every_part_is_told_every_event_once(event: str) -> None:
    diary: list[tuple[str, str]] = []
    getattr(whole(diary, 0), event)()
    expected = [(name, event) for name in NAMES]
    assert diary == (expected[::-1] if event == "teardown" else expected)


def test_every_part_is_saved_and_loaded_under_its_own_name(tmp_path: Path) -> None:
    saved = whole([], 7)
    saved.step()
    saved.save_state(tmp_path / "interaction")
    files = sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file())
    assert files == [
        "interaction/agent/a/number",
        "interaction/agent/b/c/number",
        "interaction/agent/b/count.txt",
        "interaction/agent/count.txt",
        "interaction/environment/env/actuator/hand/actuator/number",
        "interaction/environment/env/actuator/hand/wrapper/number",
        "interaction/environment/env/sensor/eye/sensor/number",
        "interaction/environment/env/sensor/eye/wrapper/number",
    ]
    loaded = whole([], 0)
    loaded.load_state(tmp_path / "interaction")
    loaded.save_state(tmp_path / "again")
    for file in files:
        again = file.replace("interaction", "again", 1)
        assert (tmp_path / again).read_text() == (tmp_path / file).read_text()
    assert (tmp_path / "interaction/agent/count.txt").read_text() == "1"


def test_every_part_is_torn_down_though_one_fails() -> None:
    diary: list[tuple[str, str]] = []

    class Broken(TAgent):
        def teardown(self) -> None:
            super().teardown()
            raise OSError("the door is stuck")

    interaction = Interaction(Broken(diary, "agent"), TEnvironment(diary, "env"))
    with pytest.raises(OSError, match="stuck"):
        interaction.teardown()
    assert sorted(diary) == [("agent", "teardown"), ("env", "teardown")]


def test_the_first_failure_of_a_teardown_is_raised_and_names_the_others() -> None:
    diary: list[tuple[str, str]] = []

    class Broken(TEnvironment):
        def teardown(self) -> None:
            super().teardown()
            raise OSError("the motor does not answer")

    class AlsoBroken(TAgent):
        def teardown(self) -> None:
            super().teardown()
            raise KeyError("no motor")

    interaction = Interaction(Parent({"hand": AlsoBroken(diary, "hand")}), Broken(diary, "env"))
    with pytest.raises(OSError, match="the motor") as caught:
        interaction.teardown()
    assert diary == [("env", "teardown"), ("hand", "teardown")]
    assert caught.value.__notes__ == ["the teardown of 'agent' failed as well: KeyError('no motor')"]


def test_parts_without_state_need_no_folder(tmp_path: Path) -> None:
    interaction = Interaction(Plain(), TEnvironment([], "env", 3))
    interaction.save_state(tmp_path / "i")
    assert not (tmp_path / "i/agent").exists()
    interaction.load_state(tmp_path / "i")
    Plain().load_state(tmp_path / "nothing here")
    Parent({"child": Plain()}).parts()["child"].load_state(tmp_path / "nothing here")


def test_a_step_is_observe_decide_affect() -> None:
    env = TEnvironment([], "env", 41)
    Interaction(TAgent([], "agent"), env).step()
    assert env.number == 42


def test_wrappers_transform_what_passes_them() -> None:
    sensor = TWrapper([], "w", 10).wrap_sensor(TSensor([], "s", 1))
    assert sensor.read() == 11
    inner = TActuator([], "a")
    TWrapper([], "w", 10).wrap_actuator(inner).operate(5)
    assert inner.number == 15
    env = TEnvironment([], "env", 1)
    wrapped = EnvironmentWrapper(env, str, int)
    assert wrapped.observe() == "1"
    wrapped.affect("8")
    assert env.number == 8
    assert LambdaWrapper(str)(-3) == "-3"


def test_several_actuators_are_operated_together_or_not_at_all() -> None:
    left, right = TActuator([], "left"), TActuator([], "right")
    actuators = ActuatorsDict({"left": left, "right": right})
    with pytest.raises(KeyError, match="right"):
        actuators.operate({"left": 1})
    assert (left.number, right.number) == (0, 0)
    actuators.operate({"left": 1, "right": 2})
    assert (left.number, right.number) == (1, 2)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", "../../etc"])
def test_a_name_that_is_no_folder_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidNameError):
        Parent({name: Plain()})
    with pytest.raises(InvalidNameError):
        SensorsDict({name: TSensor([], "s")})
    with pytest.raises(InvalidNameError):
        ActuatorsDict({name: TActuator([], "a")})


class Shelf:
    """Collectors that can each be acquired once."""

    def __init__(self, collectors: Mapping[str, object]) -> None:
        self.left = dict(collectors)

    def acquire(self, name: str) -> object:
        return self.left.pop(name)


class Asking(Agent[int, int]):
    def step(self, observation: int) -> int:
        return observation

    def on_inference_models_attached(self) -> None:
        self.model = self.get_inference_model("policy")

    def on_data_collectors_attached(self) -> None:
        self.collector = self.get_data_collector(self.wanted)

    wanted = "experience"


def test_children_share_models_and_collectors() -> None:
    child = Asking()
    child.wanted = "other"
    parent = Asking({"child": child})
    models, collectors = {"policy": object()}, {"experience": object(), "other": object()}
    parent.attach_inference_models(models)
    parent.attach_data_collectors(Shelf(collectors))
    assert parent.model is child.model is models["policy"]
    assert parent.collector is collectors["experience"]
    assert child.collector is collectors["other"]


def test_a_collector_can_not_be_acquired_twice_in_a_family() -> None:
    with pytest.raises(KeyError, match="experience"):
        Asking({"child": Asking()}).attach_data_collectors(Shelf({"experience": object()}))


def test_asking_too_early_says_when_to_ask() -> None:
    with pytest.raises(RuntimeError, match="on_inference_models_attached"):
        Asking().get_inference_model("policy")
    with pytest.raises(RuntimeError, match="on_data_collectors_attached"):
        Asking().get_data_collector("experience")
