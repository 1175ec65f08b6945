"""The fsspec filesystem behind a remote storage: made when first needed, and again when it can't be used any more.

A filesystem of fsspec holds sockets, an event loop's thread and credentials. None of them live in a forked
child, and credentials expire. So nobody keeps the filesystem: everyone asks for it at each call.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

from fsspec.asyn import sync

from statevault.errors import StorageAccessError, StorageError

__all__ = ["Client"]

logger = logging.getLogger(__name__)
_Result = TypeVar("_Result")

# Wrong credentials stay wrong: this keeps every call from connecting twice.
_RENEW_INTERVAL_S = 30.0


class Client:
    """Makes and keeps one filesystem for this process.

    Args:
        make: Makes a new filesystem, which shares nothing with earlier ones.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._filesystem: Any = None
        self._process = 0
        self._made_at = 0.0

    def filesystem(self) -> Any:
        """The filesystem of this process."""
        if self._process != os.getpid():
            # After a fork. The lock may have been held by a thread that does not exist here.
            self._lock = threading.Lock()
            with self._lock:
                self._filesystem = None
                self._process = os.getpid()
        with self._lock:
            if self._filesystem is None:
                return self._made()
            return self._filesystem

    def run(
        self,
        request: Callable[[Any], Awaitable[_Result]],
        *,
        timeout_s: float | None,
        translate: Callable[[Exception], StorageError],
    ) -> _Result:
        """Run one request on the filesystem's event loop; once more, with a new one, if its credentials are refused.

        Args:
            request: Makes the request with the filesystem that it is given.
            timeout_s: The longest that it may take; None where the sockets' own timeouts have to do.
            translate: Makes an error of statevault from any other.

        Raises:
            StorageError: What `translate` made.
        """
        filesystem = None
        try:
            # Inside: reading the credentials fails in ways of its own.
            filesystem = self.filesystem()
            return cast("_Result", sync(filesystem.loop, request, filesystem, timeout=timeout_s))
        except Exception as error:
            failure = translate(error)
            if filesystem is None or not isinstance(failure, StorageAccessError):
                raise failure from error
            refused = error
        try:
            fresh = self._renewed(filesystem)
            if fresh is None:
                raise failure from refused
            return cast("_Result", sync(fresh.loop, request, fresh, timeout=timeout_s))
        except StorageError:
            raise
        except Exception as error:
            raise translate(error) from error

    def close(self) -> None:
        """Drop the filesystem; its connections are closed with it."""
        with self._lock:
            self._filesystem = None

    def _renewed(self, used: Any) -> Any | None:
        """Make a new filesystem, which reads the credentials again.

        Args:
            used: The filesystem with which a call failed.

        Returns:
            The new one, or the one that another thread has made in the meantime; None if `used` itself is so new
            that another one would fare no better.
        """
        with self._lock:
            if self._filesystem is not used:
                return self._filesystem
            if time.monotonic() - self._made_at < _RENEW_INTERVAL_S:
                return None
            logger.info("Credentials were refused: connecting anew, with credentials read again.")
            return self._made()

    def _made(self) -> Any:
        self._filesystem = self._make()
        self._made_at = time.monotonic()
        return self._filesystem
