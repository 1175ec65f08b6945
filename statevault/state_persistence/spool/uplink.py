"""The remote storage as replication sees it: one that tells how each call went."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from typing_extensions import override

from statevault.errors import ObjectExistsError, ObjectNotFoundError, StorageError
from statevault.storage import Storage, StorageWrapper

__all__ = ["Uplink"]

_Result = TypeVar("_Result")


class Uplink(StorageWrapper):
    """Passes calls on, and tells how each went.

    Args:
        inner: Where the calls go.
        on_failure: Told of each call that failed.
        on_success: Told after each other call.
    """

    def __init__(
        self,
        inner: Storage,
        *,
        on_failure: Callable[[StorageError], None],
        on_success: Callable[[], None],
    ) -> None:
        super().__init__(inner)
        self._on_failure = on_failure
        self._on_success = on_success

    @override
    def _call(self, call: Callable[[], _Result]) -> _Result:
        try:
            result = call()
        except (ObjectNotFoundError, ObjectExistsError):
            self._on_success()  # an answer, and so a sign that the remote is there
            raise
        except StorageError as error:
            self._on_failure(error)
            raise
        self._on_success()
        return result
