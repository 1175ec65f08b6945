"""From a policy to a decision on each state. Some states stay, whatever the policy says.

An agent must be able to go on from its newest state, and one that crashes at each start must not push out the state
from before it did. What people have named or pinned is theirs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from statevault.state_persistence.info import StateInfo
from statevault.state_persistence.retention.holdings import Holdings
from statevault.state_persistence.retention.policies import CannotJudge, RetentionPolicy, judged

__all__ = ["Decision", "RetentionPlan", "plan_retention", "protections"]


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
        problems: Why a policy could judge none of the states, such as a metric that no state has. What it might have
            kept stays.
    """

    decisions: tuple[Decision, ...]
    problems: tuple[CannotJudge, ...] = ()

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

    Never removed, beside what the policy keeps: the newest state, the newest that was not saved
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
        TypeError: What the policy returns is no mapping of names to reasons.
        ValueError: The policy wants to keep a state that it was not shown: with a name misspelt, another one would go.
    """
    matching = tuple(state for state in holdings.states if fnmatchcase(state.name, pattern))
    verdict = judged(policy, replace(holdings, states=matching))
    reasons: dict[str, list[str]] = {state.name: [] for state in holdings.states}
    for name, reason in verdict.items():
        reasons[name].append(reason)
    protected = protections(
        reversed(holdings.states), pinned=pinned, resumed_from=resumed_from, may_remove_newest=may_remove_newest
    )
    for name, given in protected.items():
        if name in reasons:
            reasons[name] += [reason for reason in given if reason not in reasons[name]]
    for state in holdings.states:
        if not fnmatchcase(state.name, pattern):
            reasons[state.name].append(f"its name does not match {pattern!r}")
    return RetentionPlan(
        tuple(Decision(state, bool(reasons[state.name]), tuple(reasons[state.name])) for state in holdings.states),
        verdict.problems,
    )


def protections(
    newest_first: Iterable[StateInfo],
    *,
    pinned: Mapping[str, tuple[str, ...]],
    resumed_from: str | None = None,
    may_remove_newest: bool = False,
) -> dict[str, tuple[str, ...]]:
    """Say which states stay, whoever wants to remove them, and why.

    Args:
        newest_first: The states of the store; no more of them are taken than are needed.
        pinned: As for :func:`plan_retention`.
        resumed_from: As for :func:`plan_retention`.
        may_remove_newest: As for :func:`plan_retention`.

    Returns:
        The reasons by name; some of the names may be of states that are gone.
    """
    reasons: dict[str, list[str]] = defaultdict(list)
    for count, state in enumerate(newest_first):
        if count == 0 and not may_remove_newest:
            reasons[state.name].append("the newest")
        if not state.is_after_error:
            if state.name not in reasons:
                reasons[state.name].append("the newest that was not saved after an error")
            break
    for name, labels in pinned.items():
        reasons[name] += [f"pinned as {label!r}" for label in labels] or ["pinned"]
    if resumed_from is not None:
        reasons[resumed_from].append("the run has resumed from it")
    return {name: tuple(given) for name, given in reasons.items()}
