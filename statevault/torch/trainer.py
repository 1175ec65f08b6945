"""Trainers with torch models, optimizers and learning rate schedulers."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, overload

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from typing_extensions import override

from statevault.errors import FormatError
from statevault.state_persistence import read_tree, write_tree
from statevault.torch.optimizer_state import (
    Names,
    SavedOptimizers,
    capture,
    name_parameters,
    plan_restore,
    restore,
)
from statevault.torch.parameters import read_torch_file
from statevault.torch.training_model import TorchTrainingModel
from statevault.trainer import Trainer

__all__ = ["OptimizersSetup", "TorchTrainer"]

OptimizersSetup: TypeAlias = dict[str, Optimizer] | tuple[dict[str, Optimizer], dict[str, LRScheduler]]
"""What ``create_optimizers`` returns: optimizers by name, or these and schedulers by name."""

M = TypeVar("M", bound=nn.Module)

_FILE = "optimizers.tree"


class TorchTrainer(Trainer):
    """A trainer of torch models.

    Optimizers and schedulers are created once, when they are first needed, and live as long as the trainer:
    the modules of its models stay the same objects. Their state is saved with the trainer.
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
        super().__init__(training_condition_data_user, min_buffer_size, min_new_data_count)
        self._optimizers: dict[str, Optimizer] | None = None
        self._lr_schedulers: dict[str, LRScheduler] = {}
        # States that wait for their optimizers and schedulers to be created.
        self._saved: SavedOptimizers | None = None

    @abstractmethod
    def create_optimizers(self) -> OptimizersSetup:
        """Create the optimizers, and perhaps learning rate schedulers; called once, when the models are attached.

        Returns:
            A dict of optimizers by name, or a tuple of it and a dict of schedulers by name.
        """

    @property
    def optimizers(self) -> dict[str, Optimizer]:
        """The optimizers by name; created when they are first asked for.

        Raises:
            RuntimeError: No models have been attached yet.
            FormatError: A loaded state does not fit them.
        """
        if self._optimizers is None:
            created = self.create_optimizers()
            optimizers, lr_schedulers = created if isinstance(created, tuple) else (created, {})
            if self._saved is not None:
                restore(plan_restore(self._saved, optimizers, lr_schedulers, self._name_parameters()))
                self._saved = None
            self._optimizers, self._lr_schedulers = dict(optimizers), dict(lr_schedulers)
        return self._optimizers

    @property
    def lr_schedulers(self) -> dict[str, LRScheduler]:
        """The learning rate schedulers by name; created together with the optimizers."""
        _ = self.optimizers
        return self._lr_schedulers

    @overload
    def get_torch_training_model(self, name: str) -> TorchTrainingModel[nn.Module]: ...
    @overload
    def get_torch_training_model(self, name: str, module_cls: type[M]) -> TorchTrainingModel[M]: ...
    def get_torch_training_model(self, name: str, module_cls: type[nn.Module] = nn.Module) -> Any:
        """Return a training model, which from now on is synced after each run.

        Args:
            name: Its name.
            module_cls: The class that its module has.

        Raises:
            KeyError: There is no such model, or it is for the inference thread only.
            ValueError: It is not a torch model.
            TypeError: Its module is of another class.
            RuntimeError: No models have been attached yet.
        """
        model = self.get_training_model(name)
        if not isinstance(model, TorchTrainingModel):
            raise ValueError(f"the model {name!r} is a {type(model).__name__}, not a TorchTrainingModel")
        if not isinstance(model.model, module_cls):
            raise TypeError(f"the model {name!r} has a {type(model.model).__name__}, not a {module_cls.__name__}")
        return model

    @override
    def setup(self) -> None:
        """Create the optimizers, if this is the first run."""
        super().setup()
        _ = self.optimizers

    @override
    def save_state(self, path: Path) -> None:
        """Save what the trainer saves, and the state of its optimizers and schedulers, in a new folder ``path``.

        Raises:
            UnsupportedTypeError: A state dict holds a value that can't be stored without pickle.
        """
        super().save_state(path)
        saved = self._saved
        if self._optimizers is not None:
            saved = capture(self._optimizers, self._lr_schedulers, self._name_parameters())
        if saved is not None:
            record = {"optimizers": saved.optimizers, "lr_schedulers": saved.lr_schedulers}
            if saved.made_of is not None:
                record["made_of"] = saved.made_of
            write_tree(record, path / _FILE, held=True)

    @override
    def load_state(self, path: Path) -> None:
        """Load what :meth:`save_state` saved, or what PAMIQ-Core wrote (``*.optim.pt``, ``*.lrsch.pt``).

        Optimizers that exist already take the state at once, others when they are created. If the state was
        saved before there were any, they are created anew.

        Raises:
            FileNotFoundError: Nothing was saved under this path.
            FormatError: The file is not a trainer's, is damaged, or does not fit the optimizers.
            PickleNotAllowedError: A file of PAMIQ-Core holds more than tensors and plain values.
        """
        saved = _read(path)
        planned = None
        if saved is not None and self._optimizers is not None:
            planned = plan_restore(saved, self._optimizers, self._lr_schedulers, self._name_parameters())
        super().load_state(path)
        if saved is None:
            self._optimizers, self._lr_schedulers = None, {}
        elif planned is not None:
            restore(planned)
            saved = None
        self._saved = saved

    def _name_parameters(self) -> Names:
        models = self._training_models or {}
        return name_parameters(
            {name: model.model for name, model in models.items() if isinstance(model, TorchTrainingModel)}
        )


def _read(path: Path) -> SavedOptimizers | None:
    file = path / _FILE
    if file.exists():
        record = read_tree(file)
        try:
            made_of = record.get("made_of")  # older versions saved none
            return SavedOptimizers(dict(record["optimizers"]), dict(record["lr_schedulers"]), made_of)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise FormatError(f"{file} does not hold the state of optimizers") from error
    optimizers = {file.name.removesuffix(".optim.pt"): read_torch_file(file) for file in path.glob("*.optim.pt")}
    lr_schedulers = {file.name.removesuffix(".lrsch.pt"): read_torch_file(file) for file in path.glob("*.lrsch.pt")}
    return SavedOptimizers(optimizers, lr_schedulers) if optimizers or lr_schedulers else None
