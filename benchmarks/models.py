"""Saving and restoring a model with Adam's state, small to large, in float32 and bfloat16."""

from __future__ import annotations

from benchmarks.comparison import Comparison, Standing
from benchmarks.contest import contest
from benchmarks.grounds import WHERE
from benchmarks.options import Options
from benchmarks.tensor_trials import CONTENDERS, FIRST, NEXT, RESTORE, measure_tensors
from benchmarks.trial import Contender, Trial
from benchmarks.workloads import TensorWorkload, model

__all__ = ["NOTES", "run"]

NOTES = (
    "The size is that of all tensors: a third weights, the rest Adam's two moments. All of them change between two "
    "saves. They are noise: zstd would take 7 % off in float32, too little to be done, and takes 22 % in bfloat16.",
    "A first save comes in a new process: it opens folders and connections. So does a restore, which copies into "
    "living tensors; the files are in the page cache. torch copies with one thread. The client of the S3 server is "
    "made before the clock starts, whichever it is.",
    "Peak MB: private memory and tmpfs on top of the state itself. CPU s: of the process, not of the server.",
    "Unsigned: S3's signature leaves out the hash of what is sent, which client and server compute otherwise.",
    "Sent MB, received MB and requests: counted by a proxy in a run of its own.",
    "Atomic: a reader sees all of a save or nothing, whenever the writer dies. Verified: a restore checks each byte "
    "against a digest before it uses it. Durable: a save that returned survives a power cut (S3: the server's word).",
)


def run(options: Options) -> Comparison:
    """Measure all methods with all sizes."""
    workloads = options.effort.pick(
        [model(megabytes, dtype) for megabytes in (10, 500, 2000) for dtype in ("float32", "bfloat16")],
        [model(20)],
        [model(0.2)],
    )
    rows: list[Standing] = []
    for workload in workloads:
        for where in WHERE if options.like in workload.name else ():
            rows += _rows(options, workload, where)
    return Comparison("models", "a model with Adam's state", rows, notes=NOTES)


def _rows(options: Options, workload: TensorWorkload, where: str) -> list[Standing]:
    def measure(contender: Contender, counted: bool) -> Trial:
        return measure_tensors(options.grounds, where, contender, workload, counted=counted)

    megabytes = workload.size_bytes / 1e6
    return contest(
        workload.name,
        WHERE[where],
        CONTENDERS[where],
        measure,
        runs=options.runs,
        actions={FIRST: megabytes, NEXT: megabytes, RESTORE: megabytes},
        count=where == "s3",
    )
