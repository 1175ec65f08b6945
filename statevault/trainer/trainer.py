"""One training procedure, run again and again by the training thread."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from typing_extensions import override

from statevault import time
from statevault.errors import FormatError
from statevault.state_persistence import PersistentStateMixin

__all__ = ["DataSource", "SyncedModel", "Trainer"]

_TIME_FILE = "previous_training_time"


class SyncedModel(Protocol):
    """What a trainer needs of a training model: :class:`statevault.model.TrainingModel` has it."""

    def sync(self) -> None:
        """Bring the inference side up to date."""


class DataSource(Protocol):
    """What a trainer needs of a data user: :class:`statevault.data.DataUser` has it."""

    def update(self) -> None:
        """Move collected samples into the buffer."""

    def count_data_added_since(self, timestamp: float) -> int:
        """Count the samples that were collected at or after a time."""

    def __len__(self) -> int:
        """How many samples the buffer holds."""
        ...


class Trainer(ABC, PersistentStateMixin):
    """A training procedure: :meth:`run` does it once, if there is enough data.

    A trainer takes its models in :meth:`on_training_models_attached` and its data in
    :meth:`on_data_users_attached`; models that it took are synced after each run.
    """

    def __init__(
        self,
        training_condition_data_user: str | None = None,
        min_buffer_size: int = 0,
        min_new_data_count: int = 0,
    ) -> None:
        """Initialize.

        Args:
            training_condition_data_user: Name of the data user that the two minima are about; None: train
                always.
            min_buffer_size: How many samples its buffer must hold.
            min_new_data_count: How many samples must have been collected since the previous run began.

        Raises:
            ValueError: A minimum is negative, or given without a data user.
        """
        super().__init__()
        if min_buffer_size < 0 or min_new_data_count < 0:
            raise ValueError("min_buffer_size and min_new_data_count must not be negative")
        if training_condition_data_user is None and (min_buffer_size or min_new_data_count):
            raise ValueError(
                "min_buffer_size and min_new_data_count need training_condition_data_user, the name of the data "
                "user whose samples to count"
            )
        self._training_condition_data_user = training_condition_data_user
        self._min_buffer_size = min_buffer_size
        self._min_new_data_count = min_new_data_count
        self._previous_training_time = -math.inf
        self._training_models: Mapping[str, Any] | None = None
        self._data_users: Mapping[str, Any] | None = None
        self._models_to_sync: dict[str, SyncedModel] = {}

    def attach_training_models(self, training_models: Mapping[str, Any]) -> None:
        """Give the trainer the models that it may train.

        Args:
            training_models: A :class:`statevault.model.TrainingModelsDict`.
        """
        self._training_models = training_models
        self._models_to_sync.clear()
        self.on_training_models_attached()

    def on_training_models_attached(self) -> None:
        """Called when the models are there: get them here with :meth:`get_training_model`."""

    def attach_data_users(self, data_users: Mapping[str, Any]) -> None:
        """Give the trainer the data that it may use.

        Args:
            data_users: A :class:`statevault.data.DataUsersDict`.
        """
        self._data_users = data_users
        self.on_data_users_attached()

    def on_data_users_attached(self) -> None:
        """Called when the data users are there: get them here with :meth:`get_data_user`."""

    def get_training_model(self, name: str) -> Any:
        """Return a training model, which from now on is synced after each run.

        Args:
            name: Its name.

        Raises:
            KeyError: There is no such model, or it is for the inference thread only.
            RuntimeError: No models have been attached yet.
        """
        if self._training_models is None:
            raise RuntimeError(
                f"{type(self).__name__} has no models yet: get them in on_training_models_attached(), or later"
            )
        model = self._training_models[name]
        self._models_to_sync[name] = model
        return model

    def get_data_user(self, name: str) -> Any:
        """Return a data user.

        Args:
            name: Its name.

        Raises:
            KeyError: There is no such data user.
            RuntimeError: No data users have been attached yet.
        """
        if self._data_users is None:
            raise RuntimeError(
                f"{type(self).__name__} has no data users yet: get them in on_data_users_attached(), or later"
            )
        try:
            return self._data_users[name]
        except KeyError:
            raise KeyError(f"there is no data user {name!r}; there are {sorted(self._data_users)}") from None

    def is_trainable(self) -> bool:
        """Tell whether there is enough data, of it enough new; a subclass may add conditions.

        Raises:
            KeyError: The data user of the condition does not exist.
            RuntimeError: No data users have been attached yet.
        """
        if self._training_condition_data_user is None:
            return True
        source: DataSource = self.get_data_user(self._training_condition_data_user)
        source.update()
        # A clock that was not loaded with the trainer may be behind the time of the previous run: samples collected
        # from here on are new, not only those after the clock has caught up.
        self._previous_training_time = min(self._previous_training_time, time.time())
        return (
            len(source) >= self._min_buffer_size
            and source.count_data_added_since(self._previous_training_time) >= self._min_new_data_count
        )

    def setup(self) -> None:
        """Called before each :meth:`train`."""

    @abstractmethod
    def train(self) -> None:
        """Train the models."""

    def sync_models(self) -> None:
        """Bring the inference sides of the models that this trainer got up to date."""
        for model in self._models_to_sync.values():
            model.sync()

    def teardown(self) -> None:
        """Called after each :meth:`train`, when the models are synced."""

    def run(self) -> bool:
        """Train once, if :meth:`is_trainable`.

        Returns:
            Whether it trained.
        """
        began = time.time()
        if not self.is_trainable():
            return False
        # From before the look at the data: a sample collected meanwhile is new to the next run as well, never
        # to none.
        self._previous_training_time = began
        self.setup()
        self.train()
        self.sync_models()
        self.teardown()
        return True

    def on_paused(self) -> None:
        """Called when the system has paused."""

    def on_resumed(self) -> None:
        """Called when the system goes on."""

    @override
    def save_state(self, path: Path) -> None:
        """Save the time of the previous run in the folder ``path``, to which subclasses add their files."""
        path.mkdir(exist_ok=True)
        (path / _TIME_FILE).write_text(repr(self._previous_training_time), encoding="utf-8")

    @override
    def load_state(self, path: Path) -> None:
        """Load what :meth:`save_state` saved.

        Raises:
            FileNotFoundError: Nothing was saved under this path.
            FormatError: The file holds no time.
        """
        file = path / _TIME_FILE
        text = file.read_text(encoding="utf-8")
        try:
            self._previous_training_time = float(text)
        except ValueError as error:
            raise FormatError(f"{file} should hold a time in seconds, but holds {text[:40]!r}") from error
