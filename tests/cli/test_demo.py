"""The demo, shortened: it ends by itself, with exit code 0 only if the resumed agent is the saved one."""

from __future__ import annotations

import re

import pytest

from tests.cli.run import option_arguments, statevault
from tests.servers import Servers

BACKENDS = ("local", "juicefs", pytest.param("fake-gcs", marks=pytest.mark.long))


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_demo_kills_and_resumes_an_agent(backend: str, servers: Servers) -> None:
    target = servers.target(backend)
    options = option_arguments(target.storage_options)
    run = statevault("demo", "--states", target.url, "--seconds", "3", *options, timeout_s=240)
    assert run.code == 0, run.out + run.err
    assert re.search(r"kill -9 \d+, in the middle of saving .*\.state", run.out)
    assert run.out.count("bit-equal") == 4
    assert "goes on" in run.out
    assert "exit=clean" in run.out
    assert statevault("verify", target.url, *options).code == 0
