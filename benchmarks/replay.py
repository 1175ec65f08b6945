"""A replay buffer of images that has grown by one percent since the save before."""

from __future__ import annotations

from benchmarks.comparison import Comparison, Standing
from benchmarks.contest import contest, saving_and_restoring
from benchmarks.grounds import WHERE
from benchmarks.options import Options
from benchmarks.place import Place
from benchmarks.trial import Contender, Recorder

__all__ = ["run"]

FIRST, NEXT, RESTORE = "first save", "save after growing by 1 %", "restore"

_SAMPLE_BYTES = 84 * 84
_OURS = Contender("statevault, SequentialBuffer", "samples", "Buffer", (), "atomic, verified, durable", is_ours=True)
_WHOLE = Contender(
    "statevault, incremental=False", "samples", "WholeBuffer", (), "atomic, verified, durable", is_ours=True
)
_CONTENDERS = {
    "local": (
        _OURS,
        _WHOLE,
        Contender("a deque, pickled", "samples", "PickledDeque"),
        Contender("columns, numpy.save", "samples", "Columns"),
    ),
    "s3": (
        _OURS,
        _WHOLE,
        Contender("a deque, pickled through s3fs", "samples", "PickledDeque", ("s3fs",), "atomic, durable"),
        Contender("columns, numpy.save through s3fs", "samples", "Columns", ("s3fs",), "atomic, durable"),
    ),
}


def run(options: Options) -> Comparison:
    """Measure both saves, and the restore of the second."""
    count = options.effort.pick(100_000, 5_000, 200)
    megabytes = count * _SAMPLE_BYTES / 1e6
    rows: list[Standing] = []
    for where in WHERE:
        rows += contest(
            f"{count:,} images of 84x84 bytes",
            WHERE[where],
            _CONTENDERS[where],
            saving_and_restoring(options.grounds, where, write, read, count),
            runs=options.runs,
            actions={FIRST: megabytes, NEXT: megabytes * 1.01, RESTORE: megabytes * 1.01},
            count=where == "s3",
        )
    return Comparison(
        "replay",
        "a replay buffer",
        rows,
        notes=(
            "The images are noise, which no compression makes smaller. A deque, pickled, is what PAMIQ-Core writes.",
            "The rate counts the whole buffer, whatever of it had to be sent.",
        ),
    )


def write(recorder: Recorder, contender: Contender, place: Place, count: int) -> None:
    """Fill, save, grow, save; runs in a process of its own."""
    subject = contender.load()(place, count + count // 100)
    subject.grow(count)
    recorder.measure(FIRST, subject.save)
    subject.grow(count // 100)
    recorder.measure(NEXT, subject.save)
    subject.close()


def read(recorder: Recorder, contender: Contender, place: Place, count: int) -> None:
    """Restore and count; runs in a process of its own."""
    subject = contender.load()(place, count + count // 100)
    recorder.measure(RESTORE, subject.restore)
    if len(subject) != count + count // 100:
        raise ValueError(f"{len(subject)} samples were restored")
    subject.close()
