"""``python -m benchmarks [section …] [--quick] [--runs N] [--out DIR]``: measure and print."""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.comparison import Comparison
from benchmarks.measure import Effort
from benchmarks.plots import plot_comparison
from benchmarks.report import Section, head, load, print_head, print_section, section_json
from benchmarks.standings import comparison_json, print_comparison

__all__ = ["COMPARISONS", "GROUPS", "SECTIONS", "main", "run_comparison", "run_section"]

SECTIONS = ("steps", "jitter", "pause", "collect", "buffers", "training", "idle")
"""The modules that measure the runtime: each has ``run(effort)``, which returns a :class:`Section`."""
COMPARISONS = ("models", "link", "stall", "replay", "frozen", "small_files", "partial_restore", "listing")
"""The modules that compare ways to keep a state: each has ``run(options)``, which returns a :class:`Comparison`."""
GROUPS = {"runtime": SECTIONS, "storage": COMPARISONS, "all": (*COMPARISONS, *SECTIONS)}


def run_section(name: str, effort: Effort) -> Section:
    """Import a section and run it; what others need (torch, storage servers) is not imported."""
    section: Section = importlib.import_module(f"benchmarks.{name}").run(effort)
    return section


def run_comparison(name: str, options: Any) -> Comparison:
    """Import a section that compares ways to keep a state and run it."""
    comparison: Comparison = importlib.import_module(f"benchmarks.{name}").run(options)
    return comparison


def main(arguments: Sequence[str] | None = None) -> int:
    """Run sections and print their tables as they come.

    Args:
        arguments: The arguments of the command line; None for those of the process.

    Returns:
        The exit code.
    """
    parser = _parser()
    parsed = parser.parse_args(arguments)
    asked = [*parsed.sections, *parsed.only]
    for name in asked:
        if name not in GROUPS and name not in GROUPS["all"]:
            parser.error(f"there is no section {name!r}: there are {', '.join([*GROUPS['all'], *GROUPS])}")
    names = list(dict.fromkeys(section for name in asked or ["all"] for section in GROUPS.get(name, (name,))))
    effort = Effort.QUICK if parsed.quick else Effort.FULL
    runs = parsed.runs or effort.pick(3, 1, 1)
    if parsed.out is not None:
        parsed.out.mkdir(parents=True, exist_ok=True)

    console = Console(width=None if sys.stdout.isatty() else 190)
    described = head()
    print_head(console)
    results: list[dict[str, Any]] = []

    def report(result: dict[str, Any]) -> None:
        results.append(result)
        # After each section: a long run that is broken off has not been in vain.
        for file in filter(None, (parsed.json, parsed.out and parsed.out / "results.json")):
            file.write_text(json.dumps({"head": described, "sections": results}, indent=2) + "\n", encoding="utf-8")

    comparisons = [name for name in names if name in COMPARISONS]
    if comparisons:
        from benchmarks.grounds import grounds  # noqa: PLC0415 - the runtime's sections need no servers
        from benchmarks.options import Options  # noqa: PLC0415

        with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder, grounds(Path(folder)) as where:
            described["server"] = where.server
            console.print(f"{'server:':<10}{where.server}", highlight=False)
            for name in comparisons:
                console.print()
                comparison = run_comparison(name, Options(where, effort, runs, parsed.like))
                print_comparison(comparison, console)
                # The machine may be shared: what else ran tells how much the seconds mean.
                console.print(f"* Load when it was done: {load()}", highlight=False)
                report({**comparison_json(comparison), "load": load()})
                if parsed.out is not None:
                    plot_comparison(comparison, parsed.out)
    for name in names:
        if name in SECTIONS:
            console.print()
            section = run_section(name, effort)
            print_section(section, console)
            report(section_json(section))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure statevault beside its peers.")
    known = ", ".join([*GROUPS["all"], *GROUPS])
    parser.add_argument("sections", nargs="*", metavar="section", help=f"which to run, or a group (all): {known}")
    parser.add_argument("--only", action="append", default=[], metavar="SECTION", help="the same as an option")
    parser.add_argument("--quick", action="store_true", help="small sizes, one run: rough figures in a few minutes")
    parser.add_argument("--runs", type=int, metavar="N", help="how often each way to keep a state is timed (3)")
    parser.add_argument(
        "--like", default="", metavar="TEXT", help="of models and stall, only sizes like '500 MB float32'"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write results.json and plots (PNG) there")
    return parser


if __name__ == "__main__":
    # Late steps are what some sections measure: the warnings of them would only tear the tables.
    logging.getLogger("statevault").setLevel(logging.ERROR)
    sys.exit(main())
