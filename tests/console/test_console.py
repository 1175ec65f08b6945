"""The console, typed at as a person would: in a terminal."""

from __future__ import annotations

import io
import itertools
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
from tests.cli.run import statevault
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


def test_tab_completes_commands_and_help_explains_them() -> None:
    with console(free_port()) as terminal:
        terminal.expect(r"\(offline\)> ")
        terminal.type("hel\t st\t\n")
        terminal.expect(r"help status")
        terminal.expect(r"status: how the system is")
        terminal.expect(r"\(offline\)> ")
        terminal.type("help\n")
        listed = terminal.expect(r"=+\n((?:.+\n)+)")[1].split()
        assert listed == ["help", "pause", "quit", "resume", "save", "shutdown", "status"]
        terminal.type("nonsense\n")
        terminal.expect("unknown command 'nonsense'")


def test_ctrl_c_drops_the_line_and_not_the_console() -> None:
    with console(free_port()) as terminal:
        terminal.expect(r"\(offline\)> ")
        terminal.type("shut")
        terminal.expect("shut")  # readline reads by now
        time.sleep(0.2)  # and waits: CPython notices a signal that comes just before that at the next key only
        terminal.type("\x03")
        terminal.expect(r"\(offline\)> ")
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


def test_a_server_that_hangs_up_or_is_another_one_is_told() -> None:
    answers = [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"SSH-2.0-OpenSSH_9.6\r\n"]
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for number in itertools.count():
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(4096)
                    # Each answer is given to a command and to the prompt behind it.
                    connection.sendall(answers[number // 2 % len(answers)])

        threading.Thread(target=serve, daemon=True).start()
        with console(server.getsockname()[1]) as terminal:
            terminal.expect(r"\(offline\)> ")
            terminal.type("status\n")
            terminal.expect("no system answers at http://localhost:")
            terminal.expect(r"\(refused\)> ")
            terminal.type("status\n")
            terminal.expect("did not answer as the web API of a system does")
            terminal.expect(r"\(offline\)> ")
            terminal.type("save\n")
            terminal.expect("no system answers at http://localhost:")
            terminal.type("quit\n")
            assert terminal.wait() == 0
        server.shutdown(socket.SHUT_RDWR)


def test_the_token_comes_from_the_environment(tmp_path: Path) -> None:
    token = "correct-horse-battery"
    with launched(tmp_path, web_api_token=token) as system:
        with console(system.port) as terminal:
            terminal.expect(r"statevault \(unauthorized\)> ")
        with console(system.port, STATEVAULT_WEB_API_TOKEN=token) as terminal:
            terminal.expect(r"statevault \(active\)> ")


def test_without_a_terminal_it_reads_commands_from_its_input() -> None:
    run = statevault("console", "--port", str(free_port()))
    assert run.code == 0
    assert "(offline)> " in run.out
