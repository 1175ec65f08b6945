"""The trainers of an agent by name."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from typing_extensions import override

from statevault.format.names import check_component_name
from statevault.state_persistence import PersistentStateMixin
from statevault.trainer.trainer import Trainer

__all__ = ["TrainersDict"]


class TrainersDict(UserDict[str, Trainer], PersistentStateMixin):
    """Trainers by name, in the order in which they run; they are saved below one folder, each under its name."""

    def __init__(self, trainers: Mapping[str, Trainer] | None = None, /, **kwargs: Trainer) -> None:
        """Initialize with trainers.

        Args:
            trainers: Trainers by name.
            **kwargs: More of them.

        Raises:
            InvalidNameError: A name can't be the name of a file.
        """
        super().__init__(trainers, **kwargs)

    @override
    def __setitem__(self, key: str, item: Trainer) -> None:
        check_component_name(key)
        super().__setitem__(key, item)

    def attach_training_models(self, training_models: Mapping[str, Any]) -> None:
        """Give all trainers the models that they may train.

        Args:
            training_models: A :class:`statevault.model.TrainingModelsDict`.
        """
        for trainer in self.values():
            trainer.attach_training_models(training_models)

    def attach_data_users(self, data_users: Mapping[str, Any]) -> None:
        """Give all trainers the data that they may use.

        Args:
            data_users: A :class:`statevault.data.DataUsersDict`.
        """
        for trainer in self.values():
            trainer.attach_data_users(data_users)

    def on_paused(self) -> None:
        """Tell all trainers that the system has paused."""
        for trainer in self.values():
            trainer.on_paused()

    def on_resumed(self) -> None:
        """Tell all trainers that the system goes on."""
        for trainer in self.values():
            trainer.on_resumed()

    @override
    def save_state(self, path: Path) -> None:
        """Save each trainer under its name below a new folder ``path``."""
        path.mkdir(exist_ok=True)
        for name, trainer in self.items():
            trainer.save_state(path / name)

    def save_early(self, path: Path) -> None:
        """Save all trainers: only the training thread, which stands still, changes them."""
        self.save_state(path)

    def save_late(self, path: Path) -> None:
        """Nothing is left to be saved."""

    @override
    def load_state(self, path: Path) -> None:
        """Load each trainer from below ``path``.

        Raises:
            FileNotFoundError: The state has nothing of a trainer; the message names it.
        """
        self.load_members(path, self.member_names)

    @property
    def member_names(self) -> Collection[str]:
        """The names of the trainers."""
        return self.keys()

    def load_members(self, path: Path, names: Collection[str]) -> None:
        """Load some of the trainers from below ``path``.

        Args:
            path: As for :meth:`load_state`.
            names: The names of the trainers.

        Raises:
            FileNotFoundError: The state has nothing of a trainer; the message names it.
        """
        for name in names:
            try:
                self[name].load_state(path / name)
            except FileNotFoundError as error:
                raise FileNotFoundError(
                    f"the state has no trainer {name!r} ({error}): load a state that was saved with this trainer, "
                    "or load what fits with strict=False"
                ) from error
