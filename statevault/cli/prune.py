"""``statevault prune``: retention by hand, or by cron."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from statevault.cli.confirm import Yes, confirm, refuse_unasked
from statevault.cli.failures import reported
from statevault.cli.options import AsJson, StorageOptions, StoreArgument, opened
from statevault.cli.output import console, counted, is_wide, plain, print_json, size
from statevault.cli.prune_rules import PrunePolicy, check_plan, keep_rules
from statevault.cli.quantities import parsed_duration, parsed_size
from statevault.errors import StateVaultError
from statevault.format.records import in_utc
from statevault.state_persistence import PruneResult, StateStore
from statevault.state_persistence.retention import Decision, RetentionPlan

__all__ = ["prune"]


def _count(name: str, what: str) -> Any:
    return typer.Option(f"--keep-{name}", min=1, metavar="N", help=what, show_default=False)


def prune(
    url: StoreArgument,
    keep_last: Annotated[int | None, _count("last", "Keep the N newest states.")] = None,
    keep_hourly: Annotated[
        int | None, _count("hourly", "Keep the newest state of each of the last N hours in which any was saved (UTC).")
    ] = None,
    keep_daily: Annotated[int | None, _count("daily", "Likewise of days.")] = None,
    keep_weekly: Annotated[int | None, _count("weekly", "Likewise of weeks.")] = None,
    keep_monthly: Annotated[int | None, _count("monthly", "Likewise of months.")] = None,
    keep_yearly: Annotated[int | None, _count("yearly", "Likewise of years.")] = None,
    keep_within: Annotated[
        timedelta | None,
        typer.Option(
            "--keep-within", parser=parsed_duration, metavar="TIME", help="Keep what is not older: 12h, 30d, 2w, 1y."
        ),
    ] = None,
    keep_best: Annotated[int | None, _count("best", "Keep the N states with the best --metric.")] = None,
    metric: Annotated[
        str | None,
        typer.Option("--metric", metavar="NAME", help="A number in the metadata: reward, or eval.reward."),
    ] = None,
    lower_is_better: Annotated[
        bool, typer.Option("--lower-is-better", help="The best metric is the lowest, as a loss.")
    ] = False,
    max_size: Annotated[
        int | None,
        typer.Option(
            "--max-size",
            parser=parsed_size,
            metavar="SIZE",
            help="Of what the rules keep (of all, without rules), keep only the newest that fit into SIZE together: "
            "50GB, 1.5GiB.",
        ),
    ] = None,
    pattern: Annotated[
        str, typer.Option("--pattern", metavar="GLOB", help="Leave states with other names alone.")
    ] = "*.state",
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Only show what would go.")] = False,
    yes: Yes = False,
    storage_option: StorageOptions = None,
    as_json: AsJson = False,
) -> None:
    """Remove the states that no rule keeps.

    Shows them first, and why. A state that any --keep rule keeps stays. --max-size bounds the whole: --keep-last 5
    --max-size 50GB keeps the five newest states, or fewer if they need more than 50 GB together.

    Whatever the rules say, these stay as well: the newest state, the newest that was not saved after an
    error, and pinned ones.
    """
    rules = keep_rules(
        last=keep_last,
        within=keep_within,
        best=keep_best,
        metric=metric,
        lower_is_better=lower_is_better,
        hourly=keep_hourly,
        daily=keep_daily,
        weekly=keep_weekly,
        monthly=keep_monthly,
        yearly=keep_yearly,
    )
    if not rules and max_size is None:
        raise typer.BadParameter(
            "say what to keep, with one or more of --keep-last, --keep-hourly, --keep-daily, --keep-weekly, "
            "--keep-monthly, --keep-yearly, --keep-within, --keep-best, --max-size"
        )
    if not dry_run:
        refuse_unasked(yes=yes)
    policy = PrunePolicy(rules, max_size)
    with reported(as_json=as_json), opened(url, storage_option) as store:
        plan = store.plan_retention(policy, pattern=pattern)
        check_plan(plan, store, pattern)
        frees = _frees(policy, plan)
        if not as_json:
            _print(plan, policy, frees)
        result = None
        if plan.removed and not dry_run:
            confirm(f"Remove {counted(len(plan.removed), 'state')} ({size(sum(frees.values()))})?", yes=yes)
            result = removed(store, [state.name for state in plan.removed], "pruned by the command line", as_json)
        if as_json:
            print_json(_as_json(plan, policy, frees, result))
        elif result is not None:
            print_result(result)


def removed(store: StateStore, names: list[str], reason: str, as_json: bool) -> PruneResult:
    """Remove states; of an error that comes when some are removed already, its notes are printed, too.

    Raises:
        StateVaultError: See :meth:`~statevault.StateStore.remove`.
    """
    try:
        return store.remove(names, reason=reason)
    except StateVaultError as error:
        for note in () if as_json else getattr(error, "__notes__", ()):
            typer.echo(plain(note), err=True)
        raise


def print_result(result: PruneResult) -> None:
    """Say what was removed."""
    for name in result.spared:
        console.print(f"{name} was pinned meanwhile, and stays.", soft_wrap=True)
    console.print(f"{counted(len(result.removed), 'state')} removed, {size(result.freed)} freed.")


def _frees(policy: PrunePolicy, plan: RetentionPlan) -> dict[str, int]:
    """What each removed state frees when it goes after all older ones: what they share counts for the last."""
    if policy.sizes is None:
        return {}
    order = [*(state.name for state in plan.kept), *(state.name for state in reversed(plan.removed))]
    totals = [0, *policy.sizes.growing(order)]
    added = {name: after - before for name, before, after in zip(order, totals, totals[1:], strict=False)}
    return {state.name: added[state.name] for state in plan.removed}


def _why(decision: Decision, policy: PrunePolicy) -> str:
    return "; ".join(decision.reasons) if decision.keep else policy.why_not(decision.state.name)


def _print(plan: RetentionPlan, policy: PrunePolicy, frees: dict[str, int]) -> None:
    if not plan.decisions:
        console.print("No states.")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    wide = is_wide()
    table.add_column("", no_wrap=True)
    table.add_column("state", no_wrap=True)
    if wide:
        table.add_column("saved (UTC)", no_wrap=True)  # as the days and hours in the reasons
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("frees", justify="right", no_wrap=True)
    table.add_column("why", overflow="fold")
    for decision in plan.decisions:
        state = decision.state
        cells = [Text("stays", "green") if decision.keep else Text("goes", "red"), Text(state.name)]
        cells += [Text(f"{in_utc(state.created_at):%Y-%m-%d %H:%M:%S}")] if wide else []
        cells += [Text(size(state.size)), Text("" if decision.keep else size(frees[state.name]))]
        table.add_row(*cells, Text(plain(_why(decision, policy))))
    console.print(table)
    console.print(
        f"{len(plan.kept)} stay, {len(plan.removed)} go, which frees {size(sum(frees.values()))}."
        if plan.removed
        else f"Nothing to remove: all {counted(len(plan.kept), 'state')} stay."
    )


def _as_json(
    plan: RetentionPlan, policy: PrunePolicy, frees: dict[str, int], result: PruneResult | None
) -> dict[str, Any]:
    return {
        "states": [
            {
                "name": decision.state.name,
                "created_at": decision.state.created_at.isoformat(),
                "size": decision.state.size,
                "keep": decision.keep,
                "frees": frees.get(decision.state.name, 0),
                "reasons": list(decision.reasons) or [policy.why_not(decision.state.name)],
            }
            for decision in plan.decisions
        ],
        "frees": sum(frees.values()),
        "removed": [] if result is None else list(result.removed),
        "spared": [] if result is None else list(result.spared),
        "freed": 0 if result is None else result.freed,
    }
