"""The options of ``statevault prune`` as one retention policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from fnmatch import fnmatchcase

import typer

from statevault.cli.output import plain, size
from statevault.state_persistence import StateStore
from statevault.state_persistence.retention import (
    Holdings,
    KeepAny,
    KeepBest,
    KeepLatest,
    KeepPeriodic,
    KeepWithin,
    KeepWithinSize,
    RetentionPlan,
    RetentionPolicy,
    Sizes,
    Verdict,
)
from statevault.state_persistence.retention.policies import judged

__all__ = ["PrunePolicy", "check_plan", "keep_rules"]

_PERIODS = ("hourly", "daily", "weekly", "monthly", "yearly")


def keep_rules(
    *,
    last: int | None,
    within: timedelta | None,
    best: int | None,
    metric: str | None,
    lower_is_better: bool,
    **periods: int | None,
) -> list[RetentionPolicy]:
    """One policy for each option that says what to keep.

    Raises:
        typer.BadParameter: An option lacks another one, or has a value that makes no sense.
    """
    if (best is None) != (metric is None):
        raise typer.BadParameter("--keep-best N and --metric NAME go together")
    if lower_is_better and best is None:
        raise typer.BadParameter("--lower-is-better goes with --keep-best")
    rules: list[RetentionPolicy] = []
    try:
        if last is not None:
            rules.append(KeepLatest(last))
        given = {name: count for name in _PERIODS if (count := periods[name]) is not None}
        if given:
            rules.append(KeepPeriodic(**given))
        if within is not None:
            rules.append(KeepWithin(within))
        if best is not None and metric is not None:
            rules.append(KeepBest(best, metric=metric, mode="min" if lower_is_better else "max"))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return rules


@dataclass(slots=True)
class PrunePolicy:
    """Keeps what any rule keeps; of that, with a limit, the newest that fit into it together.

    It remembers what it was shown, for the table.

    Attributes:
        rules: The rules; without any, all states are candidates for the limit.
        max_bytes: The limit.
        sizes: How many bytes the states need that it was shown last.
    """

    rules: list[RetentionPolicy]
    max_bytes: int | None
    sizes: Sizes | None = None
    _too_large: frozenset[str] = frozenset()

    def keep(self, holdings: Holdings) -> Mapping[str, str]:
        """Choose what to keep, and say why."""
        self.sizes = holdings.sizes
        if self.rules:
            chosen = judged(KeepAny(tuple(self.rules)), holdings)
        else:
            chosen = Verdict(dict.fromkeys((state.name for state in holdings.states), ""))
        if self.max_bytes is None:
            return chosen
        candidates = tuple(state for state in holdings.states if state.name in chosen)
        fitting = KeepWithinSize(self.max_bytes).keep(replace(holdings, states=candidates))
        self._too_large = frozenset(chosen) - frozenset(fitting)
        kept = {name: chosen[name] or f"fits into {size(self.max_bytes)}" for name in fitting}
        return Verdict(kept, problems=chosen.problems)

    def why_not(self, state: str) -> str:
        """Why a state goes."""
        if state in self._too_large and self.max_bytes is not None:
            return f"with all newer ones, it does not fit into {size(self.max_bytes)}"
        return "no rule keeps it"


def check_plan(plan: RetentionPlan, store: StateStore, pattern: str) -> None:
    """Refuse a metric or a pattern that fits no state: a typo. Print what else the rules could not judge.

    Raises:
        typer.BadParameter: No state has the metric, or no name matches the pattern.
    """
    for problem in plan.problems:
        if isinstance(problem.policy, KeepBest):
            raise typer.BadParameter(plain(f"--metric: {problem}"))
        typer.echo(f"statevault: {plain(str(problem))}", err=True)
    if not any(fnmatchcase(decision.state.name, pattern) for decision in plan.decisions):
        names = store.names()  # also of damaged states
        if names and not any(fnmatchcase(name, pattern) for name in names):
            raise typer.BadParameter(f"--pattern: no state has a name like {pattern!r}; the newest is {names[-1]!r}")
