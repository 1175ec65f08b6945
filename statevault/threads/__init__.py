"""The threads of a running agent: control, inference and training."""

from statevault.interaction import ThreadEventMixin
from statevault.threads.control import ControlThread, SystemStatus
from statevault.threads.controller import ThreadController, ThreadPhase, ThreadStatus
from statevault.threads.inference import InferenceThread
from statevault.threads.lifecycle import Event, Instruction, Lifecycle, Phase, transition
from statevault.threads.save_log import SaveLog, SavePhase, SaveReport
from statevault.threads.save_supervisor import SaveStatus, SaveSupervisor
from statevault.threads.tick_statistics import TickStatistics
from statevault.threads.training import TrainingThread
from statevault.threads.worker import WorkerThread

__all__ = [
    "ControlThread",
    "Event",
    "InferenceThread",
    "Instruction",
    "Lifecycle",
    "Phase",
    "SaveLog",
    "SavePhase",
    "SaveReport",
    "SaveStatus",
    "SaveSupervisor",
    "SystemStatus",
    "ThreadController",
    "ThreadEventMixin",
    "ThreadPhase",
    "ThreadStatus",
    "TickStatistics",
    "TrainingThread",
    "WorkerThread",
    "transition",
]
