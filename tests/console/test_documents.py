"""What machines read: the OpenAPI document, the metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from openapi_spec_validator import validate
from prometheus_client.parser import text_string_to_metric_families
from starlette.routing import Route

from statevault.console import StatesListing, SystemSource, web_api
from statevault.threads import TickStatistics
from tests.console.running import LIMIT_S, launched, until
from tests.threads.system import System


def operations(document: dict[str, Any]) -> set[tuple[str, str]]:
    return {(path, method.upper()) for path, methods in document["paths"].items() for method in methods}


@pytest.mark.parametrize("token", [None, "correct-horse-battery"])
def test_the_openapi_document_is_valid_and_has_exactly_the_routes(tmp_path: Path, token: str | None) -> None:
    system = System(tmp_path)
    source = SystemSource(system.control, TickStatistics, StatesListing(system.store.url, system.store.names))
    app = web_api(source, token=token)
    with launched(tmp_path, web_api_token=token) as running:
        document = running.client._send("GET", "/api/openapi.json").json()
    validate(document)
    routes = {
        (route.path, method)
        for route in app.routes
        if isinstance(route, Route)
        for method in (route.methods or ())
        if method != "HEAD"
    }
    assert operations(document) == routes
    assert ("security" in document) == (token is not None)


def test_answers_are_as_the_document_says(tmp_path: Path) -> None:
    with launched(tmp_path) as system:
        system.until_status("active")
        base = f"http://127.0.0.1:{system.port}"
        document = httpx.get(f"{base}/api/openapi.json").json()
        checked = 0
        save_id = system.client.save().id
        system.client.wait_for_save(save_id, timeout=LIMIT_S)
        for path, method in sorted(operations(document)):
            if path in {"/metrics", "/api/openapi.json", "/api/shutdown"}:
                continue
            until(lambda: system.client.get_status() in {"active", "paused"})
            answer = httpx.request(method, base + path.replace("{id}", save_id))
            described = document["paths"][path][method.lower()]["responses"][str(answer.status_code)]
            schema = {**described["content"]["application/json"]["schema"], "components": document["components"]}
            Draft202012Validator(schema).validate(answer.json())
            checked += 1
        assert checked == 7
        unknown = httpx.get(f"{base}/api/v1/saves/nothing").json()
        Draft202012Validator(document["components"]["schemas"]["ErrorView"]).validate(unknown)


def samples(text: str) -> dict[tuple[str, str], float]:
    return {
        (sample.name, sample.labels.get("phase", "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_count_what_happens(tmp_path: Path) -> None:
    with launched(tmp_path) as system:
        system.until_status("active")
        answer = httpx.get(f"http://127.0.0.1:{system.port}/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        before = samples(answer.text)
        assert before["statevault_saves_total", ""] == 0
        assert before["statevault_phase", "active"] == 1
        assert sum(value for (name, _), value in before.items() if name == "statevault_phase") == 1
        assert ("statevault_last_commit_timestamp_seconds", "") not in before

        save = system.client.wait_for_save(system.client.save().id, timeout=LIMIT_S)
        until(lambda: system.client.get_save(save.id).size_bytes is not None)
        until(lambda: system.client.get_save(save.id).stall_s is not None)
        system.parts.agent.broken_pen = True
        system.client.wait_for_save(system.client.save().id, timeout=LIMIT_S)
        system.parts.agent.broken_pen = False
        save = system.client.get_save(save.id)
        until(lambda: samples(system.client.get_metrics())["statevault_save_stall_seconds_count", ""] == 2)
        after = samples(system.client.get_metrics())
    assert after["statevault_saves_total", ""] == 1
    assert after["statevault_save_failures_total", ""] == 1
    assert after["statevault_saved_bytes_total", ""] == save.size_bytes
    assert after["statevault_save_seconds_total", "snapshot"] >= (save.snapshot_s or 0) > 0
    assert after["statevault_save_seconds_total", "publish"] > 0
    assert after["statevault_save_stall_seconds_sum", ""] >= (save.stall_s or 0) > 0
    assert after["statevault_last_commit_timestamp_seconds", ""] > save.asked_at.timestamp()
    assert after["statevault_tick_seconds_count", ""] > before["statevault_tick_seconds_count", ""]
    assert after["statevault_tick_seconds_sum", ""] > before["statevault_tick_seconds_sum", ""]
    assert after["statevault_uptime_seconds", ""] > before["statevault_uptime_seconds", ""]
