"""Parallel work with bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["map_ordered", "run_all"]

T = TypeVar("T")
R = TypeVar("R")


def map_ordered(pool: ThreadPoolExecutor, function: Callable[[T], R], items: Iterable[T], *, ahead: int) -> Iterator[R]:
    """Like ``map`` in a pool, in order, with at most `ahead` results that nobody has taken yet."""
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def run_all(
    pool: ThreadPoolExecutor | Callable[[T], ThreadPoolExecutor], function: Callable[[T], R], items: Iterable[T]
) -> list[R]:
    """Call a function for all items and wait for every call that began.

    Args:
        pool: Where the calls are made, or what chooses that for an item.
        function: What to call.
        items: With what.

    Returns:
        The results, in order.

    Raises:
        Exception: The first that a call raised. Calls that had not begun then are not made.
    """
    choose = (lambda _: pool) if isinstance(pool, ThreadPoolExecutor) else pool
    futures = [choose(item).submit(function, item) for item in items]
    try:
        return [future.result() for future in futures]
    finally:
        for future in futures:
            future.cancel()
        for future in futures:
            if not future.cancelled():
                future.exception()
