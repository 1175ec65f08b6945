"""The agent's clock: a clock that pauses, runs at another speed, and is saved with the agent.

All readings derive from one number, the *elapsed* agent seconds, which grows with the system's monotonic
clock times the scale and stands still in a pause. Jumps of the wall clock do not reach the agent. Invariants:

* Elapsed time never goes back, and is continuous across a pause, a resume and a change of scale.
* A sleep ends at an elapsed time, so that a pause or a change of scale in its midst moves its end.
* Loading a state moves what the clocks show, never the elapsed time: sleeps under way are not disturbed.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from typing_extensions import override

from statevault.errors import FormatError
from statevault.state_persistence import PersistentStateMixin, load_pickle, read_tree, write_tree

__all__ = ["TimeController"]

# An idle sleeper wakes this often although nothing happened: no wait is unbounded, whatever is missed.
_LONGEST_WAIT_S = 60.0
_FOREIGN_PREFIX = "scaled_anchor_"
"""What PAMIQ-Core puts before the names of the clocks in its ``time.pkl``."""


class TimeController(PersistentStateMixin):
    """A clock with a scale and a pause, safe to use from any thread."""

    def __init__(self, *, real_time: Callable[[], float] = time.perf_counter) -> None:
        """Make a clock that shows the time of the system.

        Args:
            real_time: Seconds since any fixed instant; never goes back.
        """
        self._real_time = real_time
        self._changed = threading.Condition()
        self._scale = 1.0
        self._paused = False
        self._interrupted = False
        self._anchor_real = real_time()
        self._anchor_elapsed = 0.0
        self._offsets = {
            "time": time.time(),
            "perf_counter": time.perf_counter(),
            "monotonic": time.monotonic(),
        }

    def time(self) -> float:
        """Agent seconds since the epoch: the wall clock until the clock is paused, scaled or loaded."""
        return self._read("time")

    def perf_counter(self) -> float:
        """Agent seconds since an arbitrary instant, for measuring durations."""
        return self._read("perf_counter")

    def monotonic(self) -> float:
        """Agent seconds since an arbitrary instant; like :meth:`perf_counter`, never goes back."""
        return self._read("monotonic")

    def sleep(self, seconds: float) -> bool:
        """Sleep for a duration on the agent's clock.

        The sleep spans pauses and changes of scale correctly. No lock is held meanwhile.

        Args:
            seconds: Agent seconds, at least 0.

        Returns:
            Whether it slept to the end: False when :meth:`interrupt_sleeps` ended it.

        Raises:
            ValueError: `seconds` is negative or not a number.
        """
        if not seconds >= 0:
            raise ValueError(f"a sleep lasts 0 seconds or more, not {seconds!r}")
        with self._changed:
            end = self._elapsed() + seconds
            while not self._interrupted:
                remaining = end - self._elapsed()
                if remaining <= 0:
                    return True
                # In a pause the clock stands still: only a notification can bring the end nearer.
                timeout = _LONGEST_WAIT_S if self._paused else min(remaining / self._scale, _LONGEST_WAIT_S)
                self._changed.wait(timeout)
            return False

    def interrupt_sleeps(self) -> None:
        """End all sleeps, and each later one at once, until :meth:`allow_sleeps`: the system shuts down."""
        with self._changed:
            self._interrupted = True
            self._changed.notify_all()

    def allow_sleeps(self) -> None:
        """Let sleeps last again."""
        with self._changed:
            self._interrupted = False

    def pause(self) -> None:
        """Stop the clock. Nothing happens when it stands already."""
        with self._changed:
            self._anchor()
            self._paused = True
            self._changed.notify_all()

    def resume(self) -> None:
        """Let the clock go on from where it stopped. Nothing happens when it runs already."""
        with self._changed:
            self._anchor()
            self._paused = False
            self._changed.notify_all()

    def is_paused(self) -> bool:
        """Whether the clock stands still."""
        with self._changed:
            return self._paused

    def set_time_scale(self, scale: float) -> None:
        """Set how many agent seconds pass in one real second.

        Raises:
            ValueError: `scale` is not a positive, finite number.
        """
        if not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"a time scale is a positive, finite number, not {scale!r}")
        with self._changed:
            self._anchor()
            self._scale = float(scale)
            self._changed.notify_all()

    def get_time_scale(self) -> float:
        """How many agent seconds pass in one real second."""
        with self._changed:
            return self._scale

    def state_dict(self) -> dict[str, float]:
        """What the clocks show now, all at the same instant."""
        with self._changed:
            elapsed = self._elapsed()
            return {name: offset + elapsed for name, offset in self._offsets.items()}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Let the clocks go on from what they showed when :meth:`state_dict` was called.

        Scale and pause stay as they are: they belong to the run, not to the agent.

        Raises:
            FormatError: `state` does not hold a number for each clock.
        """
        with self._changed:
            elapsed = self._elapsed()
            offsets = {}
            for name in self._offsets:
                shown = state.get(name)
                if not isinstance(shown, (int, float)) or not math.isfinite(shown):
                    raise FormatError(f"the state of the clock holds {shown!r} for {name!r}, not a number")
                offsets[name] = shown - elapsed
            self._offsets = offsets

    @override
    def save_state(self, path: Path) -> None:
        """Save what the clocks show as the file `path` + ``.tree``."""
        write_tree(self.state_dict(), path.with_name(path.name + ".tree"))

    @override
    def load_state(self, path: Path) -> None:
        """Let the clocks go on where the saved ones stood.

        A pickle that PAMIQ-Core wrote (`path` + ``.pkl``) is read where pickles are allowed.

        Raises:
            FileNotFoundError: No clock was saved under `path`.
            FormatError: The file does not hold the state of a clock.
            PickleNotAllowedError: It is a pickle, and the store takes none.
        """
        file = path.with_name(path.name + ".tree")
        pickle_file = path.with_name(path.name + ".pkl")
        foreign = pickle_file.exists() and not file.exists()
        state = load_pickle(pickle_file) if foreign else read_tree(file)
        if not isinstance(state, dict):
            raise FormatError(f"{pickle_file if foreign else file} holds no state of a clock: a {type(state).__name__}")
        if foreign:
            state = {name: state.get(_FOREIGN_PREFIX + name) for name in self._offsets}
        self.load_state_dict(state)

    def _read(self, clock: str) -> float:
        with self._changed:
            return self._offsets[clock] + self._elapsed()

    def _elapsed(self) -> float:
        if self._paused:
            return self._anchor_elapsed
        return self._anchor_elapsed + (self._real_time() - self._anchor_real) * self._scale

    def _anchor(self) -> None:
        # One reading of the system's clock for both anchors: two would lose the time between them.
        now = self._real_time()
        if not self._paused:
            self._anchor_elapsed += (now - self._anchor_real) * self._scale
        self._anchor_real = now
