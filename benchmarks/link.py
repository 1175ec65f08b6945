"""A model over a network of 1 Gbit/s: what is left of the speed of the wire."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.comparison import Comparison, Standing
from benchmarks.contest import contest
from benchmarks.options import Options
from benchmarks.slow_link import slow_link
from benchmarks.tensor_trials import CONTENDERS, FIRST, NEXT, RESTORE, measure_tensors
from benchmarks.trial import Contender, Trial
from benchmarks.workloads import model

__all__ = ["run"]

_BYTES_PER_S = 125e6
_ROUND_TRIP_S = 0.03


def run(options: Options) -> Comparison:
    """Measure two saves and a restore through links that carry 125 MB a second."""
    large, small = options.effort.pick((500, 10), (20, 1), (0.2, 0.1))
    rows = _rows(options, large, "1 Gbit/s")
    rows += _rows(options, large, "1 Gbit/s, 30 ms", _ROUND_TRIP_S)
    rows += _rows(options, small, "1 Gbit/s, 30 ms", _ROUND_TRIP_S)
    return Comparison(
        "link",
        "a model over a network of 1 Gbit/s",
        rows,
        notes=(
            "A proxy on this machine lets 125 MB/s through in each direction. The server and the proxy take part of "
            "the two cores, but far from all: the wire is what is waited for.",
            "30 ms: what passes the proxy arrives 15 ms later, either way. A connection opens without that.",
        ),
    )


def _rows(options: Options, megabytes: float, link: str, round_trip_s: float = 0.0) -> list[Standing]:
    workload = model(megabytes)
    if options.like not in f"{workload.name}, {link}":
        return []
    size = workload.size_bytes / 1e6
    with slow_link(options.grounds.s3.endpoint, _BYTES_PER_S, round_trip_s) as url:
        far = replace(options.grounds, s3=options.grounds.s3.through(url))

        def measure(contender: Contender, counted: bool) -> Trial:
            return measure_tensors(far, "s3", contender, workload, counted=counted)

        return contest(
            workload.name,
            f"S3 server, {link}",
            CONTENDERS["s3"],
            measure,
            runs=options.runs,
            actions={FIRST: size, NEXT: size, RESTORE: size},
        )
