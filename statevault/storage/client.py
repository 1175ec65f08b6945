"""The client behind a remote storage: made when first needed, and again when it can't be used any more.

A client holds sockets, perhaps an event loop's thread, and credentials. None of them live in a forked child, and
credentials expire. So nobody keeps the client: everyone asks for it at each call.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from statevault.errors import StorageAccessError, StorageError
from statevault.storage.redaction import Secrets

__all__ = ["Client"]

logger = logging.getLogger(__name__)
_Made = TypeVar("_Made")
_Result = TypeVar("_Result")

# Wrong credentials stay wrong: this keeps every call from connecting twice.
_RENEW_INTERVAL_S = 30.0


class Client(Generic[_Made]):
    """Makes and keeps one client for this process: a filesystem of fsspec, or one of botocore's.

    Args:
        make: Makes a new one, which shares nothing with earlier ones.
        secrets: What its errors may hold, and nobody must see.
    """

    def __init__(self, make: Callable[[], _Made], secrets: Secrets) -> None:
        self._make = make
        self._secrets = secrets
        self._lock = threading.Lock()
        self._current: _Made | None = None
        self._process = 0
        self._made_at = 0.0

    def get(self) -> _Made:
        """The one of this process."""
        if self._process != os.getpid():
            # After a fork. The lock may have been held by a thread that does not exist here.
            self._lock = threading.Lock()
            with self._lock:
                self._current = None
                self._process = os.getpid()
        with self._lock:
            return self._made() if self._current is None else self._current

    def run(self, request: Callable[[_Made], _Result], *, translate: Callable[[Exception], StorageError]) -> _Result:
        """Make one request; once more, with a new client, if its credentials are refused.

        Args:
            request: Makes the request with the client that it is given, and ends some day.
            translate: Makes an error of statevault from any other.

        Raises:
            StorageError: What `translate` made, with the error that it was made of as its cause unless that can't be
                shown; or one that `request` raised itself.
        """
        used = None
        try:
            # Inside: reading the credentials fails in ways of its own.
            used = self.get()
            return request(used)
        except StorageError:
            raise
        except Exception as error:  # noqa: BLE001 - `translate` knows which it is
            failure = translate(error)
            refused = self._secrets.hidden_in(error)
            if used is None or not isinstance(failure, StorageAccessError):
                raise failure from refused
        try:
            fresh = self._renewed(used)
            if fresh is None:
                raise failure from refused
            return request(fresh)
        except StorageError:
            raise
        except Exception as error:  # noqa: BLE001 - see above
            raise translate(error) from self._secrets.hidden_in(error)

    def close(self) -> None:
        """Drop it; its connections are closed with it."""
        with self._lock:
            self._current = None

    def _renewed(self, used: _Made) -> _Made | None:
        """Make a new one, which reads the credentials again.

        Args:
            used: With which a call failed.

        Returns:
            The new one, or the one that another thread has made in the meantime; None if `used` itself is so new
            that another one would fare no better.
        """
        with self._lock:
            if self._current is not used:
                return self._current
            if time.monotonic() - self._made_at < _RENEW_INTERVAL_S:
                return None
            logger.info("Credentials were refused: connecting anew, with credentials read again.")
            return self._made()

    def _made(self) -> _Made:
        self._current = self._make()
        self._made_at = time.monotonic()
        return self._current
