"""The story of the demo, told as it happens.

Act one: a process learns and saves. When a save has begun and is not committed, it is killed. Act two: the store is
checked. Act three: another process resumes, compares its memory with that of the one that was killed, and learns on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from statevault.demo.process import Worker
from statevault.errors import StateVaultError
from statevault.format.keys import SESSIONS
from statevault.state_persistence import StateInfo, StateStore
from statevault.state_persistence.records.catalog import Catalog
from statevault.storage import Storage, open_storage

__all__ = ["DemoFailedError", "Director"]

_SAVE_EVERY_S = 3.0
_KEEP = 5
_STATES_BEFORE_THE_KILL = 3
_TRIES_TO_HIT_A_SAVE = 3
_LOOK_FOR_A_SAVE_EVERY_S = 0.001
_START_TIMEOUT_S = 60.0
_CLOCK_TOLERANCE_S = 30.0
_ASK_EVERY_S = 0.5


class DemoFailedError(StateVaultError):
    """Something was not as it was saved."""


@dataclass(frozen=True, slots=True)
class _Killed:
    """What the killed process was doing."""

    pid: int
    saving: str
    progress: Mapping[str, Any]


class Director:
    """Runs the demo.

    Args:
        states: The store: a path or a URL.
        storage_options: For its filesystem.
        console: Where to tell the story.
        act_s: Seconds that each of the two processes learns, at least.
        states_table: Makes a table of states.
    """

    def __init__(
        self,
        states: str,
        storage_options: Mapping[str, Any] | None,
        console: Console,
        *,
        act_s: float,
        states_table: Callable[[list[StateInfo]], Table],
    ) -> None:
        self._states = states
        self._options = dict(storage_options or {})
        self._console = console
        self._act_s = act_s
        self._states_table = states_table
        self._storage: Storage = open_storage(states, self._options)
        self._catalog = Catalog(self._storage)

    def run(self) -> None:
        """Tell the whole story.

        Raises:
            DemoFailedError: The resumed agent is not the saved one, or a visible state does not verify.
            StateVaultError: A process ended, or the storage failed.
        """
        with StateStore(self._storage) as store:
            self._say(f"An agent learns CartPole with a small DQN and saves itself to [bold]{store.url}[/]")
            before = store.states()
            if before:
                self._say(f"It goes on from the newest of {len(before)} states that an earlier run left there.")
            killed = self._learn_until_killed()
            newest = self._look_at_the_store(store, killed)
            after = self._resume(newest, killed)
            self._console.print()
            self._console.print(self._states_table(store.states()))
            self._console.print()
            self._say(
                f"Reward (mean of the latest 20 episodes): [bold]{killed.progress['reward']:.0f}[/] before the kill, "
                f"[bold]{after['reward']:.0f}[/] at the end, after {after['steps']} steps in two processes."
            )

    # -- act one

    def _learn_until_killed(self) -> _Killed:
        for _ in range(_TRIES_TO_HIT_A_SAVE):
            with Worker(self._arguments()) as worker:
                self._say(
                    f"\n[bold]1.[/] Process {worker.pid} learns in real time and saves every {_SAVE_EVERY_S:.0f} s."
                )
                first = self._catalog.listing().last_sequence
                began = time.monotonic()

                def long_enough() -> bool:
                    saved = self._catalog.listing().last_sequence - first  # noqa: B023 - called in this round only
                    return time.monotonic() - began >= self._act_s and saved >= _STATES_BEFORE_THE_KILL  # noqa: B023

                progress = self._watch(worker, long_enough)
                saving = self._wait_for_a_save(worker)
                worker.kill()
            if saving not in {key.state for key in self._catalog.listing().commits}:
                self._say(f"   [bold red]kill -9[/] {worker.pid}, in the middle of saving {saving}")
                return _Killed(worker.pid, saving, progress)
            self._say(f"   kill -9 {worker.pid} came just after {saving} was committed; once more")
        raise DemoFailedError(f"no save was slow enough to be killed in {_TRIES_TO_HIT_A_SAVE} tries")

    def _wait_for_a_save(self, worker: Worker) -> str:
        """Wait until a save has begun that is not committed; its name."""
        known = {info.key for info in self._storage.list(SESSIONS)}
        deadline = time.monotonic() + 20 * _SAVE_EVERY_S
        while time.monotonic() < deadline:
            for info in self._storage.list(SESSIONS):
                if info.key not in known:
                    return info.key.removeprefix(SESSIONS)
            time.sleep(_LOOK_FOR_A_SAVE_EVERY_S)
            while worker.next_event(0.0001) is not None:
                pass
        raise DemoFailedError(f"process {worker.pid} began no save in {20 * _SAVE_EVERY_S:.0f} s")

    # -- act two

    def _look_at_the_store(self, store: StateStore, killed: _Killed) -> StateInfo:
        self._say("\n[bold]2.[/] What the store holds now:")
        infos = store.states()
        self._console.print(self._states_table(infos))
        if killed.saving in {info.name for info in infos}:
            raise DemoFailedError(f"{killed.saving} was cut off and is visible")
        for info in infos:
            store.verify(info.name)
        total = sum(info.size for info in infos)
        self._say(
            f"   {len(infos)} states verified, every byte of {total / 1e6:.1f} MB against its digest. "
            f"The one that was cut off has no commit marker: nobody sees it."
        )
        return infos[-1]

    # -- act three

    def _resume(self, newest: StateInfo, killed: _Killed) -> Mapping[str, Any]:
        with Worker(self._arguments()) as worker:
            self._say(f"\n[bold]3.[/] Process {worker.pid} resumes from the newest state, {newest.name}.")
            resumed = self._wait_for_the_resume(worker)
            self._compare(resumed, killed)
            began = time.monotonic()
            progress = self._watch(worker, lambda: time.monotonic() - began >= self._act_s)
            code = worker.stop()
            self._say(f"   SIGTERM: it saved its final state and ended with exit code {code}.")
        if code != 0:
            raise DemoFailedError(f"the resumed process ended with exit code {code}")
        return progress

    def _wait_for_the_resume(self, worker: Worker) -> Mapping[str, Any]:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline:
            event = worker.next_event(1.0)
            if event is not None and event["event"] == "started":
                raise DemoFailedError("the second process did not find the state of the first one")
            if event is not None and event["event"] == "resumed":
                return event
        raise DemoFailedError(f"the second process did not start within {_START_TIMEOUT_S:.0f} s")

    def _compare(self, resumed: Mapping[str, Any], killed: _Killed) -> None:
        saved, loaded = resumed["saved"], resumed["loaded"]
        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in ("", "in the killed process", "in this process", ""):
            table.add_column(heading)
        for part, digest in saved.items():
            equal = loaded.get(part) == digest
            verdict = Text("bit-equal", "green") if equal else Text("DIFFERENT", "bold red")
            table.add_row(f"   {part}", digest[:16], str(loaded.get(part))[:16], verdict)
        # The clock stood still while nobody ran: it reads less than when the process was killed, not hours more.
        lag = killed.progress["clock"] - resumed["clock"]
        clock_ok = -_CLOCK_TOLERANCE_S <= lag <= _CLOCK_TOLERANCE_S * 10
        table.add_row(
            "   clock",
            f"{killed.progress['clock']:.2f}",
            f"{resumed['clock']:.2f}",
            Text("goes on", "green") if clock_ok else Text("JUMPED", "bold red"),
        )
        self._console.print(table)
        if saved != loaded or not clock_ok:
            raise DemoFailedError("the resumed agent is not the one that was saved")

    # -- telling

    def _watch(self, worker: Worker, is_over: Callable[[], bool]) -> Mapping[str, Any]:
        """Show how a worker learns, in one live line, until it is over; its last progress."""
        progress: dict[str, Any] | None = None
        deadline = time.monotonic() + _START_TIMEOUT_S + 10 * self._act_s
        looked_at = 0.0
        with Live(Text("   starting …"), console=self._console, auto_refresh=False) as live:
            while time.monotonic() < deadline:
                event = worker.next_event(0.2)
                if event is not None and event["event"] == "progress":
                    progress = event
                    live.update(_line(event), refresh=self._console.is_terminal)
                if progress is not None and time.monotonic() - looked_at > _ASK_EVERY_S:
                    looked_at = time.monotonic()
                    if is_over():
                        live.update(_line(progress))
                        break
            else:
                raise DemoFailedError(f"process {worker.pid} did not get going")
        if not self._console.is_terminal:
            self._console.print()  # a live line ends without a line feed where nothing can be redrawn
        return progress

    def _say(self, text: str) -> None:
        self._console.print(text, markup=True, soft_wrap=not self._console.is_terminal, highlight=False)

    def _arguments(self) -> dict[str, Any]:
        return {
            "states": self._states,
            "storage_options": self._options or None,
            "save_every": _SAVE_EVERY_S,
            "keep": _KEEP,
        }


def _line(progress: Mapping[str, Any]) -> Text:
    bar = "█" * round(min(progress["reward"], 500) / 500 * 30)
    return Text.assemble(
        f"   step {progress['steps']:>6}  episode {progress['episodes']:>4}  updates {progress['updates']:>6}  "
        f"reward {progress['reward']:>5.0f} ",
        (bar, "cyan"),
    )
