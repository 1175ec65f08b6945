"""One method, once: in a process of its own, so that memory, CPU time and warm caches are its own."""

from __future__ import annotations

import importlib
import importlib.util
import multiprocessing
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.grounds import Grounds
from benchmarks.traffic import Traffic
from benchmarks.usage import MemoryWatch, Timing, timed

__all__ = ["Contender", "Recorder", "Trial", "TrialError", "run_trial"]

_LIMIT_S = 1800.0
_MB = 1e6

Trial = dict[str, dict[str, float]]
"""The figures of each action, by the names of both. ``seconds``, ``cpu_s`` and ``peak_mb`` are measured of each;
``sent_mb``, ``received_mb`` and ``requests`` where the proxy counts."""


class TrialError(RuntimeError):
    """A method failed; the message holds the traceback from its process."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A method by name; its module is imported in the processes that measure it, and nowhere else.

    Attributes:
        label: For the tables.
        module: The module below :mod:`benchmarks.methods`.
        name: The class in it.
        needs: Packages without which it can't be measured.
        guarantees: What its saves promise once they have returned.
        is_ours: Whether it is statevault.
        is_limit: Whether it is a bound and no way to keep a state.
    """

    label: str
    module: str
    name: str
    needs: Sequence[str] = ()
    guarantees: str = ""
    is_ours: bool = False
    is_limit: bool = False

    @property
    def missing(self) -> str | None:
        """The name of a package that is needed and not installed."""
        return next((name for name in self.needs if importlib.util.find_spec(name) is None), None)

    def load(self) -> Any:
        """Import the class."""
        return getattr(importlib.import_module(f"benchmarks.methods.{self.module}"), self.name)


class Recorder:
    """Given to what runs in the process.

    Args:
        connection: To the process that wants to know.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def measure(self, action: str, perform: Callable[[], Any]) -> None:
        """Perform an action once and report what it cost."""
        self._connection.send(("begin", action, None))
        self._connection.recv()
        time.sleep(0.05)  # for the watch to see the memory before
        self._connection.send(("end", action, timed(perform)))

    def note(self, action: str, **figures: float) -> None:
        """Report figures that the process has measured itself."""
        self._connection.send(("note", action, figures))


def run_trial(grounds: Grounds, function: Callable[..., None], *args: Any, counted: bool = False) -> Trial:
    """Run a function in a new process.

    Args:
        grounds: Whose proxy counts.
        function: Of a module; called with a :class:`Recorder` and `args`.
        args: More arguments.
        counted: Whether what goes through the proxy is part of the figures.

    Raises:
        TrialError: The function failed, or the process died.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.preloaded"])
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, function, args), daemon=True)
    process.start()
    there.close()
    found: Trial = {}
    timings: dict[str, Timing] = {}
    watch = MemoryWatch()
    before = Traffic()
    failure = None
    with watch.on(process.pid or 0):
        while True:
            if not here.poll(_LIMIT_S):
                process.kill()
                raise TrialError(f"{function.__name__} did not end within {_LIMIT_S:.0f} s")
            try:
                kind, action, value = here.recv()
            except EOFError:
                process.join()
                raise TrialError(f"{function.__name__} died with exit code {process.exitcode}") from None
            if kind == "begin":
                before = grounds.traffic.copy()
                here.send(None)
            elif kind == "end":
                timings[action] = value
                found[action] = {"seconds": value.ended - value.began, "cpu_s": value.cpu_s}
                if counted:
                    went = grounds.traffic.since(before)
                    found[action] |= {
                        "sent_mb": went.sent_bytes / _MB,
                        "received_mb": went.received_bytes / _MB,
                        "requests": went.requests.total(),
                    }
            elif kind == "note":
                found.setdefault(action, {}).update(value)
            else:
                failure = value
                break
    process.join()
    if failure is not None:
        raise TrialError(f"{function.__name__} failed:\n{failure}")
    for action, timing in timings.items():
        found[action]["peak_mb"] = watch.growth(timing) / _MB
    return found


def _serve(connection: Connection, function: Callable[..., None], args: tuple[Any, ...]) -> None:
    try:
        function(Recorder(connection), *args)
    except BaseException:  # noqa: BLE001 - it is raised in the parent
        connection.send(("done", "", traceback.format_exc()))
    else:
        connection.send(("done", "", None))
