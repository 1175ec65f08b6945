"""What the commands show of a folder with policies as files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table
from rich.text import Text

from statevault.cli.output import console, counted, is_wide, plain, print_json, progress, size, when
from statevault.errors import CorruptStateError, FormatError, StateNotFoundError
from statevault.persistence import CopiedPolicy, SavedPolicy, copy_policies, verify_policy
from statevault.storage import Storage

__all__ = ["PoliciesView"]


class PoliciesView:
    """Policies as files. Nothing of them is unpickled.

    Args:
        storage: Their folder.
        policies: What lies there.
    """

    def __init__(self, storage: Storage, policies: Sequence[SavedPolicy]) -> None:
        self._storage = storage
        self._policies = policies

    def ls(self, *, as_json: bool) -> None:
        """Print the policies."""
        self._print(self._policies, as_json=as_json)

    def show(self, name: str | None, *, as_json: bool) -> None:
        """Print one policy, or all.

        Raises:
            StateNotFoundError: There is no such policy.
        """
        if name is None:
            self._print(self._policies, as_json=as_json)
            return
        policy = self._find(name)
        if as_json:
            print_json(_as_json(policy))
            return
        fields = {key: value for key, value in _as_json(policy).items() if key not in ("additional", "kind")}
        width = max(map(len, fields))
        for key, value in fields.items():
            console.print(Text.assemble((f"  {key:<{width}}  ", "dim"), plain(str(value))), soft_wrap=True)
        for path, file in (policy.additional or {}).items():
            console.print(Text.assemble("  ", plain(path), (f"  {size(file.size)}", "cyan")), soft_wrap=True)

    def verify(self, name: str | None, *, as_json: bool) -> bool:
        """Check every byte of the policies, and of what was saved with them.

        Raises:
            StateNotFoundError: There is no such policy.
        """
        results: list[dict[str, Any]] = []
        for policy in self._policies if name is None else [self._find(name)]:
            error = None
            with progress(f"verifying {policy.name}", policy.total_size, hidden=as_json) as advance:
                try:
                    verify_policy(self._storage, policy.name, on_progress=advance)
                except (CorruptStateError, FormatError) as damage:
                    error = str(damage)
            results.append(
                {"policy": policy.name, "size": policy.total_size, "sealed": policy.is_sealed, "error": error}
            )
        damaged = [result for result in results if result["error"] is not None]
        if as_json:
            print_json(results)
            return not damaged
        for result in results:
            if result["error"] is None:
                what = size(result["size"]) + ("" if result["sealed"] else ", without a digest: an older run's")
                console.print(
                    Text.assemble(("ok       ", "green"), plain(result["policy"]), (f"  {what}", "dim")), soft_wrap=True
                )
            else:
                console.print(
                    Text.assemble(("DAMAGED  ", "bold red"), plain(result["policy"]), plain(f"  {result['error']}")),
                    soft_wrap=True,
                )
        what = "1 policy" if len(results) == 1 else f"{len(results)} policies"
        console.print(f"{what} checked, {len(damaged)} damaged.")
        return not damaged

    def copy(self, target: Storage, names: Sequence[str] | None, *, as_json: bool) -> bool:
        """Copy policies, each with what was saved with it.

        Raises:
            StateNotFoundError: There is no such policy.
        """
        chosen = list(self._policies) if names is None else [self._find(name) for name in names]
        total = sum(policy.total_size for policy in chosen)
        done: list[CopiedPolicy] = []
        with progress(f"copying {counted(len(chosen), 'file')}", total, hidden=as_json) as bar:
            copy_policies(
                self._storage, target, [policy.name for policy in chosen], on_progress=bar, on_policy=done.append
            )
        if as_json:
            print_json([asdict(policy) for policy in done])
        else:
            for policy in done:
                style = {"copied": "green", "present": "dim", "damaged": "bold red"}.get(policy.outcome, "yellow")
                what = policy.error or size(policy.size)
                console.print(
                    Text.assemble((f"{policy.outcome:<9}", style), plain(policy.name), (plain(f"  {what}"), "dim")),
                    soft_wrap=True,
                )
        return all(policy.outcome in ("copied", "present") for policy in done)

    def _find(self, name: str) -> SavedPolicy:
        for policy in self._policies:
            if policy.name in (name, f"{name}.pt"):
                return policy
        raise StateNotFoundError(f"there is no policy {name!r} in {self._storage.url}; `statevault ls` lists them")

    def _print(self, policies: Sequence[SavedPolicy], *, as_json: bool) -> None:
        if as_json:
            print_json([_as_json(policy) for policy in policies])
            return
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("policy", no_wrap=True)
        if is_wide():
            table.add_column("saved", no_wrap=True)
        for column in ("epoch", "env steps", "score", "size", "with it"):
            table.add_column(column, justify="right", no_wrap=True)
        for policy in policies:
            cells = [plain(policy.name)]
            cells += [when(policy.modified) if policy.modified else ""] if is_wide() else []
            cells += ["" if policy.epoch is None else str(policy.epoch)]
            cells += ["" if policy.env_step is None else str(policy.env_step)]
            cells += ["" if policy.score is None else f"{policy.score:.6g}"]
            cells += [size(policy.size), counted(len(policy.additional or {}), "file")]
            table.add_row(*map(Text, cells))
        console.print(table)


def _as_json(policy: SavedPolicy) -> dict[str, Any]:
    return {
        "kind": "policy",
        "name": policy.name,
        "mode": policy.mode,
        "epoch": policy.epoch,
        "env_step": policy.env_step,
        "gradient_step": policy.gradient_step,
        "score": policy.score,
        "best": policy.best,
        "size": policy.size,
        "saved_at": None if policy.modified is None else policy.modified.isoformat(),
        "sealed": policy.is_sealed,
        "additional": {path: asdict(file) for path, file in (policy.additional or {}).items()},
    }
