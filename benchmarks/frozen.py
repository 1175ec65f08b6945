"""A frozen backbone and a small head that is trained: the save after the first, when little has changed."""

from __future__ import annotations

from benchmarks.comparison import Comparison, Standing
from benchmarks.contest import contest
from benchmarks.grounds import WHERE
from benchmarks.options import Options
from benchmarks.tensor_trials import CONTENDERS, NEXT, RESTORE, WITHOUT_BASE, measure_tensors
from benchmarks.trial import Contender, Trial
from benchmarks.workloads import frozen_backbone

__all__ = ["run"]


def run(options: Options) -> Comparison:
    """Measure the second of two saves, and the restore of it."""
    workload = frozen_backbone(*options.effort.pick((480, 20), (48, 2), (0.3, 0.1)))
    megabytes = workload.size_bytes / 1e6
    rows: list[Standing] = []
    for where in WHERE:

        def measure(contender: Contender, counted: bool, where: str = where) -> Trial:
            return measure_tensors(options.grounds, where, contender, workload, counted=counted)

        ours, *others = CONTENDERS[where]
        rows += contest(
            workload.name,
            WHERE[where],
            (ours, WITHOUT_BASE, *others),
            measure,
            runs=options.runs,
            actions={NEXT: megabytes, RESTORE: megabytes},
            count=where == "s3",
        )
    return Comparison(
        "frozen",
        "a frozen backbone with a trained head",
        rows,
        notes=("The rate counts the whole state, whatever of it had to be sent. The bounds send everything.",),
    )
