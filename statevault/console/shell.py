"""The console: a running system on a command line, through its web API."""

from __future__ import annotations

import cmd
import sys

from typing_extensions import override

from statevault.console.client import WebApiClient
from statevault.console.errors import WebApiError, WebApiUnreachableError
from statevault.console.views import SaveView, SystemView
from statevault.errors import InvalidNameError, StateVaultError
from statevault.format.plain_text import plain

__all__ = ["Console"]


class Console(cmd.Cmd):
    """Reads commands and carries them out, until ``quit`` or the end of the input. Tab completes their names.

    A command that fails is told on stderr, unless a person types: then where the answers are. If nobody does, a system
    that does not answer any more is the end of it.

    Attributes:
        failure: Why the first command failed that did; None while all were carried out.
    """

    # What Cmd prints above its lists.
    doc_header = "Commands (help COMMAND tells more):"

    def __init__(self, client: WebApiClient) -> None:
        """Make a console that uses a client; it does not close it."""
        super().__init__()
        self._client = client
        self.failure: StateVaultError | TimeoutError | None = None
        self.intro = f"statevault console for {client.url}. Type help for the commands."
        self._refresh_prompt()

    def do_status(self, _line: str) -> None:
        """status: how the system is, its last saves, its states."""
        self._print(_system_text(self._client.get_system()))

    def do_pause(self, _line: str) -> None:
        """pause: let the threads stand still at their next step boundary, until resume."""
        self._client.pause()
        self._print("the system will pause")

    def do_resume(self, _line: str) -> None:
        """resume: let the threads go on."""
        self._client.resume()
        self._print("the system will go on")

    def do_save(self, _line: str) -> None:
        """save: save a state and wait until it is committed; Ctrl-C stops waiting, not the save."""
        save = self._client.save()
        self._print("saving …")
        try:
            save = self._client.wait_for_save(save.id)
        except KeyboardInterrupt:
            self._print("the save goes on; status tells how it ended")
            return
        if save.status == "failed":
            raise WebApiError(_save_text(save), code="save_failed")
        self._print(plain(_save_text(save)))

    def do_shutdown(self, _line: str) -> None:
        """shutdown: save the final state and end the system; asks before."""
        try:
            sure = input("Shut the system down? [y/N] ").strip().lower()
        except EOFError:
            raise WebApiError("nothing was done: shutdown wants y in the next line", code="unconfirmed") from None
        if sure in {"y", "yes"}:
            self._client.shutdown()
            self._print("the system shuts down")
        else:
            self._print("nothing was done")

    def do_quit(self, _line: str) -> bool:
        """quit: leave the console; the system runs on."""
        return True

    def do_EOF(self, _line: str) -> bool:  # noqa: N802 - what Cmd calls at the end of the input
        """Ctrl-D: the same as quit."""
        self._print("")
        return True

    @override
    def get_names(self) -> list[str]:
        # The end of the input is no command to list or to complete.
        return [name for name in super().get_names() if name != "do_EOF"]

    @override
    def onecmd(self, line: str) -> bool:
        try:
            return bool(super().onecmd(line))
        except KeyboardInterrupt:
            self._print("")
        except (StateVaultError, TimeoutError) as error:
            self.failure = self.failure or error
            if self._is_typed:
                self._print(plain(str(error)))
                return False
            print(f"statevault: {plain(str(error))}", file=sys.stderr)  # noqa: T201 - the console's output
            return isinstance(error, WebApiUnreachableError)
        return False

    @override
    def cmdloop(self, intro: str | None = None) -> None:
        while True:
            try:
                super().cmdloop(intro)
            except KeyboardInterrupt:
                # Ctrl-C drops the line that is being typed, as in a shell.
                self._print("")
                intro = self.intro = None
            else:
                return

    @override
    def emptyline(self) -> bool:
        # Cmd would repeat the last command.
        return False

    @override
    def default(self, line: str) -> None:
        raise InvalidNameError(f"unknown command {line.split(maxsplit=1)[0]!r}; help lists the commands")

    @override
    def postcmd(self, stop: bool, line: str) -> bool:
        if not stop:
            self._refresh_prompt()
        return stop

    @property
    def _is_typed(self) -> bool:
        return self.stdin.isatty()

    def _refresh_prompt(self) -> None:
        try:
            status: str = self._client.get_status()
        except WebApiUnreachableError:
            status = "offline"
        except WebApiError as error:
            status = error.code or "refused"
        self.prompt = f"statevault ({plain(status)})> "

    def _print(self, text: str) -> None:
        self.stdout.write(f"{text}\n")
        self.stdout.flush()


def _system_text(system: SystemView) -> str:
    ticks, saves, states = system.ticks, system.saves, system.states
    lines = [
        f"{system.status}, up for {system.uptime_s:.0f} s",
        f"steps   {ticks.count}, {ticks.mean_s:.3g} s on average",
        f"saves   {saves.committed} committed, {saves.failed} failed",
        *(f"        {_save_text(save)}" for save in saves.recent),
        f"states  {states.count} in {states.url}" + (f" (as last listed: {states.error})" if states.error else ""),
    ]
    if system.last_pause_error:
        lines.append(f"pauses  {system.pause_timeouts} given up, the last one because {system.last_pause_error}")
    return "\n".join(map(plain, lines))


def _save_text(save: SaveView) -> str:
    if save.status == "failed":
        return f"failed: {save.error}"
    if save.status != "committed" or save.duration_s is None:
        return f"{save.status}, asked for at {save.asked_at:%H:%M:%S} UTC"
    stall = "" if save.stall_s is None else f", the agent stood still for {save.stall_s:.3g} s"
    return f"committed {save.state} in {save.duration_s:.3g} s{stall}"
