"""From a policy to a decision on each state. Some states stay, whatever the policy says.

An agent must be able to go on from its newest state, and one that crashes at each start must not push out the state
from before it did. What people have named or pinned is theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from statevault.state_persistence.info import StateInfo
from statevault.state_persistence.retention.holdings import Holdings
from statevault.state_persistence.retention.policies import RetentionPolicy

__all__ = ["Decision", "RetentionPlan", "plan_retention"]


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to happen to a state.

    Attributes:
        state: The state.
        keep: Whether it stays.
        reasons: Why it stays: the policy's reason first. Empty when it goes.
    """

    state: StateInfo
    keep: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RetentionPlan:
    """What is to happen to all states of a store.

    Attributes:
        decisions: One for each state, oldest first.
    """

    decisions: tuple[Decision, ...]

    @property
    def kept(self) -> tuple[StateInfo, ...]:
        """The states that stay, oldest first."""
        return tuple(decision.state for decision in self.decisions if decision.keep)

    @property
    def removed(self) -> tuple[StateInfo, ...]:
        """The states that go, oldest first."""
        return tuple(decision.state for decision in self.decisions if not decision.keep)


def plan_retention(
    policy: RetentionPolicy,
    holdings: Holdings,
    *,
    pinned: Mapping[str, tuple[str, ...]] = {},
    resumed_from: str | None = None,
    pattern: str = "*.state",
    may_remove_newest: bool = False,
) -> RetentionPlan:
    """Decide which states stay and which go.

    Never removed, and not counted against what the policy keeps: the newest state, the newest that was not saved
    after an error, the pinned ones, the one that the run has resumed from, and those of other names.

    Args:
        policy: The policy.
        holdings: All states of the store.
        pinned: The labels of the pins on each pinned state, by its name. States that are gone are passed over.
        resumed_from: The name of the state that the run has begun with, if any.
        pattern: Glob pattern; states with other names are not shown to the policy.
        may_remove_newest: Do not protect the newest state; the newest that was not saved after an error stays all
            the same.

    Raises:
        ValueError: The policy wants to keep a state that it was not shown: with a name misspelt, another one would go.
    """
    matching = tuple(state for state in holdings.states if fnmatchcase(state.name, pattern))
    chosen = policy.keep(replace(holdings, states=matching))
    unknown = set(chosen) - {state.name for state in matching}
    if unknown:
        raise ValueError(f"{policy!r} keeps {sorted(unknown)}, which it was not shown; it must return names of states")
    reasons: dict[str, list[str]] = {state.name: [] for state in holdings.states}
    for name, reason in chosen.items():
        reasons[name].append(reason)
    for name, reason in _protections(
        holdings.states, pinned=pinned, resumed_from=resumed_from, pattern=pattern, may_remove_newest=may_remove_newest
    ):
        if name in reasons and reason not in reasons[name]:
            reasons[name].append(reason)
    return RetentionPlan(
        tuple(Decision(state, bool(reasons[state.name]), tuple(reasons[state.name])) for state in holdings.states)
    )


def _protections(
    states: tuple[StateInfo, ...],
    *,
    pinned: Mapping[str, tuple[str, ...]],
    resumed_from: str | None,
    pattern: str,
    may_remove_newest: bool,
) -> Iterator[tuple[str, str]]:
    """Names of states that stay whatever the policy says, each with a reason."""
    newest = None if may_remove_newest else next(reversed(states), None)
    if newest is not None:
        yield newest.name, "the newest"
    clean = next((state for state in reversed(states) if not state.is_after_error), None)
    if clean is not None and clean is not newest:
        yield clean.name, "the newest that was not saved after an error"
    for name, labels in pinned.items():
        yield from ((name, f"pinned as {label!r}") for label in labels)
        if not labels:
            yield name, "pinned"
    if resumed_from is not None:
        yield resumed_from, "the run has resumed from it"
    for state in states:
        if not fnmatchcase(state.name, pattern):
            yield state.name, f"its name does not match {pattern!r}"
