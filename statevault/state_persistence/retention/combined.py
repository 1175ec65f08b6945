"""Retention policies made of others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from statevault.state_persistence.retention.holdings import Holdings
from statevault.state_persistence.retention.policies import RetentionPolicy

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
        """Keep the union, with the reasons of all policies that keep a state."""
        return {name: ", ".join(_once(reasons)) for name, reasons in _reasons(self.policies, holdings).items()}


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
        """Keep the intersection, with the reasons of all policies."""
        reasons = _reasons(self.policies, holdings)
        return {name: " and ".join(_once(given)) for name, given in reasons.items() if len(given) == len(self.policies)}


def _check_policies(owner: str, policies: tuple[RetentionPolicy, ...]) -> None:
    # None at all would keep nothing, and nobody means that.
    if not policies:
        raise ValueError(f"{owner} needs at least one policy")
    for policy in policies:
        if isinstance(policy, type) or not isinstance(policy, RetentionPolicy):
            raise TypeError(f"{owner} takes retention policies, and {policy!r} is none")


def _once(reasons: Iterable[str]) -> Iterable[str]:
    """Reasons in their order; two policies may give the same one."""
    return dict.fromkeys(reasons)


def _reasons(policies: tuple[RetentionPolicy, ...], holdings: Holdings) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = defaultdict(list)
    for policy in policies:
        for name, reason in policy.keep(holdings).items():
            reasons[name].append(reason)
    return reasons
