"""Trying again what failed for the moment."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from typing_extensions import override

from statevault.errors import StorageError
from statevault.storage.body import is_one_shot
from statevault.storage.descriptors import DESCRIPTORS
from statevault.storage.interface import Body, Storage
from statevault.storage.wrapper import StorageWrapper

__all__ = ["RetryPolicy", "RetryingStorage"]

logger = logging.getLogger(__name__)
_Result = TypeVar("_Result")

# Not the global generator: a program that draws from it must go on with the same numbers, whatever its storage does.
_OWN_RANDOM = random.SystemRandom()


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long to try again: exponential backoff with full jitter, and an end.

    The wait before try *n* + 1 is drawn evenly from 0 to ``min(max_delay_s, first_delay_s * 2**(n - 1))``
    ("full jitter", AWS Architecture Blog, "Exponential Backoff And Jitter", 2015).

    Attributes:
        max_attempts: Tries in all; 1 means none again.
        first_delay_s: The longest wait before the second try.
        max_delay_s: The longest wait before any.
        deadline_s: No try begins later than this after the first one has failed. An upload that fails after
            ten minutes is tried again; a server that is not there is given up soon.
    """

    max_attempts: int = 6
    first_delay_s: float = 0.2
    max_delay_s: float = 5.0
    deadline_s: float = 12.0

    def __post_init__(self) -> None:
        if self.max_attempts < 1 or min(self.first_delay_s, self.max_delay_s, self.deadline_s) < 0:
            raise ValueError(f"A retry policy needs at least one attempt and no negative times, not {self}.")

    def delay_s(self, failed: int, jitter: float) -> float:
        """The wait after `failed` tries, for a `jitter` in [0, 1)."""
        # min() first: 2.0**2000 would overflow.
        return jitter * min(self.max_delay_s, self.first_delay_s * 2.0 ** min(failed - 1, 60))


class RetryingStorage(StorageWrapper):
    """A storage that tries again where the one inside failed with a transient error.

    A put of a one-shot iterator is not tried again, as its bytes are gone.

    Args:
        inner: Where the calls go.
        policy: How often and how long.
        clock: Seconds that only go forward.
        sleep: Waits for seconds.
        jitter: Numbers in [0, 1).
    """

    def __init__(
        self,
        inner: Storage,
        policy: RetryPolicy | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = _OWN_RANDOM.random,
    ) -> None:
        super().__init__(inner)
        self.policy = policy or RetryPolicy()
        self._clock = clock
        self._sleep = sleep
        self._jitter = jitter

    @override
    def put(self, key: str, body: Body, *, create_only: bool = False) -> int:
        if is_one_shot(body):
            return self.inner.put(key, body, create_only=create_only)
        return super().put(key, body, create_only=create_only)

    @override
    def get_into(self, key: str, start: int, target: memoryview) -> None:
        self._call(lambda: self.inner.get_into(key, start, target))

    @override
    def _call(self, call: Callable[[], _Result]) -> _Result:
        failed = 0
        deadline = float("inf")
        while True:
            try:
                return DESCRIPTORS.instead(call)
            except StorageError as error:
                failed += 1
                now = self._clock()
                if failed == 1:
                    deadline = now + self.policy.deadline_s
                delay = self.policy.delay_s(failed, self._jitter())
                if not error.transient or failed >= self.policy.max_attempts or now + delay > deadline:
                    raise
                logger.debug("Try %s failed, next one in %.2f s: %s", failed, delay, error)
                self._sleep(delay)
