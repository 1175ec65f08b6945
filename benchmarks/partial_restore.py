"""Restoring one model out of ten."""

from __future__ import annotations

from benchmarks.comparison import Comparison, Standing
from benchmarks.contest import contest
from benchmarks.grounds import WHERE
from benchmarks.options import Options
from benchmarks.tensor_trials import CONTENDERS, RESTORE, measure_tensors
from benchmarks.trial import Contender, Trial
from benchmarks.workloads import ten_models

__all__ = ["run"]

_WANTED = "model3"


def run(options: Options) -> Comparison:
    """Measure the restore of one group; methods that can't read one alone read all."""
    workload = ten_models(options.effort.pick(50, 4, 0.1))
    megabytes = workload.size_bytes / len(workload.groups) / 1e6
    rows: list[Standing] = []
    for where in WHERE:

        def measure(contender: Contender, counted: bool, where: str = where) -> Trial:
            return measure_tensors(options.grounds, where, contender, workload, groups=(_WANTED,), counted=counted)

        rows += contest(
            f"one of {workload.name}",
            WHERE[where],
            [contender for contender in CONTENDERS[where] if not contender.is_limit],
            measure,
            runs=options.runs,
            actions={RESTORE: megabytes},
            count=where == "s3",
        )
    return Comparison("partial_restore", "one model out of ten", rows, notes=("The rate counts the one model.",))
