"""The server and the launch: addresses that can't be had, missing packages, the end."""

from __future__ import annotations

import pickle
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from statevault.console import (
    AddressInUseError,
    WebApiClient,
    WebApiError,
    WebApiServer,
    WebApiUnreachableError,
)
from tests.console.running import Launched, free_port, launched, until

ROOT = Path(__file__).parents[2]


def test_a_port_in_use_is_an_error_at_launch_that_names_address_and_remedy(tmp_path: Path) -> None:
    with launched(tmp_path / "first") as first:
        second = Launched(tmp_path / "second")
        second._config["web_api_address"] = ("localhost", first.port)
        second._run()
        assert isinstance(second.error, AddressInUseError)
        assert f"http://localhost:{first.port}" in str(second.error)
        assert "web_api_address=None" in str(second.error)
        assert second.parts.agent.steps == 0
        assert not (tmp_path / "second").exists()
        second.client.close()
        assert first.client.get_status() == "active"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_name_needs_all_of_its_addresses(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    if len({found[0] for found in socket.getaddrinfo("localhost", 80)}) < 2 and family == socket.AF_INET6:
        pytest.skip("localhost has no IPv6 address on this machine")
    with socket.socket(family) as other:
        other.bind((host, 0))
        other.listen()
        with pytest.raises(AddressInUseError):
            WebApiServer("localhost", other.getsockname()[1])


def test_two_servers_that_do_not_serve_yet_can_not_share_a_port() -> None:
    with WebApiServer("localhost", 0) as server:
        port = server.port
        with pytest.raises(AddressInUseError):
            WebApiServer("localhost", port)
    with WebApiServer("localhost", port) as server:
        assert server.port == port


def test_an_unknown_host_and_a_foreign_address_are_errors_that_name_them() -> None:
    with pytest.raises(OSError, match=r"nowhere\.invalid"):
        WebApiServer("nowhere.invalid", 8319)
    with pytest.raises(OSError, match=r"can't listen at http://192\.0\.2\.1:8319"):
        WebApiServer("192.0.2.1", 8319)


def test_a_port_can_be_used_again_at_once(tmp_path: Path) -> None:
    port = free_port()
    for run in range(3):
        system = Launched(tmp_path / str(run))
        system.client.close()
        system.port, system.client = port, WebApiClient("localhost", port)
        system._config["web_api_address"] = ("localhost", port)
        with system.running():
            assert system.client.get_status() == "active"


def test_no_thread_and_no_socket_is_left_behind(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    with launched(tmp_path) as system:
        for _ in range(3):
            system.client.get_system()
    until(lambda: set(threading.enumerate()) <= before)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", system.port), timeout=600)


def test_the_server_answers_until_the_end_also_after_a_crash(tmp_path: Path) -> None:
    system = Launched(tmp_path)
    system.parts.agent.fail_at = 5
    system._run()
    assert isinstance(system.error, ZeroDivisionError)
    assert not system.answers()
    system.client.close()


def test_a_client_of_nothing_says_that_nothing_answers() -> None:
    with WebApiClient("localhost", free_port()) as client, pytest.raises(WebApiUnreachableError, match="no system"):
        client.get_status()


def test_a_client_of_something_else_says_that_it_is_something_else() -> None:
    async def something_else(scope: object, receive: object, send: object) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})  # type: ignore[operator]
        await send({"type": "http.response.body", "body": b"<html>"})  # type: ignore[operator]

    with WebApiServer("localhost", 0) as server, WebApiClient("localhost", server.port) as client:
        server.start(something_else)
        with pytest.raises(WebApiError, match="did not answer as the web API"):
            client.get_status()


def test_errors_survive_pickling() -> None:
    error = pickle.loads(pickle.dumps(WebApiError("no", status=503, code="queue_full")))
    assert (str(error), error.status, error.code) == ("no", 503, "queue_full")
    assert str(pickle.loads(pickle.dumps(AddressInUseError("taken")))) == "taken"


@pytest.mark.parametrize("package", ["uvicorn", "starlette", "httpx", "prometheus_client"])
@pytest.mark.parametrize(("port", "launches"), [(8319, True), (18319, False)])
def test_without_the_extra_only_the_default_address_is_passed_over(
    tmp_path: Path, package: str, port: int, launches: bool
) -> None:
    code = (
        f"import sys, logging; sys.modules[{package!r}] = None; logging.basicConfig()\n"
        "from statevault.launcher import launch\n"
        "from tests.launcher.agent import Parts\n"
        "p = Parts()\n"
        f"launch(p.interaction, p.models, p.data, p.trainers, {{'states_dir': {str(tmp_path)!r}, 'max_uptime': 0.05,"
        f" 'web_api_address': ('localhost', {port})}})\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )
    assert (result.returncode == 0) is launches, result.stderr
    assert f"the web API needs {package}: pip install 'statevault[web]'" in result.stderr
    assert ("MissingExtraError" in result.stderr) is not launches
