"""The console, typed at as a person would: in a terminal."""

from __future__ import annotations

import io
import itertools
import json
import os
import pty
import re
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typing_extensions import override

from statevault.console import Console, WebApiClient
from tests.console.running import LIMIT_S, free_port, launched

# Makes the terminal that of the session, so that Ctrl-C arrives as a signal, and becomes the command.
_IN_ITS_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)
ROOT = Path(__file__).parents[2]
_ESCAPES = re.compile(r"\x1b\[[?0-9;]*[a-zA-Z]|\x07|\r")


class Terminal:
    """A program in a pseudo-terminal."""

    def __init__(self, *command: str, **env: str) -> None:
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", _IN_ITS_TERMINAL, *command],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=ROOT,
            env={**os.environ, "TERM": "xterm", **env},
            start_new_session=True,
        )
        os.close(slave)
        self._unread = ""

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def expect(self, pattern: str) -> re.Match[str]:
        """Read until a pattern appears, and return its match; what is behind it stays unread."""
        end = time.monotonic() + LIMIT_S
        while (found := re.search(pattern, self._unread)) is None:
            assert time.monotonic() < end, f"{pattern!r} is not in {self._unread!r}"
            if select.select([self._master], [], [], 0.1)[0]:
                try:
                    data = os.read(self._master, 4096).decode()
                except OSError:  # the program has closed its side
                    data = ""
                    assert re.search(pattern, self._unread), f"{pattern!r} is not in {self._unread!r}"
                self._unread = _ESCAPES.sub("", self._unread + data)
        self._unread = self._unread[found.end() :]
        return found

    def wait(self) -> int:
        return self.process.wait(LIMIT_S)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)


@contextmanager
def console(port: int, *arguments: str, **env: str) -> Iterator[Terminal]:
    terminal = Terminal(
        sys.executable, "-m", "statevault.cli", "console", "--host", "localhost", "--port", str(port), *arguments, **env
    )
    try:
        yield terminal
    finally:
        terminal.close()


def test_a_system_is_watched_and_commanded(tmp_path: Path) -> None:
    with launched(tmp_path) as system, console(system.port) as terminal:
        terminal.expect(r"statevault \(active\)> ")
        terminal.type("pause\n")
        terminal.expect("the system will pause")
        system.until_status("paused")
        terminal.type("save\n")
        state = terminal.expect(r"committed (\S+\.state) in ")[1]
        assert (tmp_path / state).is_dir()
        terminal.expect(r"statevault \(paused\)> ")
        terminal.type("status\n")
        terminal.expect(r"paused, up for \d+ s")
        terminal.expect("1 committed, 0 failed")
        terminal.expect(re.escape(state))
        terminal.type("resume\n")
        terminal.expect("the system will go on")
        system.until_status("active")
        terminal.type("\n")
        terminal.expect(r"statevault \(active\)> ")
        terminal.type("quit\n")
        assert terminal.wait() == 0
        assert system.client.get_status() == "active"


def test_a_failed_save_is_told(tmp_path: Path) -> None:
    with launched(tmp_path) as system, console(system.port) as terminal:
        terminal.expect(r"\(active\)> ")
        system.parts.agent.broken_pen = True
        terminal.type("save\n")
        terminal.expect("failed: .*the pen is broken")
        system.parts.agent.broken_pen = False


def test_a_shutdown_is_confirmed(tmp_path: Path) -> None:
    with launched(tmp_path) as system, console(system.port) as terminal:
        for answer in ("n", "", "yesterday"):
            terminal.expect(r"\(active\)> ")
            terminal.type("shutdown\n")
            terminal.expect(r"\[y/N\] ")
            terminal.type(f"{answer}\n")
            terminal.expect("nothing was done")
        assert system.client.get_status() == "active"
        terminal.expect("> ")
        terminal.type("shutdown\n")
        terminal.expect(r"\[y/N\] ")
        terminal.type("y\n")
        terminal.expect("the system shuts down")
        system.join()
        terminal.expect("> ")
        terminal.type("status\n")
        terminal.expect("no system answers at http://localhost")
        terminal.expect(r"statevault \(offline\)> ")
        terminal.type("\x04")
        assert terminal.wait() == 0


def test_tab_completes_commands_and_help_explains_them(tmp_path: Path) -> None:
    with launched(tmp_path) as system, console(system.port) as terminal:
        terminal.expect(r"\(active\)> ")
        terminal.type("hel\t st\t\n")
        terminal.expect(r"help status")
        terminal.expect(r"status: how the system is")
        terminal.expect(r"\(active\)> ")
        terminal.type("help\n")
        listed = terminal.expect(r"=+\n((?:.+\n)+)")[1].split()
        assert listed == ["help", "pause", "quit", "resume", "save", "shutdown", "status"]
        terminal.type("nonsense\n")
        terminal.expect("unknown command 'nonsense'")
        terminal.type("quit\n")
        assert terminal.wait() == 0  # a person has seen it


def test_ctrl_c_drops_the_line_and_not_the_console(tmp_path: Path) -> None:
    with launched(tmp_path) as system, console(system.port) as terminal:
        terminal.expect(r"\(active\)> ")
        terminal.type("shut")
        terminal.expect("shut")  # readline reads by now
        time.sleep(0.2)  # and waits: CPython notices a signal that comes just before that at the next key only
        terminal.type("\x03")
        terminal.expect(r"\(active\)> ")
        terminal.type("quit\n")
        assert terminal.wait() == 0


def test_ctrl_c_does_not_print_the_greeting_again(capsys: pytest.CaptureFixture[str]) -> None:
    class Keyboard(Console):
        keys: Iterator[str | KeyboardInterrupt]

        @override
        def precmd(self, line: str) -> str:
            key = next(self.keys)
            if isinstance(key, KeyboardInterrupt):
                raise key
            return key

    for greeting in (None, "Good morning"):
        Keyboard.keys = iter([KeyboardInterrupt(), "quit"])
        with WebApiClient("localhost", free_port()) as client:
            shell = Keyboard(client)
            shell.use_rawinput = False
            shell.stdin = io.StringIO("\n" * 10)
            shell.cmdloop(greeting)
        assert capsys.readouterr().out.count(greeting or "statevault console for") == 1


ACTIVE = b'HTTP/1.1 200 OK\r\nContent-Length: 19\r\n\r\n{"status":"active"}'
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 6\r\n\r\n<html>"
HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
SSH = b"SSH-2.0-OpenSSH_9.6\r\n"


@contextmanager
def answering(*answers: bytes) -> Iterator[int]:
    """Something that answers each request in turn as it was told, and from then on hangs up; yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for number in itertools.count():
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(4096)
                    connection.sendall(answers[number] if number < len(answers) else b"")

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def test_in_a_terminal_it_outlives_its_system_and_what_else_answers(tmp_path: Path) -> None:
    # Two when it begins, then one for each command and one for the prompt behind it.
    with answering(ACTIVE, ACTIVE, b"", b"", HELLO, HELLO, SSH, SSH) as port, console(port) as terminal:
        terminal.expect(r"\(active\)> ")
        terminal.type("status\n")
        terminal.expect("no system answers at http://localhost:")
        terminal.expect(r"\(offline\)> ")
        terminal.type("status\n")
        terminal.expect("did not answer as the web API of a system does")
        terminal.expect(r"\(refused\)> ")
        terminal.type("save\n")
        terminal.expect("no system answers at http://localhost:")
        terminal.expect(r"\(offline\)> ")
        terminal.type("quit\n")
        assert terminal.wait() == 0


def typed(port: int, commands: str, **env: str) -> tuple[int, str, list[str]]:
    """Exit code, output and lines on stderr of a console that reads from a pipe."""
    done = subprocess.run(
        [sys.executable, "-m", "statevault.cli", "console", "--port", str(port)],
        input=commands,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **env},
        timeout=600,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr.splitlines()


@pytest.mark.parametrize("commands", ["", "status\n", "pause\nresume\n"])
def test_where_no_system_answers_it_says_so_and_fails(commands: str) -> None:
    port = free_port()
    code, out, (error,) = typed(port, commands)
    assert code == 6
    assert not out
    assert error.startswith(f"statevault: no system answers at http://localhost:{port}: ")
    assert error.endswith("Check that an agent runs there, and its web_api_address")


def test_so_it_does_in_a_terminal() -> None:
    with console(free_port()) as terminal:
        terminal.expect("statevault: no system answers at http://localhost:")
        assert terminal.wait() == 6


@pytest.mark.parametrize(
    ("answer", "code", "told"),
    [
        (b"", 6, "no system answers at"),
        (SSH, 6, "no system answers at"),
        (NOT_FOUND, 1, "did not answer as the web API of a system does (404 Not Found): check host and port"),
        (HELLO, 1, "did not answer as the web API of a system does (200 OK): check host and port"),
    ],
)
def test_where_something_else_answers_it_says_so_and_fails(answer: bytes, code: int, told: str) -> None:
    with answering(answer) as port:
        found, _, (error,) = typed(port, "status\n")
    assert found == code
    assert f"http://localhost:{port}" in error
    assert told in error


def test_what_a_system_says_does_not_drive_the_terminal() -> None:
    hostile = json.dumps({"error": "\x1b[2J\x9b31m\u202e\u2028", "code": "\x1b]0;title\x07"}).encode()
    refusal = b"HTTP/1.1 503 Busy\r\nContent-Length: %d\r\n\r\n%s" % (len(hostile), hostile)
    with answering(ACTIVE, refusal, refusal, refusal, refusal) as port:
        _, out, errors = typed(port, "pause\nstatus\n")
    for text in (out, *errors):
        assert text.replace("\n", "").isprintable(), ascii(text)
    assert "\\x1b[2J\\x9b31m\\u202e" in "".join(errors)


def test_a_system_that_is_lost_on_the_way_ends_it_with_an_error() -> None:
    with answering(ACTIVE, ACTIVE) as port:
        code, out, (error,) = typed(port, "status\nresume\n")
    assert code == 6
    assert "statevault (active)> " in out
    assert "no system answers at" in error  # once: the other command is not tried


def test_a_wrong_token_is_an_error_and_the_right_one_comes_from_the_environment(tmp_path: Path) -> None:
    token = "correct-horse-battery"
    with launched(tmp_path, web_api_token=token) as system:
        for given, got in (("", "no token"), ("correct-horse-battler", "another token")):
            code, _, (error,) = typed(system.port, "status\n", **({"STATEVAULT_WEB_API_TOKEN": given} if given else {}))
            assert code == 5
            assert f"http://localhost:{system.port}/api/status: got {got}" in error
            assert "STATEVAULT_WEB_API_TOKEN" in error
        with console(system.port, STATEVAULT_WEB_API_TOKEN=token) as terminal:
            terminal.expect(r"statevault \(active\)> ")


def test_commands_from_a_pipe_are_carried_out_and_the_first_that_fails_gives_the_exit_code(tmp_path: Path) -> None:
    with launched(tmp_path) as system:
        code, out, errors = typed(system.port, "pause\nsave\nresume\n")
        assert (code, errors) == (0, [])
        assert "committed" in out
        system.until_status("active")
        system.parts.agent.broken_pen = True
        code, out, (failed, unknown) = typed(system.port, "save\nnonsense\npause\n")
        system.parts.agent.broken_pen = False
        assert code == 1
        assert failed.startswith("statevault: failed: ")
        assert "the pen is broken" in failed
        assert unknown == "statevault: unknown command 'nonsense'; help lists the commands"
        assert "the system will pause" in out
        assert typed(system.port, "nonsense\n")[0] == 2
        code, _, (error,) = typed(system.port, "shutdown\n")
        assert code == 1
        assert "nothing was done" in error
        assert typed(system.port, "shutdown\ny\n")[0] == 0
        system.join()
