"""The example, as a user runs it: two runs and an evaluation, on a local disk and on S3."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from statevault.persistence import list_policies, verify_policy
from statevault.storage import open_storage
from tests.servers import Servers

EXAMPLE = Path(__file__).parents[2] / "examples" / "policy_persistence.py"


@pytest.mark.parametrize("backend", ["local", pytest.param("juicefs", marks=pytest.mark.long)])
def test_a_second_run_goes_on_from_the_best_policy_of_the_first(backend: str, servers: Servers) -> None:
    target = servers.target(backend)
    options = target.storage_options
    environment = {**os.environ}
    if options:
        environment |= {
            "AWS_ENDPOINT_URL": options["endpoint_url"],
            "AWS_ACCESS_KEY_ID": options["key"],
            "AWS_SECRET_ACCESS_KEY": options["secret"],
        }

    def example(*arguments: str) -> str:
        command = [sys.executable, str(EXAMPLE), target.url, *arguments]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
        assert run.returncode == 0, run.stdout + run.stderr
        return run.stdout

    def restored_score(out: str) -> float:
        found = re.search(r"the best policy so far scores ([\d.]+)", out)
        assert found is not None, out
        return float(found[1])

    storage = open_storage(target.url, options)
    assert "there is no policy yet" in example("--epochs", "2", "--tries", "2")
    best, *epochs = list_policies(storage)
    assert best.score is not None
    assert [policy.epoch for policy in epochs] == [1, 2]
    # The episodes are the same: with its own statistics, and only with those, the policy scores what it has scored.
    assert restored_score(example("--epochs", "1", "--tries", "1")) == pytest.approx(best.score, abs=0.05)
    after = list_policies(storage)[0]
    assert after.score is not None
    assert after.score >= best.score
    assert restored_score(example("--evaluate")) == pytest.approx(after.score, abs=0.05)
    for policy in list_policies(storage):
        verify_policy(storage, policy.name)
