"""A launched agent with a spool: it saves and resumes in an outage, and its web API tells how replication goes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from statevault.console import SystemSource, exposition
from statevault.console.source import StatesListing
from statevault.console.views import ReplicationView, SystemView
from statevault.launcher import LaunchConfig
from statevault.state_persistence import StateStore
from statevault.state_persistence.spool import Spool
from statevault.threads import TickStatistics
from tests.console.running import Launched, until
from tests.docs.examples import ROOT
from tests.launcher.outage import Network
from tests.servers import Servers, target_names
from tests.state_persistence.spool.spooling import QUICK
from tests.threads.system import System

GUIDE = (ROOT / "docs" / "spool.md").read_text(encoding="utf-8")


def test_a_launch_ends_with_its_final_state_at_the_remote(tmp_path: Path) -> None:
    launched = Launched(tmp_path / "remote", spool=tmp_path / "spool", max_uptime=0.5, save_state_interval=0.1)
    with launched.running():
        until(lambda: not launched.alive)
    states = StateStore(tmp_path / "remote").states()
    assert states[-1].metadata["exit"] == "clean"
    assert [state.name for state in StateStore(tmp_path / "spool").states()] == [states[-1].name]


def test_retention_works_on_the_remote(tmp_path: Path) -> None:
    launched = Launched(tmp_path / "remote", spool=tmp_path / "spool", save_state_interval=0.1, max_keep_states=2)
    with launched.running():
        until(lambda: (view := replication(launched)) is not None and view.replicated > 5)
        until(lambda: len(StateStore(tmp_path / "remote").names()) <= 3)  # and one that came meanwhile


@pytest.mark.skipif("juicefs" not in target_names(), reason="needs a server")
def test_an_agent_lives_through_an_outage_and_a_restart_in_it(servers: Servers, tmp_path: Path) -> None:
    target = servers.target("juicefs")
    with Network(str(target.storage_options["endpoint_url"])) as network:
        config = {
            "states_dir": target.url,
            "storage_options": {**target.storage_options, "endpoint_url": network.url},
            "spool": Spool(tmp_path, retry=QUICK, linger_s=20.0, refused_delay_s=0.2),
            "saved_state_path": "latest",
            "save_state_interval": 0.2,
        }
        first = Launched(tmp_path, **config)
        with first.running():
            until(lambda: (view := replication(first)) is not None and view.replicated > 0)
            network.go_down()
            until(lambda: (view := replication(first)) is not None and view.pending > 1)
            view = replication(first)
            assert view is not None
            assert view.spool == str(tmp_path)
            first.client.shutdown()
            first.join()
        assert first.error is None
        second = Launched(tmp_path, **config)
        with second.running():
            until(second.answers)
            network.come_up()
            until(lambda: (view := replication(second)) is not None and view.replicated > 2)
            second.client.shutdown()
            second.join()
        assert second.error is None
    with StateStore(target.url, storage_options=target.storage_options) as store:
        names = store.names()
        for name in names[-5:]:
            store.verify(name)
        assert StateStore(tmp_path).names() == [names[-1]]


def replication(launched: Launched) -> ReplicationView | None:
    return launched.client.get_system().replication if launched.answers() else None


def test_the_json_of_the_guide_is_what_the_api_sends() -> None:
    found = re.search(r"^```json replication\n(.*?)^```$", GUIDE, flags=re.MULTILINE | re.DOTALL)
    assert found is not None
    shown = json.loads(found[1])
    assert ReplicationView.model_validate(shown).model_dump(mode="json") == shown


def test_the_guide_has_every_metric_and_every_setting(tmp_path: Path) -> None:
    system = System(tmp_path / "states")
    with StateStore(tmp_path / "remote", spool=Spool(tmp_path / "spool", linger_s=0.0)) as store:
        listing = StatesListing(store.url, store.names)
        source = SystemSource(system.control, TickStatistics, listing, store.replication)
        families = text_string_to_metric_families(exposition(source).decode())
        assert SystemView.of(source).replication is not None
    names = {family.name + ("_total" if family.type == "counter" else "") for family in families}
    ours = {name for name in names if name.startswith("statevault_replicat")}
    assert ours == set(re.findall(r"`(statevault_\w+)`", GUIDE))
    settings = GUIDE.partition("## Settings")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", settings, flags=re.MULTILINE)) == set(Spool.__dataclass_fields__)


def test_a_spool_is_given_as_a_path_or_with_settings() -> None:
    assert LaunchConfig(spool="./spool").spool == "./spool"
    assert LaunchConfig(spool=Spool("./spool", max_bytes=5)).spool == Spool("./spool", max_bytes=5)
    with pytest.raises(ValueError, match="spool"):
        LaunchConfig(spool=5)  # type: ignore[arg-type]
