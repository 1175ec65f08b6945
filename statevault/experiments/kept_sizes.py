"""How much room checkpoints take: they share nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate

__all__ = ["KeptSizes"]


@dataclass(frozen=True, slots=True)
class KeptSizes:
    """The :class:`~statevault.state_persistence.retention.Sizes` of files, by name."""

    sizes: Mapping[str, int]

    def together(self, names: Iterable[str]) -> int:
        """Bytes that these need together."""
        return sum(self.sizes[name] for name in set(names))

    def growing(self, names: Iterable[str]) -> Iterator[int]:
        """Bytes that the first of these needs, the first two need together, and so on."""
        return accumulate(self.sizes[name] for name in names)
