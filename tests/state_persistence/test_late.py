"""Saves once the main thread has ended, when Python's own pools take no more work."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from statevault.state_persistence import StateStore
from tests.servers import Servers

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.state_persistence.run_late", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    return ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("backend", "when"),
    [
        ("local", "atexit"),
        ("local", "thread"),
        ("local", "no-threads"),
        ("juicefs", "atexit"),
        ("juicefs", "no-threads"),
        ("fake-gcs", "thread"),
        ("fake-gcs", "no-threads"),
    ],
)
def test_states_are_saved_loaded_and_removed(backend: str, when: str, servers: Servers) -> None:
    target = servers.target(backend)
    options = dict(target.storage_options)
    if backend == "fake-gcs":
        options["endpoint_url"] = options["endpoint_url"].replace("127.0.0.1", "localhost")  # a name to be resolved
    assert run(when, target.url, json.dumps(options)) == "saved\n"
    with StateStore(target.url, storage_options=target.storage_options) as store:
        assert len(store.states()) == 1
        store.verify("latest")


@pytest.mark.parametrize("when", ["atexit", "no-threads"])
def test_what_a_spool_has_is_replicated_by_a_thread_that_was_there_before(when: str, tmp_path: Path) -> None:
    remote = tmp_path / "remote"
    assert run(when, str(remote), "{}", str(tmp_path / "spool")) == "saved\n"
    with StateStore(remote) as store:
        assert len(store.states()) == 3
