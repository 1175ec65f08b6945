"""How long the acting loop and the training thread stand still for a save."""

from __future__ import annotations

from benchmarks.comparison import Comparison, Standing
from benchmarks.contest import contest
from benchmarks.grounds import WHERE
from benchmarks.options import Options
from benchmarks.stalling import SAVING, Schedule, act_and_save, launch_and_save
from benchmarks.trial import Contender, Trial, run_trial
from benchmarks.workloads import TensorWorkload, model

__all__ = ["run"]

_EXACT, _TRAINING = "exact cut; atomic, verified, durable", "cut of the training thread"
_OURS = Contender("statevault, launched", "statevault", "Statevault", guarantees=_EXACT, is_ours=True)
_ASYNC = Contender("DCP async_save", "checkpoint", "DistributedCheckpointAsync", guarantees=_TRAINING)
_NO_SAVES = Contender("limit: no saves", "", "", is_limit=True)
_CONTENDERS = {
    "local": (
        _OURS,
        Contender("torch.save", "torch_save", "TorchSave", guarantees=_TRAINING),
        Contender("clone; torch.save in a thread", "cloned", "ClonedTorchSave", guarantees=_TRAINING),
        _ASYNC,
        _NO_SAVES,
    ),
    "s3": (
        _OURS,
        Contender("torch.save, s3fs", "torch_save", "TorchSaveS3fs", guarantees=_TRAINING),
        Contender("clone; torch.save, s3fs in a thread", "cloned", "ClonedTorchSaveS3fs", guarantees=_TRAINING),
        _ASYNC,
        _NO_SAVES,
    ),
}


def run(options: Options) -> Comparison:
    """Measure the longest gap at 100 Hz, and the longest pause of training steps of 2 ms."""
    plans = options.effort.pick(
        [(model(10), Schedule(6.0, 1.0)), (model(500), Schedule(30.0, 6.0))],
        [(model(20), Schedule(3.0, 1.0))],
        [(model(0.2), Schedule(0.5, 0.2))],
    )
    rows: list[Standing] = []
    for workload, schedule in plans:
        for where in WHERE if options.like in workload.name else ():
            rows += _rows(options, where, workload, schedule)
    return Comparison(
        "stall",
        "what an acting loop of 100 Hz notices of saves",
        rows,
        figure="gap_ms",
        notes=(
            "Longest gap: of two steps that are 10 ms apart by plan. Pause of training: between two steps of 2 ms.",
            "Only the launched system's cut holds the acting side as well: its queued samples, its environment and the "
            "clock. The peers save the training thread's tensors, in that thread.",
        ),
    )


def _rows(options: Options, where: str, workload: TensorWorkload, schedule: Schedule) -> list[Standing]:
    def measure(contender: Contender, counted: bool) -> Trial:
        place = options.grounds.new(where)
        function = launch_and_save if contender.is_ours else act_and_save
        try:
            return run_trial(options.grounds, function, contender, place, workload, schedule)
        finally:
            options.grounds.clear(place)

    return contest(
        f"{workload.name}, a save every {schedule.every_s:g} s for {schedule.seconds:g} s",
        WHERE[where],
        _CONTENDERS[where],
        measure,
        runs=options.runs,
        actions={SAVING: None},
    )
