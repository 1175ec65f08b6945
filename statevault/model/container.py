"""The models of an agent by name: training sides for its trainers, inference sides for its acting side."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from typing_extensions import override

from statevault.format.names import check_component_name
from statevault.model.interface import InferenceModel, TrainingModel
from statevault.state_persistence import PersistentStateMixin

__all__ = ["InferenceModelsDict", "TrainingModelsDict"]


class InferenceModelsDict(UserDict[str, InferenceModel]):
    """Inference models by name."""

    def __missing__(self, key: str) -> NoReturn:
        raise KeyError(f"there is no inference model {key!r}; there are {sorted(self.data)}")


class TrainingModelsDict(UserDict[str, TrainingModel[Any]], PersistentStateMixin):
    """Training models by name; they are saved below one folder, each under its name.

    Looking up and iterating give what trainers may use: models for the inference thread only are held and
    saved too, but hidden.
    """

    def __init__(self, models: Mapping[str, TrainingModel[Any]] | None = None, /, **kwargs: TrainingModel[Any]) -> None:
        """Initialize with training models.

        Args:
            models: Training models by name.
            **kwargs: More of them.

        Raises:
            InvalidNameError: A name can't be the name of a file.
        """
        self._inference_models = InferenceModelsDict()
        super().__init__(models, **kwargs)

    @property
    def inference_models_dict(self) -> InferenceModelsDict:
        """The inference sides of the models that have one, by the same names."""
        return self._inference_models

    @override
    def __getitem__(self, key: str) -> TrainingModel[Any]:
        model = self.data.get(key)
        if model is None:
            raise KeyError(f"there is no model {key!r}; there are {sorted(self.data)}")
        if model.inference_thread_only:
            raise KeyError(f"the model {key!r} is for the inference thread only: it can't be trained")
        return model

    @override
    def __setitem__(self, key: str, item: TrainingModel[Any]) -> None:
        check_component_name(key)
        super().__setitem__(key, item)
        self._inference_models.pop(key, None)
        if item.has_inference_model:
            self._inference_models[key] = item.inference_model

    @override
    def __delitem__(self, key: str) -> None:
        super().__delitem__(key)
        self._inference_models.pop(key, None)

    @override
    def __contains__(self, key: object) -> bool:
        return key in self.data and not self.data[key].inference_thread_only

    @override
    def __iter__(self) -> Iterator[str]:
        return (name for name, model in self.data.items() if not model.inference_thread_only)

    @override
    def __len__(self) -> int:
        return sum(1 for _ in self)

    @override
    def save_state(self, path: Path) -> None:
        """Save each model under its name below a new folder ``path``."""
        self.save_early(path)
        self.save_late(path)

    def save_early(self, path: Path) -> None:
        """Save the models that trainers may use, while the agent may use their inference sides."""
        path.mkdir(exist_ok=True)
        for name, model in self.items():
            model.save_state(path / name)

    def save_late(self, path: Path) -> None:
        """Save the models for the inference thread only, which may change in a step of the agent."""
        for name, model in self.data.items():
            if model.inference_thread_only:
                model.save_state(path / name)

    @override
    def load_state(self, path: Path) -> None:
        """Load each model from below ``path`` and bring its inference side up to date.

        Raises:
            FileNotFoundError: The state has nothing of a model; the message names it.
        """
        self.load_members(path, self.member_names)

    @property
    def member_names(self) -> Collection[str]:
        """The names of all models, also of those that are hidden."""
        return self.data.keys()

    def load_members(self, path: Path, names: Collection[str]) -> None:
        """Load some of the models from below ``path`` and bring their inference sides up to date.

        Args:
            path: As for :meth:`load_state`.
            names: The names of the models.

        Raises:
            FileNotFoundError: The state has nothing of a model; the message names it.
        """
        for name in names:
            model = self.data[name]
            try:
                model.load_state(path / name)
            except FileNotFoundError as error:
                raise FileNotFoundError(
                    f"the state has no model {name!r} ({error}): load a state that was saved with this model, "
                    "or load what fits with strict=False"
                ) from error
            model.sync()
