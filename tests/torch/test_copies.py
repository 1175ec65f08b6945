"""Copies of modules that keep what they computed, that are not initialized yet, or that can't be copied."""

from __future__ import annotations

import collections
import dataclasses
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest
import torch
from torch import nn
from typing_extensions import override

from statevault.errors import StateVaultError, UnsupportedTypeError
from statevault.model import TrainingModelsDict
from statevault.state_persistence import StateStore
from statevault.torch import TorchTrainingModel

X = torch.arange(8.0).reshape(2, 4) / 8


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.Linear(4, 4)

    @override
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return cast("torch.Tensor", self.cell(x))


class Pair(NamedTuple):
    value: torch.Tensor
    step: int


@dataclasses.dataclass
class Kept:
    value: torch.Tensor


class Keeping(Plain):
    """Keeps its output in all the places that an attribute may be."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden: torch.Tensor | None = None
        self.cache: dict[str, Any] = {}
        self.pair: Pair | None = None
        self.kept: Kept | None = None
        self.last: collections.deque[torch.Tensor] = collections.deque(maxlen=2)
        self.references = [self.cell.weight, self.cell]

    @override
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(x) + (0 if self.hidden is None else self.hidden)
        self.hidden = y
        self.cache["cell"] = [(y, 2 * y)]
        self.pair, self.kept = Pair(y, 3), Kept(y)
        self.last.append(y)
        return y

    def values(self) -> list[torch.Tensor]:
        assert self.hidden is not None
        assert self.pair is not None
        assert self.kept is not None
        return [self.hidden, *self.cache["cell"][0], self.pair.value, self.kept.value, *self.last]


def old_spectral_norm() -> nn.Module:
    return nn.Sequential(nn.utils.spectral_norm(nn.Linear(4, 4)))


def old_weight_norm() -> nn.Module:
    return nn.Sequential(nn.utils.weight_norm(nn.Linear(4, 4)))


def pruned() -> nn.Module:
    from torch.nn.utils import prune

    layer = nn.Linear(4, 4)
    prune.l1_unstructured(layer, "weight", 0.5)  # type: ignore[no-untyped-call]
    return nn.Sequential(layer)


def parametrized() -> nn.Module:
    return nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4)))


def recurrent() -> nn.Module:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(4, 4)
            self.hidden: Any = None

        @override
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y, self.hidden = self.lstm(x.view(1, -1, 4), self.hidden)
            return cast("torch.Tensor", y)

    return Recurrent()


def expanded() -> nn.Module:
    class Expanded(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("offset", torch.ones(1).expand(4))

    return Expanded()


def step(module: nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize(
    "make", [Keeping, old_spectral_norm, old_weight_norm, pruned, parametrized, recurrent, expanded]
)
def test_a_module_that_has_computed_something_is_synced(make: Callable[[], nn.Module]) -> None:
    module = make()
    module(X)
    model = TorchTrainingModel(module)
    inference = model.inference_model
    for _ in range(5):
        module(X).sum().backward(retain_graph=True)
        step(module)
        model.sync()
        state, copied = module.state_dict(), inference.module.state_dict()
        assert state.keys() == copied.keys()
        assert all(torch.equal(state[name], copied[name]) for name in state)
        module.eval()
        with torch.no_grad():
            assert torch.equal(inference(X), module(X))
        module.train()


def test_kept_tensors_are_copied_at_every_sync_without_their_graph() -> None:
    module = Keeping()
    model = TorchTrainingModel(module)
    inference = model.inference_model
    for number in range(5):
        module(X)
        if number % 2:
            assert module.hidden is not None
            module.hidden = module.hidden.detach()
        model.sync()
        twin = inference.module
        for ours, theirs in zip(module.values(), twin.values(), strict=True):
            assert torch.equal(ours, theirs)
            assert not theirs.requires_grad
            assert ours.data_ptr() != theirs.data_ptr()
        assert twin.references[0] is twin.cell.weight
        assert twin.references[1] is twin.cell
    module.hidden = None
    model.sync()
    assert inference.module.hidden is None


def test_what_an_inference_has_returned_does_not_change() -> None:
    class Remembering(Plain):
        memory: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("memory", torch.zeros(2, 4))

        @override
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.memory = super().forward(x) + self.memory
            return self.memory

    for module in (Remembering(), Keeping()):
        model = TorchTrainingModel(module)
        for _ in range(4):
            returned = model.inference_model(X)
            before = returned.clone()
            step(module)
            model.sync()
            model.sync()
            assert torch.equal(returned, before)


def test_a_copy_can_be_trained() -> None:
    model = TorchTrainingModel(Keeping())
    for _ in range(3):
        model(X)
        model.sync()
        with model.inference_model.unwrap(inference_mode=False) as twin:
            twin(X).sum().backward()
            assert twin.cell.weight.grad is not None
            twin.zero_grad()


def test_gradients_are_asked_for_as_in_the_module() -> None:
    model = TorchTrainingModel(Plain())
    for flag in (False, True, False, False):
        model.model.cell.weight.requires_grad_(flag)
        model.sync()
        assert model.inference_model.module.cell.weight.requires_grad is flag


class Uninitialized(Plain):
    late: nn.UninitializedParameter
    later: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.late = nn.UninitializedParameter()
        self.register_buffer("later", nn.UninitializedBuffer())


def test_what_is_not_initialized_yet_is_synced_before_and_after() -> None:
    lazy: nn.Module = nn.Sequential(nn.LazyLinear(4), nn.LazyBatchNorm1d())
    late = Uninitialized()
    for module in (lazy, late):
        model = TorchTrainingModel(module)
        for _ in range(3):
            model.sync()
        if module is late:
            late.late.materialize((2, 3))
            late.later = torch.ones(3)
        module(X)
        for _ in range(3):
            step(module)
            model.sync()
            state, copied = module.state_dict(), model.inference_model.module.state_dict()
            assert all(torch.equal(state[name], copied[name]) for name in state)


class Subclass(torch.Tensor):
    """A tensor that torch can't copy."""


def with_attribute(value: object) -> nn.Module:
    module = nn.Sequential(Plain(), Plain())
    module[1].cell.own = value  # type: ignore[union-attr]
    return module


class Refusing(Plain):
    def __deepcopy__(self, memo: object) -> Refusing:
        raise AssertionError("no copies")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: with_attribute(threading.Lock()), r"1\.cell\.own is a _thread\.lock \(TypeError: cannot pickle"),
        (lambda: with_attribute(nn.Parameter(torch.ones(2).as_subclass(Subclass))), r"1\.cell\.own is a .*Subclass"),
        (lambda: nn.Sequential(Plain(), Refusing()), r"1 is a .*Refusing \(AssertionError: no copies\)"),
        (Refusing, r"the Refusing can't be copied for inference: Refusing is a .*no copies"),
    ],
)
def test_what_can_not_be_copied_is_named(make: Callable[[], nn.Module], words: str) -> None:
    model = TorchTrainingModel(make())
    with pytest.raises(UnsupportedTypeError, match=f"{words}.*Keep it out of the module.*has_inference_model=False"):
        _ = model.inference_model
    assert all(parameter.grad is None for parameter in model.model.parameters())


def test_what_can_not_be_copied_any_more_is_named_at_the_sync() -> None:
    model = TorchTrainingModel(Plain())
    model.sync()
    model.sync()
    vars(model.model)["kept"] = (torch.ones(1), threading.Lock())
    with pytest.raises(UnsupportedTypeError, match=r"Plain can't be copied for inference: kept is a builtins\.tuple"):
        model.sync()
    del model.model.kept
    step(model.model)
    model.sync()
    assert torch.equal(model.inference_model.module.cell.weight, model.model.cell.weight)


@pytest.fixture
def mesh() -> Iterator[Any]:
    distributed = pytest.importorskip("torch.distributed")
    if not distributed.is_available():
        pytest.skip("this torch can't distribute")
    from torch.distributed.device_mesh import init_device_mesh

    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


def save(module: nn.Module, folder: Path) -> None:
    model = TorchTrainingModel(module, has_inference_model=False)
    with StateStore(folder) as store:
        store.register("models", TrainingModelsDict(policy=model))
        store.save_state()


def test_distributed_tensors_are_synced_and_refused_at_save(mesh: Any, tmp_path: Path) -> None:
    from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

    class Distributed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(distribute_tensor(torch.randn(4, 4), mesh, [Shard(0)]))

        @override
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            inputs = DTensor.from_local(x, mesh, [Replicate()])
            return cast("torch.Tensor", (inputs @ self.weight).full_tensor())  # type: ignore[attr-defined]

    module = Distributed()
    model = TorchTrainingModel(module)
    for _ in range(4):
        module(X).sum().backward()
        step(module)
        model.sync()
        assert torch.equal(model.inference_model(X), module(X))
    with pytest.raises(UnsupportedTypeError, match=r"policy\.tree: \['parameters'\]\['weight'\]: .*full_tensor\(\)"):
        save(module, tmp_path)


def test_fully_sharded_modules_are_refused_with_their_name(mesh: Any) -> None:
    from torch.distributed.fsdp import fully_shard

    module = nn.Sequential(Plain(), Plain())
    fully_shard(module[0], mesh=mesh)
    model = TorchTrainingModel(module)
    with pytest.raises(UnsupportedTypeError, match=r"0 is a .*FSDPPlain \(AssertionError: FSDP does not support"):
        _ = model.inference_model


class TestState:
    def test_what_has_no_values_yet_is_named_at_save(self, tmp_path: Path) -> None:
        for module, name in ((nn.LazyLinear(4), "weight"), (Uninitialized(), "late")):
            with pytest.raises(UnsupportedTypeError, match=rf"policy\.tree: {name} of .* no values yet: call"):
                save(module, tmp_path)

    def test_a_lazy_module_gets_the_shapes_of_what_it_loads(self, tmp_path: Path) -> None:
        saved, loaded = TorchTrainingModel(nn.LazyLinear(4)), TorchTrainingModel(nn.LazyLinear(4))
        saved(X)
        saved.save_state(tmp_path / "m")
        loaded.load_state(tmp_path / "m")
        loaded.sync()
        assert torch.equal(loaded.inference_model(X), saved(X))

    def test_a_misfit_that_torch_alone_notices_is_a_format_error(self, tmp_path: Path) -> None:
        saved = Uninitialized()
        saved.late.materialize((2, 3))
        saved.later = torch.ones(3)
        TorchTrainingModel(saved).save_state(tmp_path / "m")
        with pytest.raises(StateVaultError, match="could not be loaded into the Uninitialized"):
            TorchTrainingModel(Uninitialized()).load_state(tmp_path / "m")

    @pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
    @pytest.mark.parametrize("make", [Keeping, old_spectral_norm, old_weight_norm, pruned, recurrent])
    def test_a_module_that_has_computed_something_is_saved_and_loaded(
        self, make: Callable[[], nn.Module], tmp_path: Path
    ) -> None:
        saved, loaded = TorchTrainingModel(make()), TorchTrainingModel(make())
        for model in (saved, loaded):
            model(X)
            step(model.model)
        saved.save_state(tmp_path / "m")
        loaded.load_state(tmp_path / "m")
        loaded.sync()
        for module in (loaded.model, loaded.inference_model.module):
            assert all(
                torch.equal(value, module.state_dict()[name]) for name, value in saved.model.state_dict().items()
            )

    def test_tensors_of_inference_mode_are_loaded(self, tmp_path: Path) -> None:
        def make() -> TorchTrainingModel[Plain]:
            with torch.inference_mode():
                return TorchTrainingModel(Plain(), inference_thread_only=True)

        saved, loaded = make(), make()
        saved.save_state(tmp_path / "m")
        loaded.load_state(tmp_path / "m")
        assert torch.equal(loaded.inference_model(X), saved.inference_model(X))

    def test_a_buffer_that_can_not_be_written_to_is_named(self, tmp_path: Path) -> None:
        TorchTrainingModel(expanded()).save_state(tmp_path / "m")
        with pytest.raises(StateVaultError, match=r"items of offset of the Expanded share memory.*clone\(\)"):
            TorchTrainingModel(expanded()).load_state(tmp_path / "m")
