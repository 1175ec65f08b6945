"""Letting methods do the same on the same storage: in turn, round after round, each round in another order."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.comparison import Standing
from benchmarks.grounds import Grounds
from benchmarks.measure import Spread
from benchmarks.trial import Contender, Trial, TrialError, run_trial

__all__ = ["contest", "saving_and_restoring"]

_logger = logging.getLogger(__name__)
_COUNTED = ("sent_mb", "received_mb", "requests")


def contest(
    workload: str,
    where: str,
    contenders: Sequence[Contender],
    measure: Callable[[Contender, bool], Trial],
    *,
    runs: int,
    actions: Mapping[str, float | None],
    count: bool = False,
) -> list[Standing]:
    """Measure all methods and return their rows, action by action.

    Args:
        workload: For the rows.
        where: For the rows.
        contenders: The methods.
        measure: Makes one trial of a method; told whether the traffic is to be counted.
        runs: How many trials of each are timed.
        actions: The actions to report, and the MB that each moves.
        count: Whether one more trial of each counts the traffic; its times are not used.
    """
    trials: dict[str, list[Trial]] = {contender.label: [] for contender in contenders}
    counts: dict[str, Trial] = {}
    problems: dict[str, str] = {
        contender.label: f"not installed: {contender.missing}" for contender in contenders if contender.missing
    }
    for number in range(runs + count):
        turn = number % len(contenders)
        for contender in [*contenders[turn:], *contenders[:turn]]:
            if contender.label in problems:
                continue
            counted = number == runs
            try:
                trial = measure(contender, counted)
            except TrialError as error:
                _logger.warning("%s on %s (%s): %s", contender.label, where, workload, error)
                problems[contender.label] = f"failed: {str(error).strip().splitlines()[-1]}"
                continue
            if counted:
                counts[contender.label] = trial
            else:
                trials[contender.label].append(trial)
    return [
        Standing(
            workload,
            where,
            action,
            contender.label,
            {} if contender.label in problems else _figures(trials[contender.label], counts, contender.label, action),
            size_mb=size_mb,
            guarantees=contender.guarantees,
            is_ours=contender.is_ours,
            is_limit=contender.is_limit,
            problem=problems.get(contender.label, ""),
        )
        for action, size_mb in actions.items()
        for contender in contenders
    ]


def saving_and_restoring(
    grounds: Grounds, where: str, write: Callable[..., None], read: Callable[..., None], *arguments: Any
) -> Callable[[Contender, bool], Trial]:
    """What a contest measures where a method saves in one process and restores in another one.

    Args:
        grounds: Where places are made.
        where: On which storage.
        write: Saves: ``(recorder, contender, place, *arguments)``.
        read: Restores, likewise.
        *arguments: For both.
    """

    def measure(contender: Contender, counted: bool) -> Trial:
        place = grounds.new(where, counted=counted)
        try:
            saved = run_trial(grounds, write, contender, place, *arguments, counted=counted)
            return saved | run_trial(grounds, read, contender, place, *arguments, counted=counted)
        finally:
            grounds.clear(place)

    return measure


def _figures(trials: list[Trial], counts: Mapping[str, Trial], label: str, action: str) -> dict[str, Spread]:
    figures = {name: Spread.of(trial[action][name] for trial in trials) for name in trials[0].get(action, {})}
    counted = counts.get(label, {}).get(action, {})
    return figures | {name: Spread.of([counted[name]]) for name in _COUNTED if name in counted}
