"""Real launches: a small agent, a real store."""

from __future__ import annotations

import logging
import signal
import threading
import time as system_time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from typing_extensions import override

from statevault import time
from statevault.data.impls import SequentialBuffer
from statevault.errors import (
    PauseTimeoutError,
    PickleNotAllowedError,
    StateNotFoundError,
    StateVaultError,
    StorageError,
)
from statevault.launcher import LaunchConfig, launch
from statevault.state_persistence import (
    LatestStatesKeeper,
    StateInfo,
    StateStore,
    load_pickle,
    save_pickle,
    write_tree,
)
from statevault.storage import Body, LocalStorage
from tests.launcher.agent import Guesser, Learner, Parts
from tests.servers import free_port


def states(root: Path) -> list[StateInfo]:
    with StateStore(root) as store:
        return store.states()


def go(parts: Parts, root: Path, **config: object) -> None:
    config.setdefault("max_uptime", 20.0)
    config.setdefault("web_api_address", None)  # several test runs may share the machine
    launch(parts.interaction, parts.models, parts.data, parts.trainers, {"states_dir": root, **config})


def once(reached: Callable[[], bool]) -> Callable[[], bool]:
    """A save condition that holds a single time, as soon as something is reached."""
    fired: list[bool] = []

    def condition() -> bool:
        if fired or not reached():
            return False
        fired.append(True)
        return True

    return condition


def test_an_agent_learns_and_its_final_state_is_saved(tmp_path: Path) -> None:
    parts = Parts()
    go(parts, tmp_path, max_uptime=0.5)
    assert parts.agent.steps > 2
    assert parts.learner.runs > 0
    (state,) = states(tmp_path)
    assert state.metadata == {"exit": "clean"}
    with StateStore(tmp_path) as store:
        assert list(store.open_state().manifest.components) == [
            "interaction",
            "models",
            "data",
            "trainers",
            "time",
            "rng",
        ]


def test_a_launched_agent_goes_on_where_it_stood(tmp_path: Path) -> None:
    first = Parts()
    go(first, tmp_path, max_uptime=0.3)
    second = Parts()
    go(second, tmp_path, saved_state_path="latest", max_uptime=0.3)
    assert second.agent.steps > first.agent.steps
    assert len(second.data["experience"]) > 0
    third = Parts()
    go(third, tmp_path, saved_state_path=states(tmp_path)[0].path, max_uptime=0.05)
    assert third.agent.steps >= first.agent.steps
    assert len(states(tmp_path)) == 3


def test_the_agents_clock_goes_on_where_it_stood(tmp_path: Path) -> None:
    go(Parts(), tmp_path, max_uptime=0.05, time_scale=1_000_000.0)
    far = time.time()
    time.load_state_dict({**time.state_dict(), "time": 0.0})
    parts = Parts()
    seen: list[float] = []
    step = parts.agent.step
    parts.agent.step = lambda observation: (seen.append(time.time()), step(observation))[1]  # type: ignore[method-assign,func-returns-value]
    go(parts, tmp_path, max_uptime=0.1, saved_state_path="latest")
    assert seen[0] == pytest.approx(far, abs=10_000)
    assert time.get_time_scale() == 1.0
    assert not time.is_paused()
    assert time.sleep(0.0)


def test_latest_of_an_empty_store_starts_afresh_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        go(Parts(), tmp_path, saved_state_path="latest", max_uptime=0.05)
    assert "starts afresh" in caplog.text


def test_a_state_of_other_parts_is_refused_or_loaded_as_far_as_it_fits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = Parts()
    go(first, tmp_path, max_uptime=0.3)
    second = Parts()
    second.trainers["another"] = Learner()
    second.data["unknown"] = second.data.pop("experience")
    second.data["experience"] = SequentialBuffer(["observation", "action"], 100)
    second.models["copy"] = Guesser()
    with pytest.raises(FileNotFoundError, match="copy.*strict=False"):
        go(second, tmp_path, saved_state_path="latest", max_uptime=0.05)
    go(second, tmp_path, saved_state_path="latest", strict=False, max_uptime=0.1)
    assert second.agent.steps > first.agent.steps
    assert second.guesser.value >= first.guesser.value
    for missing in ("trainers/another", "data/unknown", "models/copy"):
        assert missing in caplog.text


def test_a_named_state_that_is_not_there_is_an_error_and_nothing_is_saved(tmp_path: Path) -> None:
    with pytest.raises(StateNotFoundError):
        go(Parts(), tmp_path, saved_state_path="2020-01-01.state")
    assert states(tmp_path) == []


def test_both_spellings_of_the_data_work_and_both_at_once_do_not(tmp_path: Path) -> None:
    config = LaunchConfig(states_dir=tmp_path, max_uptime=0.05, web_api_address=None)
    parts = Parts()
    launch(
        interaction=parts.interaction,
        models=parts.models,
        buffers=parts.data,
        trainers=parts.trainers,
        config=config,
    )
    parts = Parts()
    launch(
        interaction=parts.interaction,
        models=parts.models,
        data=parts.data,
        trainers=parts.trainers,
        config=config,
    )
    assert len(states(tmp_path)) == 2
    with pytest.raises(TypeError, match="not both"):
        launch(Parts().interaction, {}, {}, {}, config, buffers={})


def test_saves_while_running_are_kept_as_the_keeper_says(tmp_path: Path) -> None:
    parts = Parts()
    go(parts, tmp_path, max_uptime=2.0, save_state_interval=0.05, max_keep_states=2)
    kept = states(tmp_path)
    assert len(kept) == 2
    assert kept[-1].metadata == {"exit": "clean"}
    assert kept[-1].sequence >= 3  # at least one is gone
    with StateStore(tmp_path) as store:
        for state in kept:
            store.verify(state.name)


def test_a_keeper_sees_the_states_of_earlier_runs_and_the_final_one(tmp_path: Path) -> None:
    for _ in range(3):
        go(Parts(), tmp_path, max_uptime=0.05, states_keeper=LatestStatesKeeper(tmp_path, max_keep=2))
    assert [state.sequence for state in states(tmp_path)][-1] == 3
    assert len(states(tmp_path)) == 2


def test_after_a_crash_of_the_agent_its_state_is_saved_and_marked(tmp_path: Path) -> None:
    parts = Parts(agent_fails_at=5)
    with pytest.raises(ZeroDivisionError, match="the player fell over") as caught:
        go(parts, tmp_path)
    assert "agent.py" in "".join(traceback.format_tb(caught.value.__traceback__))
    (state,) = states(tmp_path)
    assert state.metadata == {"exit": "error: ZeroDivisionError: the player fell over"}


def test_after_a_crash_of_a_trainer_the_state_is_saved_and_marked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the learner gave up"):
        go(Parts(trainer_fails_at=3), tmp_path)
    (state,) = states(tmp_path)
    assert state.metadata == {"exit": "error: ValueError: the learner gave up"}


def test_a_save_that_fails_does_not_end_the_agent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    parts = Parts()
    parts.agent.broken_pen = True
    seen: list[int] = []

    def condition() -> bool:
        # Twice: the first save fails, the second one is made when the pen is whole again.
        if "the snapshot failed" in caplog.text and parts.agent.broken_pen:
            parts.agent.broken_pen = False
            seen.append(parts.agent.steps)
            return True
        return not seen

    go(parts, tmp_path, save_state_condition=condition, max_uptime=1.0)
    assert seen
    assert parts.agent.steps > seen[0]
    assert [state.metadata for state in states(tmp_path)] == [{}, {"exit": "clean"}]


def test_a_final_save_that_fails_is_raised(tmp_path: Path) -> None:
    parts = Parts()
    parts.agent.broken_pen = True
    with pytest.raises(OSError, match="the pen is broken"):
        go(parts, tmp_path, max_uptime=0.05)
    assert states(tmp_path) == []


def test_a_final_save_that_fails_after_a_crash_does_not_hide_the_crash(tmp_path: Path) -> None:
    parts = Parts(agent_fails_at=3)
    parts.agent.broken_pen = True
    with pytest.raises(ZeroDivisionError) as caught:
        go(parts, tmp_path)
    (note,) = caught.value.__notes__
    assert "the final state was not saved: OSError('the pen is broken')" in note
    assert "while saving the component 'interaction'" in note


def test_a_launch_leaves_no_thread_behind(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    parts = Parts()
    go(parts, tmp_path, max_uptime=0.3, save_state_condition=once(lambda: parts.agent.steps > 3))
    assert set(threading.enumerate()) <= before
    assert len(states(tmp_path)) == 2


def test_a_launch_outside_the_main_thread_works(tmp_path: Path) -> None:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            go(Parts(), tmp_path, max_uptime=0.1)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(300)
    assert not errors
    assert len(states(tmp_path)) == 1


def test_an_agent_without_models_data_and_trainers_runs(tmp_path: Path) -> None:
    class Mute(Parts):
        def __init__(self) -> None:
            super().__init__()
            self.agent.on_inference_models_attached = lambda: None  # type: ignore[method-assign]
            self.agent.on_data_collectors_attached = lambda: None  # type: ignore[method-assign]
            self.agent.step = float  # type: ignore[method-assign,assignment]

    launch(Mute().interaction, config={"states_dir": tmp_path, "max_uptime": 0.05, "web_api_address": None})
    assert len(states(tmp_path)) == 1


def test_an_unknown_field_of_the_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="max_keep_state\n"):
        go(Parts(), tmp_path, max_keep_state=3)


def test_a_thread_that_does_not_end_is_named_and_no_state_is_saved(tmp_path: Path) -> None:
    parts = Parts()
    gate = threading.Event()
    parts.agent.step = lambda _: float(gate.wait(300))  # type: ignore[method-assign,assignment]
    with pytest.raises(PauseTimeoutError, match=r"\['inference'\] did not end"):
        go(
            parts,
            tmp_path,
            max_uptime=0.05,
            timeout_for_all_threads_pause=0.05,
            max_attempts_to_pause_all_threads=1,
        )
    assert states(tmp_path) == []
    gate.set()


def test_a_launch_with_pickles_needs_leave_to_write_and_to_read_them(tmp_path: Path) -> None:
    def parts() -> Parts:
        made = Parts()
        made.guesser.save_state = lambda path: save_pickle({1, 2}, path)  # type: ignore[method-assign]
        made.guesser.load_state = load_pickle  # type: ignore[method-assign]
        return made

    with pytest.raises(PickleNotAllowedError):
        go(parts(), tmp_path, max_uptime=0.05)
    go(parts(), tmp_path, max_uptime=0.05, allow_pickle=True)
    with pytest.raises(PickleNotAllowedError):
        go(parts(), tmp_path, max_uptime=0.05, saved_state_path="latest")
    go(parts(), tmp_path, max_uptime=0.05, saved_state_path="latest", allow_pickle=True)
    assert len(states(tmp_path)) == 2


def test_states_are_saved_to_any_storage() -> None:
    root = "memory://test-launch-to-any-storage"
    first, second = Parts(), Parts()
    for parts in (first, second):
        launch(
            parts.interaction,
            parts.models,
            parts.data,
            parts.trainers,
            {
                "states_dir": root,
                "saved_state_path": "latest",
                "max_uptime": 0.1,
                "max_keep_states": 1,
                "web_api_address": None,
            },
        )
    with StateStore(root) as store:
        # The keeper would keep one; the one that the second run has begun with stays as well.
        assert [state.sequence for state in store.states()] == [1, 2]
    assert second.agent.steps > first.agent.steps


def test_a_state_holds_the_metadata_of_its_instant(tmp_path: Path) -> None:
    parts = Parts()
    go(
        parts,
        tmp_path,
        max_uptime=0.4,
        save_state_condition=once(lambda: parts.agent.steps > 10),
        state_metadata=lambda: {"step": parts.agent.steps},
    )
    periodic, final = states(tmp_path)
    assert isinstance(periodic.metadata["step"], int)
    assert periodic.metadata["step"] > 10
    assert final.metadata == {"step": parts.agent.steps, "exit": "clean"}
    again = Parts()
    go(again, tmp_path, saved_state_path=periodic.path, max_uptime=0.0001)
    assert again.agent.steps >= periodic.metadata["step"]


def test_metadata_that_cannot_be_had_costs_no_final_state(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    go(Parts(), tmp_path, max_uptime=0.2, state_metadata=lambda: {"x": 1 / 0})
    assert [state.metadata for state in states(tmp_path)] == [{"exit": "clean"}]
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("metadata", [{"reward": float("nan")}, {"x": object()}, None, {"x": "\udce9"}])
def test_metadata_that_is_no_json_costs_no_state(tmp_path: Path, metadata: object) -> None:
    parts = Parts()
    go(parts, tmp_path, max_uptime=0.4, save_state_condition=once(lambda: parts.agent.steps > 5),
       state_metadata=lambda: metadata)  # fmt: skip
    assert [state.metadata for state in states(tmp_path)] == [{}, {"exit": "clean"}]


def test_an_error_that_no_file_could_hold_costs_no_final_state(tmp_path: Path) -> None:
    parts = Parts()

    def fall_over(observation: float) -> float:
        raise ValueError("caf\udce9")

    parts.agent.step = fall_over  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="caf"):
        go(parts, tmp_path)
    (state,) = states(tmp_path)
    assert str(state.metadata["exit"]).startswith("error: ValueError: caf")


def test_retention_that_failed_is_tried_again_while_nothing_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put = LocalStorage.put
    failed: list[str] = []

    def put_at_second_try(self: LocalStorage, key: str, body: Body, **options: Any) -> int:
        if "tombstones" in key and not failed:
            failed.append(key)
            raise StorageError("the disk is read-only for a moment", key=key)
        return put(self, key, body, **options)

    monkeypatch.setattr(LocalStorage, "put", put_at_second_try)
    asked, cleaned = list[int](), list[bool]()

    def condition() -> bool:
        if len(asked) < 2:
            asked.append(1)
            return True
        if failed and not cleaned and len(states(tmp_path)) == 1:
            cleaned.append(True)
            signal.raise_signal(signal.SIGTERM)
        return False

    config: dict[str, Any] = {"max_keep_states": 1, "states_cleanup_interval": 0.05}
    go(Parts(), tmp_path, max_uptime=60.0, save_state_condition=condition, **config)
    assert cleaned
    assert caplog.text.count("retention failed; the agent goes on") == 1
    assert [state.metadata for state in states(tmp_path)] == [{"exit": "clean"}]


def test_a_second_ctrl_c_in_the_final_save_tells_of_the_crash_before(tmp_path: Path) -> None:
    def press_twice() -> dict[str, int]:
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)
            system_time.sleep(0.2)  # else both would be one
        return {}

    with pytest.raises(KeyboardInterrupt, match="a second SIGINT") as caught:
        go(Parts(agent_fails_at=3), tmp_path, state_metadata=press_twice)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert states(tmp_path) == []


@pytest.mark.parametrize("shrink", [False, True])
def test_numbers_are_shrunk_on_request(tmp_path: Path, *, shrink: bool) -> None:
    class Heavy(Guesser):
        weights = np.random.default_rng(0).normal(size=500_000).astype(np.float32)

        @override
        def save_state(self, path: Path) -> None:
            super().save_state(path)
            write_tree(self.weights, path.with_name("weights.tree"))

    parts = Parts()
    parts.models = {"guesser": parts.guesser, "heavy": Heavy()}
    go(parts, tmp_path, max_uptime=0.2, shrink=shrink)
    (state,) = states(tmp_path)
    assert (state.stored_size < 0.9 * Heavy.weights.nbytes) is shrink


@pytest.mark.parametrize("from_then_on", [False, True], ids=["one", "all after it"])
@pytest.mark.parametrize("web", [False, True])
def test_whichever_thread_is_refused_the_agent_runs_or_says_why(tmp_path: Path, from_then_on: bool, web: bool) -> None:
    started = threading.Thread.start
    refused_workers = 0
    for refused in range(1, 9):
        count = 0

        def start(thread: threading.Thread, number: int = refused) -> None:
            nonlocal count
            count += 1
            if count == number or (from_then_on and count > number):
                raise RuntimeError("can't start new thread")
            started(thread)

        parts = Parts()
        address = ("127.0.0.1", free_port()) if web else None
        config = {"states_dir": tmp_path / str(refused), "max_uptime": 0.3, "web_api_address": address}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            try:
                launch(parts.interaction, parts.models, parts.data, parts.trainers, config)
            except StateVaultError as error:
                refused_workers += 1
                assert "can't be started: no thread can be started; " in str(error)  # noqa: PT017
        with StateStore(tmp_path / str(refused)) as store:
            for name in store.names():
                store.verify(name)
            assert store.names() or parts.agent.steps == 0
    assert refused_workers >= 2
