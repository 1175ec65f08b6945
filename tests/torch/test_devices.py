"""States that were saved on one device are loaded on another."""

from __future__ import annotations

import struct
from pathlib import Path

import msgpack
import pytest
import torch
from typing_extensions import override

from statevault.codecs.tree.layout import PREAMBLE_SIZE, build_head, parse_preamble, segment_offsets
from statevault.errors import FormatError, StateVaultError, UnsupportedTypeError
from statevault.model import TrainingModelsDict
from statevault.state_persistence import StateStore
from statevault.torch import TorchTrainer, TorchTrainingModel
from statevault.trainer import TrainersDict

WIDTH = 64


def record_device(file: Path, device: str) -> int:
    """Rewrite a tree file as if its tensors had been on another device.

    Returns:
        The number of tensors.
    """
    data = file.read_bytes()
    preamble = parse_preamble(data)
    offsets, lengths, _ = segment_offsets(preamble, memoryview(data)[PREAMBLE_SIZE : preamble.table_end])
    values_at = preamble.table_end + preamble.leaf_table_length
    blocks, leaves = msgpack.unpackb(data[preamble.table_end : values_at])
    tensors = [leaf for leaf in leaves if leaf[0] == "t"]
    for leaf in tensors:
        assert leaf[-1] is None
        leaf[-1] = device
    values = data[values_at : preamble.head_length]
    head = build_head(lengths, msgpack.packb([blocks, leaves]), values, flags=preamble.flags)
    file.write_bytes(head + data[offsets[0] :])
    assert struct.pack("<Q", lengths[0]) in head
    return len(tensors)


class SavedOnCuda(TorchTrainingModel[torch.nn.Linear]):
    """A model whose file says that its tensors were on a GPU."""

    @override
    def save_state(self, path: Path) -> None:
        super().save_state(path)
        assert record_device(path.with_name(f"{path.name}.tree"), "cuda:3") == 2


class Learner(TorchTrainer):
    saved_on_cuda = False

    @override
    def on_training_models_attached(self) -> None:
        self.policy = self.get_torch_training_model("policy")

    @override
    def create_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"adam": torch.optim.Adam(self.policy.model.parameters(), lr=0.01)}

    @override
    def train(self) -> None:
        self.policy(torch.ones(WIDTH)).sum().backward()
        self.optimizers["adam"].step()

    @override
    def save_state(self, path: Path) -> None:
        super().save_state(path)
        if self.saved_on_cuda:
            assert record_device(path / "optimizers.tree", "cuda:3") >= 4


def store(root: Path, model: TorchTrainingModel[torch.nn.Linear], trainer: Learner) -> StateStore:
    models, trainers = TrainingModelsDict({"policy": model}), TrainersDict({"learner": trainer})
    trainers.attach_training_models(models)
    made = StateStore(root)
    made.register("models", models)
    made.register("trainers", trainers)
    return made


def test_a_state_saved_on_a_gpu_goes_on_without_one(tmp_path: Path) -> None:
    saved, learner = SavedOnCuda(torch.nn.Linear(WIDTH, WIDTH)), Learner()
    learner.saved_on_cuda = True
    with store(tmp_path, saved, learner) as saving:
        learner.run()
        saving.save_state()
    loaded, other = TorchTrainingModel(torch.nn.Linear(WIDTH, WIDTH)), Learner()
    with store(tmp_path, loaded, other) as loading:
        loading.load_state()
    assert {value.device.type for value in loaded.model.state_dict().values()} == {"cpu"}
    for model, trainer in ((saved, learner), (loaded, other)):
        model.model.zero_grad()
        trainer.run()
    for name, value in saved.model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], value), name


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_the_default_device_decides_nothing(device: str, tmp_path: Path) -> None:
    saved, learner = TorchTrainingModel(torch.nn.Linear(WIDTH, WIDTH)), Learner()
    loaded, other = TorchTrainingModel(torch.nn.Linear(WIDTH, WIDTH)), Learner()
    with store(tmp_path, saved, learner) as saving:
        learner.run()
        with torch.device(device):
            saving.save_state()
    with store(tmp_path, loaded, other) as loading, torch.device(device):
        loading.load_state()
    for model, trainer in ((saved, learner), (loaded, other)):
        model.model.zero_grad()
        trainer.run()
    for name, value in saved.model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], value), name


def test_a_model_without_values_is_neither_saved_nor_loaded(tmp_path: Path) -> None:
    """Torch would only warn that it has copied nothing."""
    TorchTrainingModel(torch.nn.Linear(WIDTH, WIDTH)).save_state(tmp_path / "policy")
    torch.save(torch.nn.Linear(WIDTH, WIDTH).state_dict(), tmp_path / "other.pt")
    with torch.device("meta"):
        model = TorchTrainingModel(torch.nn.Linear(WIDTH, WIDTH))
    for name in ("policy", "other"):
        with pytest.raises(StateVaultError, match="weight of the Linear is on the meta device") as caught:
            model.load_state(tmp_path / name)
        assert not isinstance(caught.value, FormatError)
    with pytest.raises(UnsupportedTypeError, match="meta device has no values"):
        model.save_state(tmp_path / "again")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("saved_on", "loaded_on"), [("cuda", "cpu"), ("cpu", "cuda"), ("cuda", "cuda")])
def test_a_state_moves_between_real_devices(saved_on: str, loaded_on: str, tmp_path: Path) -> None:
    saved = TorchTrainingModel(torch.nn.Linear(WIDTH, WIDTH), device=saved_on)
    saved.save_state(tmp_path / "policy")
    loaded = TorchTrainingModel(torch.nn.Linear(WIDTH, WIDTH), device=loaded_on)
    loaded.load_state(tmp_path / "policy")
    assert loaded.model.weight.device.type == loaded_on
    assert torch.equal(loaded.model.weight.cpu(), saved.model.weight.cpu())
