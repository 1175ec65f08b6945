"""Prints which backend passes which test of the contract: ``python -m tests.storage.table``."""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

import pytest

from tests.servers import target_names

__all__ = ["ContractTable", "main"]

_MARKS = {"passed": "yes", "failed": "NO", "skipped": "-"}


class ContractTable:
    """A pytest plugin that collects outcomes by test and backend."""

    def __init__(self) -> None:
        self._outcomes: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note an outcome; a test with several parameters passes where all of them do."""
        if report.when != "call" and report.passed:
            return
        name, _, parameters = report.nodeid.rpartition("::")[2].partition("[")
        for backend in target_names():
            if parameters.startswith((f"{backend}]", f"{backend}-")):
                self._outcomes[name][backend].add(report.outcome)

    def render(self) -> str:
        """The table, in Markdown."""
        backends = target_names()
        lines = ["| | " + " | ".join(backends) + " |", "|---" * (len(backends) + 1) + "|"]
        for name, outcomes in self._outcomes.items():
            marks = [next((mark for key, mark in _ORDER if key in outcomes[backend]), "") for backend in backends]
            lines.append(f"| {name.removeprefix('test_').replace('_', ' ')} | " + " | ".join(marks) + " |")
        return "\n".join(lines)


# The worst outcome of a test's parameters stands for it.
_ORDER = [(outcome, _MARKS[outcome]) for outcome in ("failed", "skipped", "passed")]


def main() -> int:
    """Run the contract on every backend; returns pytest's exit status."""
    table = ContractTable()
    status = pytest.main(["-q", "--no-header", str(Path(__file__).with_name("test_contract.py"))], plugins=[table])
    sys.stdout.write(f"\n{table.render()}\n")
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
