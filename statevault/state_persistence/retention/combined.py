"""Retention policies made of others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from statevault.state_persistence.retention.holdings import Holdings
from statevault.state_persistence.retention.policies import CannotJudge, RetentionPolicy, Verdict, judged

__all__ = ["KeepAll", "KeepAny"]


@dataclass(frozen=True, slots=True)
class KeepAny:
    """Keeps what any of some policies keeps.

    Attributes:
        policies: The policies.

    Raises:
        TypeError: One is not a policy.
        ValueError: There are none.
    """

    policies: tuple[RetentionPolicy, ...]

    def __post_init__(self) -> None:
        _check_policies(type(self).__name__, self.policies)

    def keep(self, holdings: Holdings) -> Mapping[str, str]:
        """Keep the union, with the reasons of all policies that keep a state.

        What one policy can't judge stays, unless another keeps it anyway.
        """
        verdicts = [judged(policy, holdings) for policy in self.policies]
        kept, unjudged = _reasons(verdicts)
        return Verdict(_joined(kept, ", "), _joined(unjudged, ", "), _problems(verdicts))


@dataclass(frozen=True, slots=True)
class KeepAll:
    """Keeps what all of some policies keep.

    Attributes:
        policies: The policies.

    Raises:
        TypeError: One is not a policy.
        ValueError: There are none.
    """

    policies: tuple[RetentionPolicy, ...]

    def __post_init__(self) -> None:
        _check_policies(type(self).__name__, self.policies)

    def keep(self, holdings: Holdings) -> Mapping[str, str]:
        """Keep the intersection, with the reasons of all policies.

        What one policy can't judge stays, unless another does not keep it anyway.
        """
        verdicts = [judged(policy, holdings) for policy in self.policies]
        kept, unjudged = _reasons(verdicts)
        in_all = {
            name: kept[name] + unjudged[name] for name in verdicts[0] if all(name in verdict for verdict in verdicts)
        }
        certain = {name: reasons for name, reasons in in_all.items() if not unjudged[name]}
        return Verdict(_joined(certain, " and "), _joined(in_all, " and "), _problems(verdicts))


def _check_policies(owner: str, policies: tuple[RetentionPolicy, ...]) -> None:
    # None at all would keep nothing, and nobody means that.
    if not policies:
        raise ValueError(f"{owner} needs at least one policy")
    for policy in policies:
        if isinstance(policy, type) or not isinstance(policy, RetentionPolicy):
            raise TypeError(f"{owner} takes retention policies, and {policy!r} is none")


def _reasons(verdicts: Sequence[Verdict]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """The reasons by state: of those who keep it, and of those who can't judge it."""
    kept: dict[str, list[str]] = defaultdict(list)
    unjudged: dict[str, list[str]] = defaultdict(list)
    for verdict in verdicts:
        for name, reason in verdict.items():
            (unjudged if name in verdict.unjudged else kept)[name].append(reason)
    return kept, unjudged


def _joined(reasons: Mapping[str, Iterable[str]], separator: str) -> dict[str, str]:
    """Reasons in their order, each once: two policies may give the same one."""
    return {name: separator.join(dict.fromkeys(given)) for name, given in reasons.items()}


def _problems(verdicts: Sequence[Verdict]) -> list[CannotJudge]:
    return [problem for verdict in verdicts for problem in verdict.problems]
