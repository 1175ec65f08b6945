"""Experiments, and policies as files, on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from statevault.experiments import CheckpointManager
from statevault.persistence import PolicyPersistence, World
from tests.cli.run import in_a_terminal, invoked, option_arguments, statevault
from tests.experiments.objects import Counting
from tests.servers import Servers, StorageTarget, target_names


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
    assert any(line.startswith("algorithm_1/trial_2 adam 0/20 0 ") for line in lines)
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
