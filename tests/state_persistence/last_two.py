"""A keeper as users write them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from typing_extensions import override

from statevault.state_persistence import StatesKeeper

__all__ = ["LastTwo"]


class LastTwo(StatesKeeper):
    """A keeper of a user's: it forgets what it has selected, as it should."""

    def __init__(self) -> None:
        self._paths: list[Path] = []

    @override
    def append(self, path: Path) -> None:
        self._paths.append(path)

    @override
    def select_removal_states(self) -> Iterable[Path]:
        selected, self._paths = self._paths[:-2], self._paths[-2:]
        return selected
