"""Models without torch: the two sides, and their dicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from statevault.errors import InvalidNameError
from statevault.model import InferenceModel, TrainingModel, TrainingModelsDict


class Scale(InferenceModel):
    def __init__(self, factor: float) -> None:
        self.factor = factor

    @override
    def infer(self, *args: Any, **kwds: Any) -> Any:
        return self.factor * args[0] + kwds.get("offset", 0)


class TrainedScale(TrainingModel[Scale]):
    def __init__(self, factor: float = 1.0, *args: bool, **kwds: bool) -> None:
        super().__init__(*args, **kwds)
        self.factor = factor

    @override
    def _create_inference_model(self) -> Scale:
        return Scale(self.factor)

    @override
    def forward(self, *args: Any, **kwds: Any) -> Any:
        return self.factor * args[0]

    @override
    def sync_impl(self, inference_model: Scale) -> None:
        inference_model.factor = self.factor

    @override
    def save_state(self, path: Path) -> None:
        path.write_text(str(self.factor))

    @override
    def load_state(self, path: Path) -> None:
        self.factor = float(path.read_text())


def test_the_inference_model_is_one_object_that_a_sync_brings_up_to_date() -> None:
    model = TrainedScale(2.0)
    inference = model.inference_model
    model.factor = 3.0
    assert (model(1.0), inference(1.0, offset=1)) == (3.0, 3.0)
    assert inference(1.0) == 2.0
    model.sync()
    assert model.inference_model is inference
    assert inference(1.0) == 3.0


def test_a_model_without_an_inference_model_says_so() -> None:
    model = TrainedScale(1.0, False)
    model.sync()
    with pytest.raises(RuntimeError, match="has_inference_model=False"):
        _ = model.inference_model


def test_a_model_that_nobody_could_use_is_refused() -> None:
    with pytest.raises(ValueError, match="inference"):
        TrainedScale(1.0, has_inference_model=False, inference_thread_only=True)


def make(factor: float = 1.0) -> TrainingModelsDict:
    return TrainingModelsDict(
        {"both": TrainedScale(factor), "trained": TrainedScale(factor, False)},
        frozen=TrainedScale(factor, inference_thread_only=True),
    )


def test_trainers_do_not_see_models_for_the_inference_thread_only() -> None:
    models = make()
    assert models["both"](1.0) == 1.0
    assert sorted(models) == sorted(models.keys()) == ["both", "trained"]
    assert len(models.items()) == len(models) == 2
    assert "frozen" not in models
    with pytest.raises(KeyError, match="'frozen' is for the inference thread only"):
        models["frozen"]
    with pytest.raises(KeyError, match=r"no model 'x'; there are \['both', 'frozen', 'trained'\]"):
        models["x"]
    with pytest.raises(KeyError, match=r"no inference model 'x'; there are \['both', 'frozen'\]"):
        models.inference_models_dict["x"]


def test_the_acting_side_sees_models_that_infer() -> None:
    models = make()
    inference = models.inference_models_dict
    assert sorted(inference) == ["both", "frozen"]
    assert inference["both"] is models["both"].inference_model
    models["both"] = TrainedScale(5.0, False)
    assert sorted(inference) == ["frozen"]
    del models["frozen"]
    assert not inference


def test_all_models_are_saved_and_loading_syncs_them(tmp_path: Path) -> None:
    make(7.0).save_state(tmp_path / "models")
    assert sorted(p.name for p in (tmp_path / "models").iterdir()) == ["both", "frozen", "trained"]
    models = make(1.0)
    models.load_state(tmp_path / "models")
    assert models["trained"](1.0) == 7.0
    assert models.inference_models_dict["both"](1.0) == 7.0


def test_a_model_that_the_state_lacks_is_named(tmp_path: Path) -> None:
    make().save_state(tmp_path / "models")
    with pytest.raises(FileNotFoundError, match="no model 'other'"):
        TrainingModelsDict(other=TrainedScale()).load_state(tmp_path / "models")


@pytest.mark.parametrize("name", ["a/b", "", ".."])
def test_a_name_that_is_no_file_name_is_refused_at_once(name: str) -> None:
    with pytest.raises(InvalidNameError):
        TrainingModelsDict({name: TrainedScale()})
