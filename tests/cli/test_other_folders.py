"""Experiments, and policies as files, on the command line."""

from __future__ import annotations

import json
import pickle
import threading
from pathlib import Path

import pytest
import torch
from typing_extensions import override

from statevault.experiments import CheckpointManager
from statevault.experiments.overview import look_at_experiment
from statevault.persistence import PolicyPersistence, World
from statevault.state_persistence import StateStore
from tests.cli.run import in_a_terminal, invoked, option_arguments, statevault
from tests.experiments.objects import Counting
from tests.servers import Servers, StorageTarget, target_names
from tests.state_persistence.storages import DictStorage


def run_some_of_it(url: str, **options: object) -> None:
    """Two algorithms by three trials: two trials complete, one begun."""
    with CheckpointManager(url, 2, storage_options=options, benchmark_metadata={"machine": "m-1"}) as manager:
        manager.initialize([Counting("gradient descent"), Counting("adam", 20)], "problem", 3, rng_seed=3)
        for trial in range(2):
            manager.mark_trial_complete(
                alg_idx=0, trial=trial, iteration=9, algorithm=Counting("gradient descent"), network=None
            )
        manager.save_checkpoint(
            alg_idx=1, trial=0, iteration=3, algorithm=Counting("adam"), network=None, rng_state=None
        )
        manager.put_result("table.txt", b"a table")


@pytest.fixture
def run(tmp_path: Path) -> str:
    url = str(tmp_path / "run")
    run_some_of_it(url)
    return url


@pytest.fixture
def policies(tmp_path: Path) -> str:
    policy = torch.nn.Linear(2, 2)
    world = World(policy, tmp_path / "policies")
    persistence = PolicyPersistence(mode=PolicyPersistence.Mode.POLICY_STATE_DICT)
    persistence.persist(policy, world)
    save_checkpoint = persistence.get_save_checkpoint_fn(world)
    assert save_checkpoint is not None
    for epoch in (1, 2):
        save_checkpoint(epoch, 100 * epoch, 10 * epoch)
    return str(tmp_path / "policies")


def test_ls_tells_how_far_each_algorithm_is(run: str) -> None:
    listed = invoked("ls", run)
    assert listed.code == 0
    rows = [line.split() for line in listed.out.splitlines()]
    assert rows[1][:6] == ["0", "gradient", "descent", "10", "2/3", "0"]
    assert rows[2][:5] == ["1", "adam", "20", "0/3", "1"]
    assert "An experiment: 2 of 6 trials complete" in listed.out


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_tables_fit_into_a_terminal(run: str, policies: str, columns: int) -> None:
    for folder in (run, policies):
        for command in ("ls", "show"):
            shown = in_a_terminal(command, folder, columns=columns)
            assert shown.code == 0
            assert all(len(line) <= columns for line in shown.out.splitlines() if "file:" not in line), shown.out


def test_show_tells_of_each_trial(run: str) -> None:
    shown = invoked("show", run)
    assert "machine" in shown.out
    lines = [" ".join(line.split()) for line in shown.out.splitlines()]
    assert any(line.startswith("algorithm_0/trial_0 gradient descent 10/10 1 ") for line in lines)
    assert any(line.startswith("algorithm_1/trial_0 adam 4/20 1 ") for line in lines)
    assert lines[-1] == "3 trials not begun."
    not_begun = invoked("show", run, "algorithm_1/trial_2").out
    assert "adam" in not_begun
    assert "0/20" in not_begun
    assert "not begun." not in not_begun
    assert invoked("show", run, "--json").json["not_begun"] == 3
    one = invoked("show", run, "algorithm_1/trial_0", "--json").json
    assert [(trial["name"], trial["iteration"], trial["is_complete"]) for trial in one["trials"]] == [
        ("algorithm_1/trial_0", 3, False)
    ]
    missing = invoked("show", run, "algorithm_9/trial_0")
    assert missing.code == 3
    assert "its trials are named as algorithm_0/trial_0" in missing.err


@pytest.mark.parametrize(
    "key", ["algorithm_0/trial_1/checkpoint_0000009.pkl.zst", "algorithm_0/trial_1/complete.json", "metadata.json"]
)
def test_verify_finds_any_flipped_byte(run: str, key: str) -> None:
    assert invoked("verify", run).code == 0
    path = Path(run) / key
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    found = invoked("verify", run)
    assert found.code == 4
    assert "1 damaged" in found.out
    assert key in found.out
    assert [file["key"] for file in invoked("verify", run, "--json").json if file["error"]] == [key]


def test_verify_of_one_trial_looks_at_no_other(run: str) -> None:
    path = Path(run) / "algorithm_0/trial_1/checkpoint_0000009.pkl.zst"
    path.write_bytes(b"rubbish" + path.read_bytes()[7:])
    assert invoked("verify", run, "algorithm_0/trial_0").code == 0
    assert invoked("verify", run, "algorithm_0/trial_1").code == 4


@pytest.mark.parametrize(
    "key", ["algorithm_0/trial_1/checkpoint_0000009.pkl.zst", "benchmark_problem.pkl.zst", "initial_algorithms.pkl.zst"]
)
def test_verify_finds_what_is_missing(run: str, key: str) -> None:
    (Path(run) / key).unlink()
    found = invoked("verify", run)
    assert found.code == 4
    assert "1 damaged." in found.out
    assert f"{key} in file://{run} is missing" in " ".join(found.out.split())
    assert [file["key"] for file in invoked("verify", run, "--json").json if file["error"]] == [key]
    assert invoked("verify", run, "algorithm_0/trial_0").code == (0 if key.startswith("algorithm") else 4)


def test_what_an_older_run_began_with_is_not_missing(run: str) -> None:
    (Path(run) / "benchmark_problem.pkl.zst").unlink()
    (Path(run) / "benchmark_problem.pkl").write_bytes(pickle.dumps("problem"))
    record = json.loads((Path(run) / "algorithm_0/trial_0/complete.json").read_text())
    record["checkpoint_path"] = f"/elsewhere/{record['checkpoint_path']}"
    del record["digest"]
    (Path(run) / "algorithm_0/trial_0/complete.json").write_text(json.dumps(record))
    assert invoked("verify", run).code == 0


def test_a_checkpoint_that_was_cut_short_is_found_and_not_copied(run: str, tmp_path: Path) -> None:
    key = "algorithm_0/trial_1/checkpoint_0000009.pkl.zst"
    path = Path(run) / key
    path.write_bytes(path.read_bytes()[:-1])
    found = invoked("verify", run)
    assert found.code == 4
    assert "it has lost a part of its seal" in " ".join(found.out.split())
    assert invoked("cp", run, str(tmp_path / "copy")).code == 4
    assert not (tmp_path / "copy" / key).exists()


@pytest.mark.parametrize("place", ["plots/latest", "li\nk", "results/a\nb.png", "algorithm_0/trial_0/x\x07y"])
def test_files_of_others_are_left_alone(run: str, tmp_path: Path, place: str) -> None:
    path = Path(run) / place
    path.parent.mkdir(exist_ok=True)
    if place == "plots/latest":
        path.symlink_to("somewhere")
    else:
        path.write_bytes(b"of somebody else")
    for command in (["ls"], ["show"], ["verify"]):
        assert invoked(*command, run).code == 0, command
    assert invoked("cp", run, str(tmp_path / "copy")).out.startswith("12 files copied")


@pytest.mark.parametrize(
    "metadata",
    [
        {"n_trials": 2**63},
        {"algorithms": [{"name": "a", "iterations": 1, "index": 0}, {"name": "b", "iterations": 1, "index": 0}]},
        {"algorithms": [{"name": "a", "iterations": int("9" * 4300), "index": 0}]},
    ],
)
def test_metadata_with_impossible_numbers_is_malformed(run: str, metadata: dict[str, object]) -> None:
    (Path(run) / "metadata.json").write_text(json.dumps({"n_trials": 1, "algorithms": [], **metadata}))
    for command in ("ls", "show", "verify"):
        shown = invoked(command, run)
        assert shown.code == (4 if command == "verify" else 7)
        assert "metadata.json" in shown.out + shown.err


def test_verify_finds_a_completion_that_is_none(run: str) -> None:
    (Path(run) / "algorithm_0/trial_0/complete.json").write_text('{"iteration": 9}')
    found = invoked("verify", run)
    assert found.code == 4
    assert "alg_name" in found.out


@pytest.mark.parametrize("iteration", ["9" * 4300, "NaN", '"\\ud800"'])
def test_a_malformed_record_of_one_trial_hides_no_other(run: str, iteration: str) -> None:
    key = "algorithm_1/trial_0/progress.json"
    (Path(run) / key).write_text(f'{{"last_completed_iteration": {iteration}, "digest": "00"}}')
    assert invoked("show", run).code == 0
    assert "2 of 6 trials complete" in invoked("ls", run).out
    assert [file["key"] for file in invoked("verify", run, "--json").json if file["error"]] == [key]


def test_trials_that_have_not_begun_take_no_room(run: str) -> None:
    metadata = json.loads((Path(run) / "metadata.json").read_text())
    (Path(run) / "metadata.json").write_text(
        json.dumps({"n_trials": 10**12, "algorithms": metadata["algorithms"], "id": metadata["id"]})
    )
    assert "2 of 2000000000000 trials complete" in invoked("ls", run).out
    assert "1999999999997 trials not begun." in invoked("show", run).out


def test_trials_are_looked_at_together() -> None:
    both = threading.Barrier(2, timeout=600)

    class Slow(DictStorage):
        @override
        def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
            if key.endswith("/progress.json"):
                both.wait()
            return super().get(key, start, end)

    storage = Slow()
    with CheckpointManager(storage) as manager:
        manager.initialize([Counting("a")], None, 2)
        for trial in range(2):
            manager.save_checkpoint(
                alg_idx=0, trial=trial, iteration=trial, algorithm=Counting("a"), network=None, rng_state=None
            )
    assert [trial.iteration for trial in look_at_experiment(storage).trials] == [0, 1]


def test_verify_says_what_has_no_digest(run: str) -> None:
    (Path(run) / "algorithm_1/trial_1").mkdir(parents=True)
    (Path(run) / "algorithm_1/trial_1/checkpoint_0000001.pkl").write_bytes(b"\x80\x04N.")
    assert "1 of an older run without a digest" in invoked("verify", run).out


def test_a_copy_is_the_same_and_is_gone_on_with(run: str, tmp_path: Path) -> None:
    copy = str(tmp_path / "copy")
    first = invoked("cp", run, copy)
    assert first.code == 0
    assert first.out.strip().startswith("12 files copied, 0 there already")
    assert invoked("ls", copy).out == invoked("ls", run).out
    (Path(copy) / "metadata.json").unlink()
    (Path(copy) / "algorithm_0/trial_0/checkpoint_0000009.pkl.zst").write_bytes(b"cut")
    again = invoked("cp", run, copy)
    assert again.out.strip().startswith("2 files copied, 10 there already")
    result = CheckpointManager(copy).load_trial_result(0, 0)
    assert result.iteration == 9
    assert (Path(copy) / "results/table.txt").read_bytes() == b"a table"
    assert not list(Path(copy).rglob("claims"))


def test_a_damaged_file_is_not_copied(run: str, tmp_path: Path) -> None:
    path = Path(run) / "algorithm_0/trial_1/checkpoint_0000009.pkl.zst"
    content = bytearray(path.read_bytes())
    content[30] ^= 1
    path.write_bytes(content)
    copied = invoked("cp", run, str(tmp_path / "copy"))
    assert copied.code == 4
    assert "1 damaged" in copied.out
    assert not (tmp_path / "copy/algorithm_0/trial_1/checkpoint_0000009.pkl.zst").exists()
    assert (tmp_path / "copy/metadata.json").exists()


def without_id(run: Path, **changes: object) -> bytes:
    """Make the metadata as an older run wrote it, with changes; returns it."""
    metadata = json.loads((run / "metadata.json").read_text())
    for field in ("id", "digest"):
        metadata.pop(field, None)
    (run / "metadata.json").write_text(json.dumps({**metadata, **changes}))
    return (run / "metadata.json").read_bytes()


def test_nothing_is_copied_over_another_experiment(run: str, tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert invoked("cp", run, str(other)).code == 0
    kept = without_id(other, rng_seed=4)
    without_id(Path(run))
    (other / "algorithm_0/trial_0/checkpoint_0000009.pkl.zst").unlink()
    refused = invoked("cp", run, str(other))
    assert refused.code == 1
    assert f"{other} holds another experiment than file://{run}: copy to another folder" in " ".join(
        refused.err.split()
    )
    assert (other / "metadata.json").read_bytes() == kept
    assert not (other / "algorithm_0/trial_0/checkpoint_0000009.pkl.zst").exists()
    without_id(other, rng_seed=3)
    assert invoked("cp", run, str(other)).code == 0
    (other / "metadata.json").write_text('{"of": "another program"}')
    assert invoked("cp", run, str(other)).code == 1


def test_nothing_is_copied_into_itself(run: str) -> None:
    for target in (run, f"{run}/copy", f"{run}/results/../copy"):
        assert invoked("cp", run, target).code == 2
    assert not (Path(run) / "copy").exists()
    assert invoked("cp", run, f"{run}-copy").code == 0


def test_one_trial_is_copied(run: str, tmp_path: Path) -> None:
    assert invoked("cp", run, str(tmp_path / "copy"), "algorithm_0/trial_1").code == 0
    manager = CheckpointManager(tmp_path / "copy")
    assert manager.get_completed_trials(0) == [1]
    assert manager.load_checkpoint(1, 0) is None


def test_a_store_of_states_takes_no_experiment(run: str, tmp_path: Path) -> None:
    from statevault import StateStore
    from tests.state_persistence.components import Folder

    with StateStore(tmp_path / "states") as store:
        store.register("folder", Folder())
        store.save_state()
    refused = invoked("cp", run, str(tmp_path / "states"))
    assert refused.code == 7
    assert "to another folder" in refused.err


def test_what_is_damaged_is_named_before_what_is_wrong(run: str, tmp_path: Path) -> None:
    key = "algorithm_0/trial_1/checkpoint_0000009.pkl.zst"
    (Path(run) / key).write_bytes(b"!")
    done = invoked("cp", run, str(tmp_path / "copy"))
    assert done.code == 4
    assert f"DAMAGED  {key}  " in done.out


def test_an_experiment_and_policies_take_no_states(run: str, policies: str, tmp_path: Path) -> None:
    states, folder = str(tmp_path / "states"), tmp_path / "folder"
    folder.mkdir()
    (folder / "a.txt").write_text("a")
    with StateStore(states) as store:
        store.save_state()
    for target, what in ((run, "an experiment"), (policies, "policies")):
        before = sorted(Path(target).rglob("*"))
        for arguments in (["cp", states, target], ["import", str(folder), target]):
            refused = invoked(*arguments)
            assert (refused.code, refused.out) == (7, "")
            assert f"holds {what}, and is no place for states" in refused.err
        assert sorted(Path(target).rglob("*")) == before
        assert invoked("ls", target).code == 0


def test_policies_are_listed_shown_verified_and_copied(policies: str, tmp_path: Path) -> None:
    listed = invoked("ls", policies, "--json").json
    assert [(policy["name"], policy["epoch"]) for policy in listed] == [
        ("policy_state_dict.pt", None),
        ("policy_state_dict_epoch_1.pt", 1),
        ("policy_state_dict_epoch_2.pt", 2),
    ]
    assert "policy_state_dict_epoch_2" in invoked("ls", policies).out
    assert "env_step" in invoked("show", policies, "policy_state_dict_epoch_2").out
    assert invoked("show", policies, "nope").code == 3
    assert invoked("verify", policies).code == 0
    assert invoked("cp", policies, str(tmp_path / "copy")).code == 0
    assert invoked("ls", str(tmp_path / "copy"), "--json").json[1]["epoch"] == 1
    path = Path(policies) / "policy_state_dict_epoch_1.pt"
    content = bytearray(path.read_bytes())
    content[50] ^= 1
    path.write_bytes(content)
    found = invoked("verify", policies)
    assert found.code == 4
    assert "3 policies checked, 1 damaged" in found.out
    assert invoked("cp", policies, str(tmp_path / "other")).code == 4


@pytest.mark.skipif("juicefs" not in target_names(), reason="needs a server")
@pytest.mark.parametrize("server", ["juicefs", "fake-gcs"])
def test_an_experiment_on_a_server(server: str, servers: Servers, tmp_path: Path) -> None:
    target: StorageTarget = servers.target(server)
    run_some_of_it(target.url, **target.storage_options)
    options = option_arguments(target.storage_options)
    assert "2 of 6 trials complete" in statevault("ls", target.url, *options).out
    assert statevault("verify", target.url, *options).code == 0
    for_source = ["--source-option" if argument == "-o" else argument for argument in options]
    assert statevault("cp", target.url, str(tmp_path / "copy"), *for_source).code == 0
    assert invoked("verify", str(tmp_path / "copy")).code == 0


def test_a_folder_of_something_else_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "metadata.json").write_text('{"name": "of another program"}')
    (tmp_path / "policy.txt").write_text("not a policy")
    listed = invoked("ls", str(tmp_path))
    assert listed.code == 3
    assert "there is no store" in listed.err
