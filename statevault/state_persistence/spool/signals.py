"""What the threads of a process tell the one that replicates, and how they wait for each other.

There is news: something may be to be done. Somebody is in a hurry: what failed is to be tried now. It is over: stop.
Nobody waits for longer than until what is waited for is told, also if it was told just before the wait began.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

__all__ = ["Heard", "Signals"]

_LOOK_AGAIN_S = 0.2
"""What is waited for may also become true in another process."""


class Heard(NamedTuple):
    """What had been told at one moment.

    Attributes:
        news: How often there had been news.
        hurries: How often somebody had been in a hurry.
    """

    news: int
    hurries: int


class Signals:
    """The signals of one replication. All methods may be called from any thread.

    Attributes:
        is_stopping: Whether it is over.
    """

    def __init__(self) -> None:
        self.start_anew()

    def start_anew(self) -> None:
        """In a forked child: forget all, and what a thread of the parent may have held."""
        self._changed = threading.Condition()
        self._heard = Heard(0, 0)
        self._at_failure = threading.local()
        self.is_stopping = False

    @property
    def heard(self) -> Heard:
        """What has been told until now."""
        return self._heard

    def has_changed(self) -> None:
        """What somebody waits for by :meth:`wait_for` may have become true."""
        with self._changed:
            self._changed.notify_all()

    def tell_news(self) -> None:
        """There is something to do, or may be."""
        with self._changed:
            self._heard = self._heard._replace(news=self._heard.news + 1)
            self._changed.notify_all()

    def hurry(self) -> None:
        """What waits to be tried again is to be tried now."""
        with self._changed:
            self._heard = self._heard._replace(hurries=self._heard.hurries + 1)
            self._changed.notify_all()

    def stop(self) -> None:
        """It is over."""
        with self._changed:
            self.is_stopping = True
            self._changed.notify_all()

    def rest(self, seconds: float, since: Heard, *, for_hurry_only: bool) -> None:
        """Wait until something has been told, or time has passed.

        Args:
            seconds: For how long at most.
            since: What counts is told after this.
            for_hurry_only: Whether news changes nothing.
        """

        def is_over() -> bool:
            heard = self._heard if not for_hurry_only else self._heard._replace(news=since.news)
            return self.is_stopping or heard != since

        with self._changed:
            self._changed.wait_for(is_over, seconds)

    def wait_for(self, holds: Callable[[], bool], seconds: float) -> bool:
        """Wait until something holds; returns whether it does, which it need not when it is over."""
        ends_at = time.monotonic() + seconds
        while not holds():
            left_s = ends_at - time.monotonic()
            if left_s <= 0 or self.is_stopping:
                return False
            with self._changed:
                self._changed.wait(min(left_s, _LOOK_AGAIN_S))
        return True

    def sleep(self, seconds: float) -> None:
        """Sleep, unless it is over."""
        with self._changed:
            self._changed.wait_for(lambda: self.is_stopping, seconds)

    def note_failed_call(self) -> None:
        """A call of this thread failed: who is in a hurry from now on does not want it to wait."""
        self._at_failure.hurries = self._heard.hurries

    def sleep_before_retry(self, seconds: float) -> None:
        """Sleep, unless it is over, or somebody is in a hurry, or has been since the call failed."""
        with self._changed:
            hurries = getattr(self._at_failure, "hurries", self._heard.hurries)
            self._changed.wait_for(lambda: self.is_stopping or self._heard.hurries != hurries, seconds)
