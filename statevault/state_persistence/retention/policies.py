"""What a retention policy is and what it answers, and those that go by the order and the sizes of states."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from types import MappingProxyType
from typing import Protocol, Self, runtime_checkable

from statevault.state_persistence.retention.holdings import Holdings
from statevault.state_persistence.whole_numbers import whole_number

__all__ = ["CannotJudge", "KeepLatest", "KeepWithinSize", "RetentionPolicy", "Verdict", "judged"]

_NONE: Mapping[str, str] = MappingProxyType({})


@runtime_checkable
class RetentionPolicy(Protocol):
    """Chooses the states to keep. A pure function: it looks at nothing but the holdings, and changes nothing."""

    def keep(self, holdings: Holdings) -> Mapping[str, str]:
        """Choose the states to keep.

        Args:
            holdings: The states to choose from.

        Returns:
            The reason to keep each, by name. States that are not in it have no reason to stay. A policy that can't
            judge says so with a :class:`Verdict`.
        """


@dataclass(frozen=True, slots=True)
class CannotJudge:
    """Why a policy could not judge a single state.

    Attributes:
        policy: The policy.
        why: What it lacks. The same words as long as nothing changes: a keeper logs each problem once.
        hint: What may help.
    """

    policy: RetentionPolicy = field(compare=False)
    why: str
    hint: str = field(default="", compare=False)

    def __str__(self) -> str:
        return f"{self.why}. {self.hint}" if self.hint else self.why


class Verdict(dict[str, str]):
    """What a policy answers: the reason to keep each state, by name, and which states it can't judge.

    Unjudged states are in the mapping too, so that code which only reads the mapping removes none of them. Policies
    combine by three-valued logic: :class:`KeepAny` removes a state that all of its policies are certain to remove,
    :class:`KeepAll` one that any of them is.

    Args:
        kept: The reason to keep each state, by name.
        unjudged: Why others could not be judged, by name.
        problems: Why a policy could judge none of the states.

    Attributes:
        unjudged: The names of the states that are in it only because they could not be judged.
        problems: As given, each once.
    """

    __slots__ = ("problems", "unjudged")

    def __init__(
        self, kept: Mapping[str, str] = _NONE, unjudged: Mapping[str, str] = _NONE, problems: Iterable[CannotJudge] = ()
    ) -> None:
        super().__init__({**unjudged, **kept})
        self.unjudged = frozenset(unjudged) - kept.keys()
        self.problems = tuple(dict.fromkeys(problems))

    @classmethod
    def cannot_judge(cls, policy: RetentionPolicy, holdings: Holdings, why: str, hint: str = "") -> Self:
        """The verdict of a policy that can't judge any state: all of them stay.

        Args:
            policy: The policy.
            holdings: The states that it was shown.
            why: What it lacks.
            hint: What may help.
        """
        reasons = {state.name: f"can't be judged: {why}" for state in holdings.states}
        return cls(unjudged=reasons, problems=[CannotJudge(policy, why, hint)] if reasons else ())


def judged(policy: RetentionPolicy, holdings: Holdings) -> Verdict:
    """Ask a policy, and check its answer.

    Raises:
        TypeError: Its answer is no mapping of names to reasons.
        ValueError: It wants to keep a state that it was not shown: with a name misspelt, another one would go.
    """
    answer: object = policy.keep(holdings)
    if not isinstance(answer, Mapping) or not all(isinstance(reason, str) for reason in answer.values()):
        raise TypeError(
            f"{type(policy).__name__}.keep() must return the reason to keep each state, by name, not {answer!r:.200}"
        )
    unknown = answer.keys() - {state.name for state in holdings.states}
    if unknown:
        raise ValueError(
            f"{policy!r} keeps {sorted(unknown, key=str)}, which it was not shown; it must return names of states"
        )
    return answer if isinstance(answer, Verdict) else Verdict(answer)


@dataclass(frozen=True, slots=True)
class KeepLatest:
    """Keeps the newest states, by their sequence.

    Attributes:
        n: How many.

    Raises:
        TypeError: `n` is not an integer.
        ValueError: It is not positive.
    """

    n: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", whole_number("n", self.n, minimum=1))

    def keep(self, holdings: Holdings) -> Mapping[str, str]:
        """Keep the last `n`."""
        reason = "the newest" if self.n == 1 else f"one of the {self.n} newest"
        return {state.name: reason for state in holdings.states[-self.n :]}


@dataclass(frozen=True, slots=True)
class KeepWithinSize:
    """Keeps the newest states that fit into a number of bytes together; what they share counts once.

    It stops at the first that does not fit, so that what is kept has no gaps.

    Attributes:
        max_bytes: How many bytes of the store they may need.

    Raises:
        TypeError: `max_bytes` is not an integer.
        ValueError: `max_bytes` is not positive.
    """

    max_bytes: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_bytes", whole_number("max_bytes", self.max_bytes, minimum=1))

    def keep(self, holdings: Holdings) -> Mapping[str, str]:
        """Keep as many of the newest as fit."""
        newest_first = [state.name for state in reversed(holdings.states)]
        fitting = len(newest_first)
        # Where all of them fit, that is told with less reading than one after the other is.
        if holdings.sizes.together(newest_first) > self.max_bytes:
            sizes = holdings.sizes.growing(newest_first)
            fitting = sum(1 for _ in takewhile(lambda size: size <= self.max_bytes, sizes))
        reason = f"fits into {self.max_bytes:,} bytes with all newer ones"
        return dict.fromkeys(newest_first[:fitting], reason)
