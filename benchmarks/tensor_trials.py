"""Saving a state of tensors twice and restoring it, by every method there is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from benchmarks.grounds import Grounds
from benchmarks.place import Place
from benchmarks.trial import Contender, Recorder, Trial, run_trial
from benchmarks.workloads import TensorWorkload

__all__ = ["CONTENDERS", "FIRST", "NEXT", "RESTORE", "WITHOUT_BASE", "measure_tensors"]

FIRST, NEXT, RESTORE = "first save", "next save", "restore"

_ALL = "atomic, verified, durable"
_ATOMIC = "atomic, durable"
_TORCH = ("torch",)

_OURS = Contender("statevault", "statevault", "Statevault", _TORCH, _ALL, is_ours=True)
WITHOUT_BASE = Contender("statevault, incremental=False", "statevault", "StatevaultWhole", _TORCH, _ALL, is_ours=True)

CONTENDERS: Mapping[str, Sequence[Contender]] = {
    "local": (
        _OURS,
        Contender("torch.save", "torch_save", "TorchSave", _TORCH),
        Contender("torch.save, fsync, rename", "torch_save", "TorchSaveDurable", _TORCH, _ATOMIC),
        Contender("DCP save", "checkpoint", "DistributedCheckpoint", _TORCH, _ATOMIC),
        Contender("DCP async_save, waited for", "checkpoint", "DistributedCheckpointAsync", _TORCH, _ATOMIC),
        Contender("safetensors", "safetensors_file", "Safetensors", ("torch", "safetensors")),
        Contender("limit: memcpy, faulted memory", "raw_bytes", "MemoryCopy", _TORCH, is_limit=True),
        Contender("limit: write(); read()", "raw_bytes", "RawFile", _TORCH, is_limit=True),
        Contender("limit: write(), fsync; read()", "raw_bytes", "RawFileDurable", _TORCH, "durable", is_limit=True),
    ),
    "s3": (
        _OURS,
        Contender("statevault, unsigned", "statevault", "StatevaultUnsigned", _TORCH, _ALL, is_ours=True),
        Contender("torch.save, s3fs", "torch_save", "TorchSaveS3fs", _TORCH, _ATOMIC),
        Contender("torch.save, memory, boto3", "torch_save_boto3", "TorchSaveBoto3", ("torch", "boto3"), _ATOMIC),
        Contender("DCP save, FsspecWriter", "checkpoint", "DistributedCheckpoint", _TORCH, _ATOMIC),
        Contender("DCP async_save, waited for", "checkpoint", "DistributedCheckpointAsync", _TORCH, _ATOMIC),
        Contender(
            "safetensors, memory, obstore, unsigned",
            "safetensors_obstore",
            "SafetensorsObstore",
            ("torch", "safetensors", "obstore"),
            _ATOMIC,
        ),
        Contender("limit: boto3, raw bytes", "boto3_client", "RawBoto3", ("torch", "boto3"), is_limit=True),
        Contender("limit: obstore, raw bytes", "obstore_client", "RawObstore", ("torch", "obstore"), is_limit=True),
        Contender(
            "limit: obstore, unsigned", "obstore_client", "RawObstoreUnsigned", ("torch", "obstore"), is_limit=True
        ),
    ),
}
"""The methods on each storage, with what they guarantee: *atomic*, a reader sees all of a save or nothing of it,
whenever the writer dies; *verified*, a restore checks each byte against a digest before it uses it; *durable*, a save
that has returned survives a power cut (on an object store: by the server's word)."""


def measure_tensors(
    grounds: Grounds,
    where: str,
    contender: Contender,
    workload: TensorWorkload,
    *,
    groups: tuple[str, ...] | None = None,
    counted: bool = False,
) -> Trial:
    """Save a state, change it, save it again, and restore it in another process.

    Args:
        grounds: Where it takes place.
        where: ``"local"`` or ``"s3"``.
        contender: The method.
        workload: What is saved.
        groups: What is restored; None for all.
        counted: Whether the traffic to the S3 server is counted.

    Raises:
        TrialError: The method failed, or did not restore what was saved.
    """
    place = grounds.new(where, counted=counted)
    try:
        saved = run_trial(grounds, write, contender, place, workload, counted=counted)
        return saved | run_trial(grounds, read, contender, place, workload, groups, counted=counted)
    finally:
        grounds.clear(place)


def write(recorder: Recorder, contender: Contender, place: Place, workload: TensorWorkload) -> None:
    """Save twice; runs in a process of its own."""
    _calm()
    state = workload.make()
    method = contender.load()(place)
    method.prepare(state)
    recorder.measure(FIRST, lambda: method.save(state, 1))
    workload.change(state, 1)
    recorder.measure(NEXT, lambda: method.save(state, 2))
    method.close()


def read(
    recorder: Recorder, contender: Contender, place: Place, workload: TensorWorkload, groups: tuple[str, ...] | None
) -> None:
    """Restore and compare; runs in a process of its own."""
    _calm()
    live = workload.zeros(groups)
    method = contender.load()(place)
    method.prepare(live)
    recorder.measure(RESTORE, lambda: method.restore(live, 2))
    if not contender.is_limit:
        workload.check(live, 1)
    method.close()


def _calm() -> None:
    """Let torch copy with one thread: several that spin for each other on a busy machine cost more than they gain."""
    torch.set_num_threads(1)
