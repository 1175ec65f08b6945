"""The web API of real launches, over real connections."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from statevault.console import (
    StatesListing,
    SystemSource,
    WebApiClient,
    WebApiError,
    WebApiServer,
    WebApiUnreachableError,
    web_api,
)
from statevault.console.answers import answer
from statevault.console.views import ErrorView
from statevault.state_persistence import StateStore
from statevault.threads import TickStatistics
from tests.console.running import LIMIT_S, Launched, launched, until
from tests.threads.system import System


def url(system: Launched, path: str) -> str:
    return f"http://127.0.0.1:{system.port}{path}"


def test_a_system_is_paused_resumed_saved_and_shut_down(tmp_path: Path) -> None:
    with launched(tmp_path) as system:
        system.until_status("active")
        answer = httpx.post(url(system, "/api/pause"))
        assert (answer.status_code, answer.json()) == (200, {"result": "ok"})
        system.until_status("paused")
        held = system.parts.agent.steps
        time.sleep(0.05)
        assert system.parts.agent.steps == held
        assert httpx.get(url(system, "/api/status")).json() == {"status": "paused"}
        assert system.client.resume() == "ok"
        until(lambda: system.parts.agent.steps > held)
        assert system.client.save_state() == "ok"
        until(lambda: system.client.get_system().saves.committed == 1)
        assert system.client.shutdown() == "ok"
        system.join()
        assert not system.answers()
    with StateStore(tmp_path) as store:
        assert [state.metadata for state in store.states()] == [{}, {"exit": "clean"}]


def test_a_paused_system_saves_and_stays_paused(tmp_path: Path) -> None:
    with launched(tmp_path) as system:
        system.client.pause()
        system.until_status("paused")
        saved = system.client.wait_for_save(system.client.save().id, timeout=LIMIT_S)
        assert saved.status == "committed"
        assert system.client.get_system().phase == "paused"
        held = system.parts.agent.steps
        with StateStore(tmp_path) as store:
            store.register("interaction", (copy := Launched(tmp_path)).parts.interaction)
            store.load_state(saved.state or "", components=["interaction"])
        assert copy.parts.agent.steps == held
        copy.client.close()


def test_a_save_can_be_followed_from_its_wish_to_its_commit(tmp_path: Path) -> None:
    with launched(tmp_path) as system:
        system.until_status("active")
        answer = httpx.post(url(system, "/api/v1/saves"))
        assert answer.status_code == 202
        save_id = answer.json()["id"]
        assert answer.headers["location"] == f"/api/v1/saves/{save_id}"
        assert answer.json()["status"] in {"waiting", "snapshot", "publishing"}
        saved = system.client.wait_for_save(save_id, timeout=LIMIT_S)
        assert (saved.status, saved.requested, saved.error) == ("committed", True, None)
        until(lambda: system.client.get_save(save_id).size_bytes is not None)
        until(lambda: system.client.get_save(save_id).stall_s is not None)
        with StateStore(tmp_path) as store:
            info = store.info(saved.state or "")
        saved = system.client.get_save(save_id)
        assert info.size == saved.size_bytes
        with pytest.raises(WebApiError, match="no save of this run"):
            system.client.get_save(f"{save_id}?")
        assert saved.snapshot_s is not None
        assert saved.duration_s is not None
        assert 0 < saved.snapshot_s <= saved.duration_s
        assert system.client.get_system().saves.recent[0] == saved


def test_a_save_that_fails_says_why_and_the_next_one_works(tmp_path: Path) -> None:
    with launched(tmp_path) as system:
        system.until_status("active")
        system.parts.agent.broken_pen = True
        failed = system.client.wait_for_save(system.client.save().id, timeout=LIMIT_S)
        assert failed.status == "failed"
        assert "the pen is broken" in (failed.error or "")
        assert failed.state is None
        view = system.client.get_system().saves
        assert (view.committed, view.failed) == (0, 1)
        assert "the pen is broken" in (view.last_error or "")
        system.parts.agent.broken_pen = False
        assert system.client.wait_for_save(system.client.save().id, timeout=LIMIT_S).status == "committed"


def test_what_an_error_says_is_always_json(tmp_path: Path) -> None:
    """The name of a file that is not Unicode, and what would drive the terminal of whoever reads the answer."""
    hostile = os.fsdecode(b"caf\xe9") + " \x1b[2J \x9b31m \u202e\u2028"
    body = bytes(answer(ErrorView(error=hostile, code="broken")).body)
    assert json.loads(body)["error"] == hostile
    assert body.decode().isprintable()


def test_a_publish_that_fails_is_told_as_well(tmp_path: Path) -> None:
    root = tmp_path / "states"
    with launched(root) as system:
        root.write_text("in the way")
        failed = system.client.wait_for_save(system.client.save().id, timeout=LIMIT_S)
        assert failed.status == "failed"
        assert "the publish failed" in (failed.error or "")
        assert failed.snapshot_s is not None
        # The listing fails, too; the status does not.
        system.until_status("active")
        root.unlink()
        assert system.client.wait_for_save(system.client.save().id, timeout=LIMIT_S).status == "committed"


def test_a_save_for_which_the_threads_do_not_pause_has_failed(tmp_path: Path) -> None:
    gate, at_gate = threading.Event(), threading.Event()
    system = Launched(tmp_path, timeout_for_all_threads_pause=0.2, max_attempts_to_pause_all_threads=1)
    step = system.parts.agent.step

    def slow(observation: float) -> float:
        if system.parts.agent.steps == 10 and not gate.is_set():
            at_gate.set()
            gate.wait(LIMIT_S)
        return step(observation)

    system.parts.agent.step = slow  # type: ignore[method-assign]
    with system.running():
        until(at_gate.is_set)
        try:
            failed = system.client.wait_for_save(system.client.save().id, timeout=LIMIT_S)
        finally:
            gate.set()
        assert failed.status == "failed"
        assert "did not reach a step boundary" in (failed.error or "")
        view = system.client.get_system()
        assert view.pause_timeouts == 1
        assert "did not reach a step boundary" in (view.last_pause_error or "")


class SlowPen:
    """Lets each saving of an agent wait until it may go on."""

    def __init__(self, system: Launched) -> None:
        self.permits = threading.Semaphore(0)
        save_state = system.parts.agent.save_state

        def slow(path: Path) -> None:
            assert self.permits.acquire(timeout=LIMIT_S)
            save_state(path)

        system.parts.agent.save_state = slow  # type: ignore[method-assign]


def test_commands_that_wait_are_bounded(tmp_path: Path) -> None:
    with launched(tmp_path, web_api_command_queue_size=2) as system:
        pen = SlowPen(system)
        try:
            system.until_status("active")
            first = system.client.save()
            system.until_phase("saving")
            # The control thread is busy with the snapshot and takes up nothing.
            second = system.client.save()
            assert second.id != first.id, "the first snapshot may lack what the second asker has seen"
            assert system.client.save().id == second.id, "one snapshot serves both"
            assert system.client.pause() == "ok"
            assert system.client.resume() == "ok"
            for path in ("pause", "resume", "save-state", "shutdown", "v1/saves"):
                answer = httpx.post(url(system, f"/api/{path}"))
                assert answer.status_code == 503
                assert answer.json()["code"] == "queue_full"
                assert "web_api_command_queue_size" in answer.json()["error"]
                assert answer.headers["retry-after"] == "1"
        finally:
            pen.permits.release(10)
        for save in (first, second):
            assert system.client.wait_for_save(save.id, timeout=LIMIT_S).status == "committed"
        system.until_status("active")


def test_a_save_that_waits_when_the_system_ends_is_the_final_state(tmp_path: Path) -> None:
    with launched(tmp_path, web_api_command_queue_size=5) as system:
        pen = SlowPen(system)
        try:
            system.until_status("active")
            system.client.save()
            system.until_phase("saving")
            waiting = system.client.save()
            system.client.shutdown()
            pen.permits.release()
            system.until_status("shutting down")
            refused = httpx.post(url(system, "/api/pause"))
            assert (refused.status_code, refused.json()["code"]) == (503, "shutting_down")
            until(lambda: system.client.get_save(waiting.id).status == "snapshot")
        finally:
            pen.permits.release(10)
        system.join()
    with StateStore(tmp_path) as store:
        assert [state.metadata for state in store.states()] == [{}, {"exit": "clean"}]


def test_a_host_or_a_token_that_can_be_none_is_an_unreachable_system() -> None:
    for host in ("::zz", "a\nb", "localhost:80", "a" * 300, "..", "ü" * 80):
        with pytest.raises(WebApiUnreachableError, match="no system"), WebApiClient(host, 1) as client:
            client.get_status()
    with pytest.raises(WebApiUnreachableError, match="codec"):
        WebApiClient(token="ümlaut")
    assert WebApiClient("[::1]", 1).url == WebApiClient("::1", 1).url == "http://[::1]:1"


def test_failures_have_one_shape(tmp_path: Path) -> None:
    with launched(tmp_path) as system:
        for method, path, status, code in [
            ("GET", "/", 404, "not_found"),
            ("GET", "/api/nothing", 404, "not_found"),
            ("GET", "/api/status/", 404, "not_found"),
            ("POST", "/api/status", 405, "method_not_allowed"),
            ("GET", "/api/pause", 405, "method_not_allowed"),
            ("DELETE", "/api/v1/saves", 405, "method_not_allowed"),
            ("GET", "/api/v1/saves/0123", 404, "unknown_save"),
        ]:
            answer = httpx.request(method, url(system, path))
            assert (answer.status_code, answer.json()["code"]) == (status, code), path
            assert answer.json().keys() == {"error", "code"}
            assert answer.json()["error"]
            assert answer.headers["content-type"] == "application/json"
        assert set(httpx.post(url(system, "/api/status")).headers["allow"].split(", ")) == {"GET", "HEAD"}
        with pytest.raises(WebApiError, match="no save of this run") as caught:
            system.client.get_save("0123")
        assert (caught.value.status, caught.value.code) == (404, "unknown_save")


@pytest.fixture
def system(tmp_path: Path) -> Any:
    """A system whose web API the test makes itself."""
    system = System(tmp_path)
    with system.running():
        yield system


def test_a_bug_is_a_500_without_details_and_the_server_goes_on(
    system: System, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> TickStatistics:
        raise ZeroDivisionError("a secret of the implementation")

    source = SystemSource(system.control, broken, StatesListing(system.store.url, system.store.names))
    with WebApiServer("127.0.0.1", 0) as server:
        server.start(web_api(source))
        answer = httpx.get(f"{server.url}/api/v1/system")
        assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
        assert "secret" not in answer.text
        until(lambda: "a secret of the implementation" in caplog.text)
        with WebApiClient("127.0.0.1", server.port) as client:
            assert client.get_status() == "active"


def test_a_storage_that_does_not_answer_holds_up_nothing_but_its_own_listing(system: System) -> None:
    asked, gate = threading.Event(), threading.Event()
    listings = 0

    def names() -> list[str]:
        nonlocal listings
        listings += 1
        asked.set()
        assert gate.wait(LIMIT_S)
        return ["a.state"]

    source = SystemSource(system.control, TickStatistics, StatesListing("s3://slow", names))
    with WebApiServer("127.0.0.1", 0) as server:
        server.start(web_api(source, host="127.0.0.1"))
        waiting: list[threading.Thread] = []
        try:
            waiting += [threading.Thread(target=httpx.get, args=(f"{server.url}/api/v1/system",), daemon=True)]
            waiting[0].start()
            assert asked.wait(LIMIT_S)
            with WebApiClient("127.0.0.1", server.port) as client:
                assert "statevault_phase" in client.get_metrics()
                assert client.get_status() == "active"
                states = client.get_system().states
                assert (states.newest, states.error) == ([], "the storage has not answered yet")
                assert listings == 1
                gate.set()
                until(lambda: client.get_system().states.newest == ["a.state"])
        finally:
            gate.set()
            for thread in waiting:
                thread.join(LIMIT_S)


def test_a_storage_that_fails_is_shown_beside_what_was_listed_last(system: System) -> None:
    names = ["a.state", "b.state"]

    def listed() -> list[str]:
        if not names:
            raise ConnectionError("the storage is away")
        return list(names)

    source = SystemSource(system.control, TickStatistics, StatesListing("s3://bucket", listed, max_age_s=0.0))
    with WebApiServer("127.0.0.1", 0) as server, WebApiClient("127.0.0.1", server.port) as client:
        server.start(web_api(source))
        assert client.get_system().states.newest == ["b.state", "a.state"]
        names.clear()
        states = client.get_system().states
        assert (states.count, states.url) == (2, "s3://bucket")
        assert "the storage is away" in (states.error or "")


def test_states_are_listed_once_in_a_while(system: System) -> None:
    asked: list[None] = []

    def listed() -> list[str]:
        asked.append(None)
        return []

    source = SystemSource(system.control, TickStatistics, StatesListing("s3://bucket", listed, max_age_s=3600.0))
    with WebApiServer("127.0.0.1", 0) as server, WebApiClient("127.0.0.1", server.port) as client:
        server.start(web_api(source))
        for _ in range(5):
            client.get_system()
        assert len(asked) == 1
        system.control.request_save()
        until(lambda: client.get_system().saves.committed == 1)
        client.get_system()
        assert len(asked) == 2
