"""A save of which the first phase is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future

from pydantic import JsonValue
from upath import UPath

from statevault.state_persistence.snapshot.snapshot import Cut

__all__ = ["PreparedSave"]


class PreparedSave:
    """What :meth:`StateStore.prepare_save` returns: to be finished, or discarded, once.

    Args:
        cut: The snapshot in the making.
        finish: Ends it, and publishes it in the background.
        release: Lets others save and load.
    """

    def __init__(
        self,
        cut: Cut,
        *,
        finish: Callable[[Cut, Mapping[str, JsonValue] | None], Future[UPath]],
        release: Callable[[], None],
    ) -> None:
        self._cut: Cut | None = cut
        self._finish = finish
        self._release = release

    def finish(self, *, metadata: Mapping[str, JsonValue] | None = None) -> Future[UPath]:
        """Save what is left of the components, and publish in the background.

        Args:
            metadata: As for :meth:`StateStore.save_state_async`, as is what is returned and raised.

        Raises:
            ValueError: It was finished or discarded before.
        """
        cut, self._cut = self._cut, None
        if cut is None:
            raise ValueError("this save was finished or discarded before")
        try:
            return self._finish(cut, metadata)
        finally:
            self._release()

    def discard(self) -> None:
        """Give it up, unless it is finished."""
        cut, self._cut = self._cut, None
        if cut is not None:
            try:
                cut.discard()
            finally:
                self._release()
