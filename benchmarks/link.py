"""A model over a network of 1 Gbit/s: what is left of the speed of the wire."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.comparison import Comparison
from benchmarks.contest import contest
from benchmarks.options import Options
from benchmarks.slow_link import slow_link
from benchmarks.tensor_trials import CONTENDERS, FIRST, NEXT, RESTORE, measure_tensors
from benchmarks.trial import Contender, Trial
from benchmarks.workloads import model

__all__ = ["run"]

_BYTES_PER_S = 125e6
_WHERE = "S3 server, 1 Gbit/s"


def run(options: Options) -> Comparison:
    """Measure two saves and a restore through a link that carries 125 MB a second."""
    workload = model(options.effort.pick(500, 20, 0.2))
    megabytes = workload.size_bytes / 1e6
    with slow_link(options.grounds.s3.endpoint, _BYTES_PER_S) as url:
        far = replace(options.grounds, s3=options.grounds.s3.through(url))

        def measure(contender: Contender, counted: bool) -> Trial:
            return measure_tensors(far, "s3", contender, workload, counted=counted)

        rows = contest(
            workload.name,
            _WHERE,
            CONTENDERS["s3"],
            measure,
            runs=options.runs,
            actions={FIRST: megabytes, NEXT: megabytes, RESTORE: megabytes},
        )
    return Comparison(
        "link",
        "a model over a network of 1 Gbit/s",
        rows,
        notes=(
            "A proxy on this machine lets 125 MB/s through in each direction, and adds no latency. The server and the "
            "proxy take part of the two cores, but far from all: the wire is what is waited for.",
        ),
    )
