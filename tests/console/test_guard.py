"""Who is let in: names of this machine, its own origin, and holders of the token."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from statevault.console import WebApiClient, WebApiError
from statevault.launcher import LaunchConfig
from tests.console.running import Launched, launched

TOKEN = "correct-horse-battery"


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    """An agent on loopback."""
    with launched(tmp_path_factory.mktemp("local"), web_api_allowed_hosts=("robot.example",)) as system:
        yield system


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    """An agent at all addresses of the machine."""
    system = Launched(tmp_path_factory.mktemp("remote"), web_api_token=TOKEN)
    system._config["web_api_address"] = ("0.0.0.0", system.port)
    with system.running():
        yield system


def ask(system: Launched, headers: dict[str, str], method: str = "GET", path: str = "/api/status") -> httpx.Response:
    return httpx.request(method, f"http://127.0.0.1:{system.port}{path}", headers=headers)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "[::1]", "robot.example", "Robot.Example"])
def test_names_of_this_machine_pass(local: Launched, host: str) -> None:
    assert ask(local, {"Host": f"{host}:{local.port}"}).status_code == 200
    assert ask(local, {"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "192.168.1.7",
        "evil@localhost.x",
        "0.0.0.0",
        "[::2]",
        "localhost.",
        "[",
        "",
    ],
)
def test_other_names_do_not_so_that_dns_rebinding_fails(local: Launched, host: str) -> None:
    for path in ("/api/status", "/metrics", "/api/nothing", "/api/openapi.json"):
        answer = ask(local, {"Host": host}, path=path)
        assert (answer.status_code, answer.json()["code"]) == (403, "foreign_host")


def test_a_request_without_or_with_two_hosts_does_not_pass(local: Launched) -> None:
    for lines in (
        b"GET /api/status HTTP/1.0\r\n\r\n",
        b"GET /api/status HTTP/1.0\r\nHost: localhost\r\nHost: x\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", local.port), timeout=600) as connection:
            connection.sendall(lines)
            assert re.match(rb"HTTP/1\.\d (400|403) ", connection.recv(1000))


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:1", "http://127.0.0.1", "file://"])
def test_pages_of_other_origins_can_not_command(local: Launched, origin: str) -> None:
    answer = ask(local, {"Origin": origin}, "POST", "/api/pause")
    assert (answer.status_code, answer.json()["code"]) == (403, "foreign_origin")
    assert local.client.get_status() == "active"
    assert "access-control-allow-origin" not in answer.headers


def test_its_own_origin_passes(local: Launched) -> None:
    assert ask(local, {"Origin": f"http://127.0.0.1:{local.port}"}, "POST", "/api/resume").status_code == 200


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", TOKEN],
)
def test_without_the_token_nothing_is_told(remote: Launched, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    for method, path in [("GET", "/api/status"), ("POST", "/api/shutdown"), ("GET", "/metrics"), ("GET", "/x")]:
        answer = ask(remote, headers, method, path)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"


def test_with_the_token_everything_works(remote: Launched) -> None:
    assert remote.client.get_status() == "active"
    assert ask(remote, {"Authorization": f"bearer {TOKEN}"}).status_code == 200
    with WebApiClient("127.0.0.1", remote.port, token="wrong-horse-battery") as client:
        with pytest.raises(WebApiError, match="Authorization: Bearer") as caught:
            client.get_status()
        assert caught.value.status == 401


def test_other_machines_may_use_its_address_or_its_name_but_no_other(remote: Launched) -> None:
    token = {"Authorization": f"Bearer {TOKEN}"}
    for host in ("192.168.1.7", "[fe80::1]", socket.gethostname()):
        assert ask(remote, {**token, "Host": host}).status_code == 200
    assert ask(remote, {**token, "Host": "evil.example"}).status_code == 403


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "robot.local", "localhost.example"])
def test_an_address_that_others_can_reach_needs_a_token(host: str) -> None:
    with pytest.raises(ValidationError, match="needs a web_api_token"):
        LaunchConfig(web_api_address=(host, 8319))
    config = LaunchConfig(web_api_address=(host, 8319), web_api_token=TOKEN)
    assert not config.web_api_is_local
    assert TOKEN not in repr(config)


@pytest.mark.parametrize("address", [("localhost", 1), ("127.0.0.1", 1), ("127.8.8.8", 1), ("::1", 1), None])
def test_loopback_needs_none(address: Any) -> None:
    assert LaunchConfig(web_api_address=address).web_api_is_local


@pytest.mark.parametrize(
    "token", ["tiny", "has a space in the middle", "line\nbreak-line-break", "ümlaut-ümlaut-ümlaut"]
)
def test_a_token_that_is_weak_or_fits_no_header_is_refused(token: str) -> None:
    with pytest.raises(ValidationError, match="web_api_token") as caught:
        LaunchConfig(web_api_token=token)
    assert token not in str(caught.value)
