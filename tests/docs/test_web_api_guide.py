"""The guide to the web API shows what the API sends."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import BaseModel

from statevault.console import ErrorView, SaveView, StatesListing, SystemSource, SystemView, exposition, web_api
from statevault.threads import TickStatistics
from tests.docs.examples import ROOT
from tests.threads.system import System

GUIDE = (ROOT / "docs" / "web-api.md").read_text(encoding="utf-8")


def documented(name: str) -> Any:
    """A JSON block of the guide."""
    found = re.search(rf"^```json {name}\n(.*?)^```$", GUIDE, flags=re.MULTILINE | re.DOTALL)
    assert found is not None, f"docs/web-api.md has no block `json {name}`"
    return json.loads(found[1])


@pytest.mark.parametrize(("name", "view"), [("save", SaveView), ("system", SystemView), ("error", ErrorView)], ids=str)
def test_the_json_of_the_guide_is_what_is_sent(name: str, view: type[BaseModel]) -> None:
    shown = documented(name)
    assert view.model_validate(shown).model_dump(mode="json") == shown


@pytest.fixture
def source(tmp_path_factory: pytest.TempPathFactory) -> SystemSource:
    """A system that was not started."""
    system = System(tmp_path_factory.mktemp("states"))
    return SystemSource(system.control, TickStatistics, StatesListing(system.store.url, system.store.names))


def test_every_endpoint_is_documented_and_no_other(source: SystemSource) -> None:
    table = GUIDE.partition("## Endpoints")[2].partition("\n\n`ok`")[0]
    shown = set(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", table, flags=re.MULTILINE))
    operations = {
        (method, route.path)  # type: ignore[attr-defined] # routes of the API have both
        for route in web_api(source).routes
        for method in route.methods - {"HEAD"}  # type: ignore[attr-defined]
    }
    assert shown == operations


def test_every_metric_is_documented(source: SystemSource) -> None:
    families = text_string_to_metric_families(exposition(source).decode())
    names = {family.name + ("_total" if family.type == "counter" else "") for family in families}
    shown = set(re.findall(r"`(statevault_\w+)", GUIDE.partition("## Metrics")[2]))
    assert names <= shown
    assert shown - names == {"statevault_last_commit_timestamp_seconds"}  # there after the first commit
