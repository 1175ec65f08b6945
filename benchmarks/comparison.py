"""What a contest of methods has shown: rows of figures, and how far each is from the best peer and the bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.measure import Spread

__all__ = ["Comparison", "Standing"]


@dataclass(frozen=True, slots=True)
class Standing:
    """One method in one action.

    Attributes:
        workload: What was saved.
        where: On which storage.
        action: What was done.
        method: By what.
        figures: Spreads by name; empty if there is a `problem`.
        size_mb: Bytes that the action moves for its user, in MB; None where a rate means nothing.
        guarantees: What a save promises once it has returned.
        is_ours: Whether it is statevault.
        is_limit: Whether it is a bound and no way to keep a state.
        problem: Why there are no figures.
    """

    workload: str
    where: str
    action: str
    method: str
    figures: dict[str, Spread] = field(default_factory=dict)
    size_mb: float | None = None
    guarantees: str = ""
    is_ours: bool = False
    is_limit: bool = False
    problem: str = ""

    @property
    def mb_per_s(self) -> Spread | None:
        """The rate, where there is one."""
        seconds, size = self.figures.get("seconds"), self.size_mb
        return None if seconds is None or size is None else seconds.map(lambda s: size / s if s else 0.0)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What one section measured.

    Attributes:
        name: Of the section's module.
        title: What it is about.
        figure: The name of the figure that the ratios are of; the smaller the better.
        rows: All methods in all actions.
        notes: What one must know to read the figures.
    """

    name: str
    title: str
    rows: Sequence[Standing]
    figure: str = "seconds"
    notes: Sequence[str] = ()

    def groups(self) -> list[list[Standing]]:
        """Return the rows that stand beside each other: of one workload, storage and action, in order."""
        grouped: dict[tuple[str, str, str], list[Standing]] = {}
        for row in self.rows:
            grouped.setdefault((row.workload, row.where, row.action), []).append(row)
        return list(grouped.values())

    def against_best_peer(self, row: Standing) -> float | None:
        """Return how many times as good as the best peer a method is: above 1, it is better."""
        return self._ratio(row, [other for other in self._beside(row) if not (other.is_ours or other.is_limit)])

    def against_limit(self, row: Standing) -> float | None:
        """Return the share of what the best bound reaches."""
        return self._ratio(row, [other for other in self._beside(row) if other.is_limit])

    def _beside(self, row: Standing) -> list[Standing]:
        key = (row.workload, row.where, row.action)
        return [other for other in self.rows if (other.workload, other.where, other.action) == key and other != row]

    def _ratio(self, row: Standing, others: list[Standing]) -> float | None:
        mine = row.figures.get(self.figure)
        theirs = [other.figures[self.figure].median for other in others if self.figure in other.figures]
        if mine is None or not theirs or mine.median <= 0 or min(theirs) <= 0:
            return None
        return min(theirs) / mine.median
