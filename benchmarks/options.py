"""How the comparisons of storage are run."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.grounds import Grounds
from benchmarks.measure import Effort

__all__ = ["Options"]


@dataclass(frozen=True, slots=True)
class Options:
    """What each section is told.

    Attributes:
        grounds: Where it takes place.
        effort: How large it is.
        runs: How many times each method is timed.
        like: Only workloads with this in their name (of `link`: in that of the workload and the link), where a section
            has several.
    """

    grounds: Grounds
    effort: Effort
    runs: int
    like: str = ""
