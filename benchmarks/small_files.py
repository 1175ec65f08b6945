"""A thousand small files."""

from __future__ import annotations

import random

from benchmarks.comparison import Comparison, Standing
from benchmarks.contest import contest, saving_and_restoring
from benchmarks.grounds import WHERE
from benchmarks.options import Options
from benchmarks.place import Place
from benchmarks.trial import Contender, Recorder

__all__ = ["run"]

FIRST, NEXT, RESTORE = "first save", "save after one file changed", "restore"

_ALL = "atomic, verified, durable"
_OURS = Contender("statevault", "files", "StoredFiles", (), _ALL, is_ours=True)
_WHOLE = Contender("statevault, incremental=False", "files", "WholeFiles", (), _ALL, is_ours=True)
_CONTENDERS = {
    "local": (
        _OURS,
        _WHOLE,
        Contender("write_bytes", "files", "PlainFiles"),
        Contender("one tar file", "files", "TarFile"),
    ),
    "s3": (
        _OURS,
        _WHOLE,
        Contender("s3fs, pipe and cat", "files", "FilesOfS3fs", ("s3fs",)),
        Contender("boto3, ten threads", "files", "FilesOfBoto3", ("boto3",)),
        Contender("one tar file, boto3", "files", "TarOfBoto3", ("boto3",), "atomic, durable"),
    ),
}


def run(options: Options) -> Comparison:
    """Measure two saves and a restore."""
    count = options.effort.pick(1000, 200, 20)
    megabytes = sum(map(len, files(count, 0).values())) / 1e6
    rows: list[Standing] = []
    for where in WHERE:
        rows += contest(
            f"{count:,} files of 1 to 16 kB",
            WHERE[where],
            _CONTENDERS[where],
            saving_and_restoring(options.grounds, where, write, read, count),
            runs=options.runs,
            actions={FIRST: megabytes, NEXT: megabytes, RESTORE: megabytes},
            count=where == "s3",
        )
    return Comparison(
        "small_files", "many small files", rows, notes=("The files are noise. The peers send all of them.",)
    )


def files(count: int, step: int) -> dict[str, bytes]:
    """Return the contents of files by name, as they are after `step` changes of the first one."""
    contents = {}
    for number in range(count):
        rng = random.Random(f"{number} {step if number == 0 else 0}")
        contents[f"file{number:04}.bin"] = rng.randbytes(rng.randrange(1_000, 16_000))
    return contents


def write(recorder: Recorder, contender: Contender, place: Place, count: int) -> None:
    """Save twice; runs in a process of its own."""
    subject = contender.load()(place)
    contents = files(count, 0)
    recorder.measure(FIRST, lambda: subject.save(contents))
    changed = files(count, 1)
    recorder.measure(NEXT, lambda: subject.save(changed))
    subject.close()


def read(recorder: Recorder, contender: Contender, place: Place, count: int) -> None:
    """Restore and compare; runs in a process of its own."""
    subject = contender.load()(place)
    got: dict[str, bytes] = {}
    recorder.measure(RESTORE, lambda: got.update(subject.restore(count)))
    if got != files(count, 1):
        raise ValueError("the files are not what was saved")
    subject.close()
