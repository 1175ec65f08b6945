"""``python -m tests.simulation``: run schedules, or replay one."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections import Counter
from dataclasses import asdict

from tests.simulation.mutants import MUTANTS, mutate
from tests.simulation.runner import VIOLATED, environment, simulate


def main() -> int:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", default="0:1000", help="first:last (exclusive), or one seed to replay")
    parser.add_argument("--jobs", type=int, default=1, help="how many processes share the work")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), help="break the code under test first")
    parser.add_argument("--shrink", action="store_true", help="look for a shorter schedule with a violation")
    parser.add_argument("--order", type=int, default=0, help="another seed for the order of calls")
    parser.add_argument("--without", default="", help="the numbers of actors to leave out: 0,2")
    parser.add_argument("--calm", action="store_true", help="nothing fails, and no clock jumps")
    parser.add_argument("--whole-lists", action="store_true", help="a LIST is one request")
    options = parser.parse_args()
    first, _, last = options.seeds.partition(":")
    seeds = range(int(first), int(last) if last else int(first) + 1)
    if options.jobs > 1:
        report = simulate(seeds.start, seeds.stop, jobs=options.jobs, mutant=options.mutant)
        print(report.output, end="")
        return 0 if report.is_clean else VIOLATED
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.execve(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]], environment())
    if options.mutant:
        mutate(options.mutant)
    return _run(seeds, options)


def _run(seeds: range, options: argparse.Namespace) -> int:
    # Only now: what is imported here may be a mutant.
    from tests.simulation.beginnings import Beginnings
    from tests.simulation.schedule import Variant, run_schedule
    from tests.simulation.shrink import shrink
    from tests.simulation.substitution import substituted

    logging.disable()
    began, used, steps = time.perf_counter(), time.process_time(), 0
    reached: Counter[str] = Counter()
    without = frozenset(int(number) for number in options.without.split(",") if number)
    variant = Variant(options.order, without, options.calm, options.whole_lists)
    with substituted() as substitutes:
        beginnings = Beginnings(substitutes)
        for seed in seeds:
            outcome = run_schedule(seed, beginnings, variant)
            steps += outcome.steps
            reached += outcome.reached
            if outcome.violation is None:
                continue
            if options.shrink:
                variant, outcome = shrink(seed, beginnings)
            print(*outcome.trace, sep="\n")
            print(f"seed {seed}: {outcome.violation}")
            print(f"replay: python -m tests.simulation{_arguments(seed, options.mutant, **asdict(variant))}")
            return VIOLATED
    seconds, used = time.perf_counter() - began, time.process_time() - used
    print(f"{len(seeds)} schedules, {steps} steps, no violation: {len(seeds) / seconds:.0f} schedules a second", end="")
    print(f" ({len(seeds) / used:.0f} a second of this processor)")
    print("reached:", ", ".join(f"{what} {count}" for what, count in sorted(reached.items())))
    return 0


def _arguments(
    seed: int, mutant: str | None, *, order: int, without: frozenset[int], is_calm: bool, whole_lists: bool
) -> str:
    """What makes a schedule come again."""
    arguments = f" --seeds {seed}"
    if mutant:
        arguments += f" --mutant {mutant!r}"
    if order:
        arguments += f" --order {order}"
    if without:
        arguments += f" --without {','.join(map(str, sorted(without)))}"
    return arguments + " --calm" * is_calm + " --whole-lists" * whole_lists


if __name__ == "__main__":
    sys.exit(main())
