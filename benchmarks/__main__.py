"""``python -m benchmarks [section …] [--quick] [--json FILE]``: measure and print."""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.measure import Effort
from benchmarks.report import Section, as_json, head, print_head, print_section

__all__ = ["GROUPS", "SECTIONS", "main", "run_section"]

SECTIONS = ("steps", "jitter", "collect", "buffers", "training", "idle", "tensors")
"""The modules that measure: each has ``run(effort)``, which returns a section of the report."""
GROUPS = {"runtime": SECTIONS[:6], "all": SECTIONS}


def run_section(name: str, effort: Effort) -> Section:
    """Import a section and run it; what others need (torch, storage servers) is not imported."""
    section: Section = importlib.import_module(f"benchmarks.{name}").run(effort)
    return section


def main(arguments: Sequence[str] | None = None) -> int:
    """Run sections and print their tables as they come.

    Args:
        arguments: The arguments of the command line; None for those of the process.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure statevault beside its peers.")
    parser.add_argument(
        "sections",
        nargs="*",
        metavar="section",
        help=f"which to run (all): {', '.join(SECTIONS)}, or a group: {', '.join(GROUPS)}",
    )
    parser.add_argument("--quick", action="store_true", help="small sizes and few rounds: rough figures in a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    parsed = parser.parse_args(arguments)
    for name in parsed.sections:
        if name not in SECTIONS and name not in GROUPS:
            parser.error(f"there is no section {name!r}: there are {', '.join([*SECTIONS, *GROUPS])}")
    names = dict.fromkeys(section for name in parsed.sections or ["all"] for section in GROUPS.get(name, (name,)))

    console = Console(width=None if sys.stdout.isatty() else 140)
    described = head()
    print_head(console)
    sections = []
    for name in names:
        console.print()
        sections.append(run_section(name, Effort.QUICK if parsed.quick else Effort.FULL))
        print_section(sections[-1], console)
    if parsed.json is not None:
        parsed.json.write_text(json.dumps(as_json(sections, described), indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    # Late steps are what some sections measure: the warnings of them would only tear the tables.
    logging.getLogger("statevault").setLevel(logging.ERROR)
    sys.exit(main())
