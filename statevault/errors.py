"""Every error that statevault raises on purpose: one tree, divided by what a handler would do.

* Something is not there, or is there already: :class:`StateNotFoundError`, :class:`StatePrunedError`,
  :class:`ComponentNotFoundError`, :class:`StateExistsError`.
* The bytes are not what they should be: :class:`CorruptStateError`, :class:`FormatError`.
* The caller gave something that can't be kept or trusted: :class:`UnsupportedTypeError`,
  :class:`InvalidNameError`, :class:`PickleNotAllowedError`.
* A save (or a pin) did not happen, a later one may: :class:`SaveFencedError`, :class:`SaveSupersededError`,
  :class:`SaveTimeoutError`, :class:`StagingSpaceError`, :class:`PinConflictError`, :class:`StoreReplacedError`.
* A batch experiment: :class:`ExperimentNotFoundError`, :class:`ExperimentExistsError`, :class:`TrialTakenError`,
  :class:`TrialIncompleteError`, :class:`TrialFailedError`, :class:`WorkerDiedError`.
* The storage failed: :class:`StorageError` and its kin, whose :attr:`~StorageError.transient` says whether
  trying again can help.

Each class also inherits the builtin that people catch. All of them survive pickling, so they can cross a
process pool.
"""

from __future__ import annotations

from typing import Any

from typing_extensions import override

__all__ = [
    "ComponentNotFoundError",
    "CorruptStateError",
    "ExperimentExistsError",
    "ExperimentNotFoundError",
    "FormatError",
    "InvalidNameError",
    "MissingExtraError",
    "ObjectExistsError",
    "ObjectNotFoundError",
    "PauseTimeoutError",
    "PickleNotAllowedError",
    "PinConflictError",
    "SaveFencedError",
    "SaveSupersededError",
    "SaveTimeoutError",
    "StagingSpaceError",
    "StateExistsError",
    "StateNotFoundError",
    "StatePrunedError",
    "StateVaultError",
    "StorageAccessError",
    "StorageError",
    "StorageFullError",
    "StorageOptionError",
    "StorageTimeoutError",
    "StorageUnreachableError",
    "StoreNotFoundError",
    "StoreReplacedError",
    "TrialFailedError",
    "TrialIncompleteError",
    "TrialTakenError",
    "UnsupportedTypeError",
    "UnsupportedVersionError",
    "WorkerDiedError",
]


class StateVaultError(Exception):
    """The root of all errors of statevault."""


class StateNotFoundError(StateVaultError, FileNotFoundError):
    """No committed state of that name is in the store."""


class StatePrunedError(StateNotFoundError):
    """The state was there and was removed: by retention, by somebody, or since its save was given up."""


class ComponentNotFoundError(StateVaultError, KeyError):
    """A component is registered but not in the state, or asked for but not registered."""

    @override
    def __str__(self) -> str:
        # KeyError shows repr(message), which is unreadable for a sentence.
        return Exception.__str__(self)


class StateExistsError(StateVaultError, FileExistsError):
    """A state of that name exists or existed; names are never used twice."""


class CorruptStateError(StateVaultError, ValueError):
    """Stored bytes are missing, cut short, or do not match their digest."""


class FormatError(StateVaultError, ValueError):
    """Bytes are not in the format that they should be in: foreign, hostile or malformed."""


class UnsupportedVersionError(FormatError):
    """The store or file was written by a newer format than this version of statevault reads."""


class UnsupportedTypeError(StateVaultError, TypeError):
    """An object holds a value that can't be stored without pickle, or a module one that can't be copied."""


class InvalidNameError(StateVaultError, ValueError):
    """A name of a state, a component or a file can't be used as one."""


class PickleNotAllowedError(StateVaultError, ValueError):
    """A pickle was to be written or read in a store that was made without ``allow_pickle=True``."""


class PinConflictError(StateVaultError):
    """The state was not pinned: a prune may be removing it just now."""


class SaveFencedError(StateVaultError):
    """The save was given up by a prune that took its writer for dead.

    Nothing of it is visible, or, if the prune had seen its marker in time, all of it.
    """


class StoreReplacedError(StateVaultError):
    """Another store lies where the one was that this process knew: somebody has wiped it, and perhaps used it again.

    Nothing was removed, or saved. What was known of the store is forgotten: the next call is about the one that is
    there now.
    """


class SaveSupersededError(StateVaultError):
    """The snapshot was replaced by a newer one before its publish began."""


class SaveTimeoutError(StateVaultError, TimeoutError):
    """Saves did not end in the time that they were given. They go on, as long as the process lives."""


class StagingSpaceError(StateVaultError, OSError):
    """There is no room for a snapshot in the staging folder, or for a file in the folder for temporary files."""


class ExperimentNotFoundError(StateVaultError, FileNotFoundError):
    """No experiment, or no such part of one, is in the folder."""


class ExperimentExistsError(StateVaultError, FileExistsError):
    """The folder holds an experiment already."""


class TrialTakenError(StateVaultError):
    """Another worker works on the trial, or has taken it over."""


class TrialFailedError(StateVaultError, RuntimeError):
    """A trial failed in another process, and its exception could not be brought back: the message has its traceback."""


class WorkerDiedError(StateVaultError):
    """A process that ran trials came to an end in the middle of one. What it had saved stays, and is gone on from."""


class TrialIncompleteError(StateVaultError, ValueError):
    """The trial has no result: it is not complete."""


class PauseTimeoutError(StateVaultError, TimeoutError):
    """A thread did not reach its pause point in time."""


class MissingExtraError(StateVaultError, ImportError):
    """An optional package is needed, or a newer one; the message holds the ``pip install`` that brings it."""


class StorageError(StateVaultError, OSError):
    """A storage backend failed.

    Attributes:
        transient: Whether the same call may succeed when it is tried again.
        url: The store, without credentials; empty when not known.
        key: The object that the call was about; empty when it was about none.
    """

    def __init__(self, message: str, *, transient: bool = False, url: str = "", key: str = "") -> None:
        super().__init__(message)
        self.transient = transient
        self.url = url
        self.key = key

    @override
    def __reduce__(self) -> tuple[Any, ...]:
        state = {"transient": self.transient, "url": self.url, "key": self.key}
        return (type(self), (str(self),), state)


class ObjectNotFoundError(StorageError, FileNotFoundError):
    """No object lies under that key."""


class ObjectExistsError(StorageError, FileExistsError):
    """A create-only put found an object under its key."""


class StoreNotFoundError(StorageError, FileNotFoundError):
    """The bucket (or the folder that should hold the store) does not exist."""


class StorageAccessError(StorageError, PermissionError):
    """The credentials are missing, wrong or not sufficient, or the folder is read-only."""


class StorageFullError(StorageError):
    """The disk or the quota is full."""


class StorageOptionError(StorageError, ValueError):
    """A storage option, or an environment variable in its place, can't be used: nothing was asked of the storage."""


class StorageTimeoutError(StorageError, TimeoutError):
    """The backend did not answer in time."""


class StorageUnreachableError(StorageError, ConnectionError):
    """The backend could not be reached, or the connection broke."""
