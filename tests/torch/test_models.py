"""Torch models: syncing beside inference, saving, loading, refusing."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn
from torch.torch_version import TorchVersion
from typing_extensions import override

from statevault.errors import FormatError, MissingExtraError, PickleNotAllowedError
from statevault.model import TrainingModelsDict
from statevault.persistence import PolicyMode
from statevault.persistence.codec import read_state_dict
from statevault.torch import TorchTrainingModel, default_infer_procedure, get_device
from statevault.torch.parameters import read_torch_file


class Net(nn.Module):
    """With batch normalization, dropout, and a buffer that is not persistent."""

    scratch: torch.Tensor

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.Dropout(0.5), nn.Linear(width, 2))
        self.register_buffer("scratch", torch.zeros(1), persistent=False)

    @override
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return cast("torch.Tensor", self.layers(x)) + self.scratch

    def double(self, x: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return 2 * self.forward(x)

    not_a_method = 3


def train(model: TorchTrainingModel[Any], steps: int = 3) -> None:
    optimizer = torch.optim.SGD(model.model.parameters(), lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(16, 4)).square().mean().backward()
        optimizer.step()


def evaluate(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    was_training = module.training
    with torch.no_grad():
        result = cast("torch.Tensor", module.eval()(x))
    module.train(was_training)
    return result


def tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def assert_same(one: nn.Module, other: nn.Module) -> None:
    mine, others = tensors(one), tensors(other)
    assert mine.keys() == others.keys()
    for name, value in mine.items():
        assert value.dtype == others[name].dtype, name
        assert torch.equal(value, others[name]), name


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


class TestSync:
    def test_inference_uses_the_parameters_of_the_last_sync(self) -> None:
        model = TorchTrainingModel(Net())
        inference, x = model.inference_model, torch.randn(5, 4)
        for _ in range(4):
            before = inference(x)
            train(model)
            model.model.scratch += 1
            assert torch.equal(inference(x), before)
            model.sync()
            assert torch.equal(inference(x), evaluate(model.model, x))
            assert not torch.equal(inference(x), before)

    def test_the_module_its_mode_and_its_gradients_stay(self) -> None:
        module = Net()
        model = TorchTrainingModel(module)
        parameters = list(module.parameters())
        train(model)
        gradients = [p.grad for p in parameters]
        assert all(g is not None for g in gradients)
        for training in (True, False):
            module.train(training)
            model.sync()
            assert model.model is module
            assert module.training is training
            assert all(a is b for a, b in zip(module.parameters(), parameters, strict=True))
            assert all(p.grad is g for p, g in zip(parameters, gradients, strict=True))

    def test_inference_modules_are_in_eval_mode_and_hold_no_gradients(self) -> None:
        model = TorchTrainingModel(Net())
        train(model)
        for _ in range(3):
            assert not model.inference_model.module.training
            assert all(p.grad is None for p in model.inference_model.module.parameters())
            model.sync()

    def test_syncs_take_turns_with_two_modules(self) -> None:
        model = TorchTrainingModel(Net())
        used = []
        for _ in range(6):
            used.append(model.inference_model.module)
            model.sync()
        assert used[0] is used[2] is used[4]
        assert used[1] is used[3] is used[5]
        assert used[0] is not used[1]

    def test_a_module_that_changed_its_structure_is_copied_anew(self) -> None:
        model = TorchTrainingModel(Net())
        model.sync()
        model.model.layers.append(nn.Linear(2, 3))
        model.sync()
        assert_same(model.inference_model.module, model.model)
        model.model.layers[0].weight.data = torch.randn(8, 4, dtype=torch.float64)
        for _ in range(2):
            model.sync()
            assert_same(model.inference_model.module, model.model)

    @pytest.mark.parametrize("change", ["add", "remove", "replace"])
    def test_a_change_of_modules_without_tensors_is_copied_too(self, change: str) -> None:
        model = TorchTrainingModel(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.ReLU()))
        for _ in range(2):
            model.sync()
        if change == "add":
            model.model.append(nn.Softplus())
        elif change == "remove":
            del model.model[2]
        else:
            model.model[1] = nn.Tanh()
        x = torch.randn(5, 2)
        for _ in range(3):
            model.sync()
            assert torch.equal(model.inference_model(x), evaluate(model.model, x))

    def test_tensors_that_are_tied_otherwise_are_synced_so(self) -> None:
        class Three(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a, self.b, self.c = (nn.Linear(2, 2, bias=False) for _ in range(3))
                self.c.weight = self.a.weight

            @override
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return cast("torch.Tensor", self.c(x))

        model = TorchTrainingModel(Three(), dtype=torch.bfloat16)
        x = torch.randn(5, 2, dtype=torch.bfloat16)
        for _ in range(2):
            model.sync()
        assert model.inference_model.module.c.weight is model.inference_model.module.a.weight
        model.model.c.weight = model.model.b.weight
        for _ in range(3):
            model.sync()
            assert model.inference_model.module.c.weight is model.inference_model.module.b.weight
            assert torch.equal(model.inference_model(x), evaluate(model.model, x))

    def test_a_parametrized_module_is_not_copied_anew(self) -> None:
        model = TorchTrainingModel(nn.utils.parametrizations.weight_norm(nn.Linear(4, 2)))
        x, used = torch.randn(5, 4), []
        for _ in range(6):
            used.append(model.inference_model.module)
            train(model)
            model.sync()
            assert torch.equal(model.inference_model(x), evaluate(model.model, x))
        assert used[1] is used[3] is used[5]

    def test_a_buffer_that_inference_replaces_does_not_stop_the_syncs(self) -> None:
        class Recurrent(nn.Module):
            memory: torch.Tensor

            def __init__(self) -> None:
                super().__init__()
                self.cell = nn.Linear(2, 2)
                self.register_buffer("memory", torch.zeros(2))

            @override
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                self.memory = torch.tanh(self.cell(x) + self.memory)
                return self.memory

        model = TorchTrainingModel(Recurrent())
        for _ in range(4):
            model.inference_model(torch.ones(2))
            with torch.no_grad():
                model.model.cell.weight += 1
            model.sync()
            assert torch.equal(model.inference_model.module.cell.weight, model.model.cell.weight)

    def test_extra_state_is_synced(self) -> None:
        class Counting(nn.Linear):
            count = 0

            @override
            def get_extra_state(self) -> Any:
                return {"count": self.count}

            @override
            def set_extra_state(self, state: Any) -> None:
                self.count = state["count"]

        model = TorchTrainingModel(Counting(1, 1))
        for count in (3, 4, 5):
            model.model.count = count
            model.sync()
            assert model.inference_model.module.count == count

    def test_an_inference_keeps_the_module_with_which_it_began(self) -> None:
        model = TorchTrainingModel(Net())
        x = torch.randn(3, 4)
        with model.inference_model.unwrap(inference_mode=False) as module:
            before = module(x)
            for _ in range(5):
                train(model)
                model.sync()
                assert torch.equal(module(x), before)
                assert torch.equal(model.inference_model(x), before)
        assert torch.equal(model.inference_model(x), evaluate(model.model, x))

    def test_a_sync_does_not_wait_for_an_inference_nor_an_inference_for_a_sync(self) -> None:
        copying, finish = threading.Event(), threading.Event()

        class Slow(nn.Linear):
            """Its extra state is copied until `finish` is set."""

            @override
            def get_extra_state(self) -> Any:
                if threading.current_thread() is not threading.main_thread():
                    copying.set()
                    assert finish.wait(300)
                return None

            @override
            def set_extra_state(self, state: Any) -> None:
                pass

        model = TorchTrainingModel(Slow(1, 1))
        model.sync()
        model.sync()
        thread = threading.Thread(target=model.sync)
        thread.start()
        assert copying.wait(300)
        # The copy is half done, and can't finish before the inference has: it would wait for ever otherwise.
        model.inference_model(torch.zeros(1))
        finish.set()
        thread.join()

    def test_inference_beside_training_sees_whole_sets_of_parameters_only(self) -> None:
        class Constant(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.values = nn.ParameterList([nn.Parameter(torch.zeros(1000)) for _ in range(30)])

            @override
            def forward(self) -> tuple[float, float]:
                flat = torch.cat(list(self.values))
                return flat.min().item(), flat.max().item()

        model = TorchTrainingModel(Constant())
        inference = model.inference_model
        stop = threading.Event()
        seen: list[tuple[float, float]] = []
        errors: list[BaseException] = []

        def act() -> None:
            try:
                while not stop.is_set():
                    seen.append(inference())
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=act) for _ in range(2)]
        for thread in threads:
            thread.start()
        for step in range(1, 300):
            with torch.no_grad():
                for value in model.model.values:
                    value.fill_(step)
            model.sync()
        stop.set()
        for thread in threads:
            thread.join()
        assert not errors
        assert len(seen) > 10
        assert all(low == high for low, high in seen)

    def test_a_model_for_the_inference_thread_only_is_not_copied(self) -> None:
        module = Net()
        model = TorchTrainingModel(module, inference_thread_only=True)
        assert model.inference_model.module is module
        assert not module.training
        model.sync()
        assert model.inference_model.module is module


class TestInference:
    def test_outputs_carry_no_graph(self) -> None:
        model = TorchTrainingModel(Net())
        assert not model.inference_model(torch.randn(2, 4)).requires_grad
        with model.inference_model.unwrap() as module:
            assert torch.is_inference_mode_enabled()
            assert isinstance(module, Net)
        with model.inference_model.unwrap(inference_mode=False) as module:
            assert module(torch.randn(2, 4)).requires_grad

    def test_the_procedure_may_be_a_callable_or_a_method(self) -> None:
        x, module = torch.randn(2, 4), Net()
        plain = TorchTrainingModel(module).inference_model(x)
        by_name = TorchTrainingModel(module, inference_procedure="double").inference_model(x)
        by_call = TorchTrainingModel(module, inference_procedure=lambda m, v: 2 * m(v)).inference_model(x)
        assert torch.equal(by_name, 2 * plain)
        assert torch.equal(by_call, 2 * plain)

    def test_a_wrong_name_of_a_method_is_refused(self) -> None:
        with pytest.raises(AttributeError, match="'missing'"):
            TorchTrainingModel(Net(), inference_procedure="missing")
        with pytest.raises(ValueError, match="not_a_method"):
            TorchTrainingModel(Net(), inference_procedure="not_a_method")

    def test_an_error_in_an_inference_leaves_the_model_usable(self) -> None:
        model = TorchTrainingModel(Net())
        for _ in range(3):
            with pytest.raises(RuntimeError):
                model.inference_model(torch.randn(2, 99))
            model.sync()
        assert not model.inference_model.uses(model.inference_model.module)
        model.inference_model(torch.randn(2, 4))

    def test_tensors_are_moved_to_the_device_of_the_module(self) -> None:
        module = nn.Linear(2, 2, device="meta")
        assert get_device(module) == torch.device("meta")
        output = default_infer_procedure(module, input=torch.zeros(1, 2))
        assert output.device.type == "meta"

    def test_a_module_without_tensors_is_on_the_default_device(self) -> None:
        assert get_device(nn.ReLU()) == torch.get_default_device()
        assert get_device(nn.ReLU(), torch.device("meta")) == torch.device("meta")
        assert get_device(nn.BatchNorm1d(2, affine=False)) == torch.device("cpu")


class TestConstruction:
    def test_dtype_and_device(self) -> None:
        model = TorchTrainingModel(Net(), dtype=torch.bfloat16, device="cpu")
        assert model.model.layers[0].weight.dtype == torch.bfloat16
        assert model.model.layers[1].num_batches_tracked.dtype == torch.int64
        assert model.inference_model.module.layers[0].weight.dtype == torch.bfloat16

    def test_pretrained_parameters_reach_both_sides(self, tmp_path: Path) -> None:
        source = Net()
        torch.save(source.state_dict(), tmp_path / "p.pt")
        model = TorchTrainingModel(Net(), pretrained_parameter_file=tmp_path / "p.pt")
        assert_same(model.model, source)
        assert_same(model.inference_model.module, source)
        assert_same(TorchTrainingModel(Net(), pretrained_parameter_file=str(tmp_path / "p.pt")).model, source)

    def test_pretrained_files_with_code_are_not_loaded(self, tmp_path: Path) -> None:
        torch.save(Net(), tmp_path / "module.pt")
        with pytest.raises(PickleNotAllowedError, match=r"module\.pt"):
            TorchTrainingModel(Net(), pretrained_parameter_file=tmp_path / "module.pt")
        torch.save([1], tmp_path / "list.pt")
        with pytest.raises(FormatError, match="list"):
            TorchTrainingModel(Net(), pretrained_parameter_file=tmp_path / "list.pt")

    @pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
    def test_compiled_models_work_and_sync(self) -> None:
        # The compiler itself is not under test: it takes a minute.
        with torch.compiler.set_stance("force_eager"):
            model = TorchTrainingModel(Net(), compile=True)
            x = torch.randn(3, 4)
            for _ in range(3):
                train(model, 1)
                model.sync()
                assert torch.equal(model.inference_model(x), evaluate(model.model, x))


class TestState:
    def make(self, **arguments: Any) -> TorchTrainingModel[Net]:
        return TorchTrainingModel(Net(), **arguments)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
    def test_a_loaded_model_is_equal_to_the_last_bit(self, dtype: torch.dtype, tmp_path: Path) -> None:
        saved, loaded = self.make(dtype=dtype), self.make(dtype=dtype)
        with torch.no_grad():
            tensors(saved.model)["layers.1.running_mean"].fill_(float("nan"))
            tensors(saved.model)["layers.3.bias"][0] = -0.0
        saved.save_state(tmp_path / "policy")
        assert [p.name for p in tmp_path.iterdir()] == ["policy.tree"]
        loaded.load_state(tmp_path / "policy")
        for name, value in saved.model.state_dict().items():
            other = loaded.model.state_dict()[name]
            assert value.contiguous().reshape(-1).view(torch.uint8).equal(other.reshape(-1).view(torch.uint8)), name

    def test_a_dict_of_models_syncs_after_loading(self, tmp_path: Path) -> None:
        def make() -> TrainingModelsDict:
            return TrainingModelsDict(
                policy=self.make(),
                target=self.make(has_inference_model=False),
                eye=self.make(inference_thread_only=True),
            )

        def get(models: TrainingModelsDict, name: str) -> nn.Module:
            return cast("TorchTrainingModel[Net]", models.data[name]).model

        saved, loaded = make(), make()
        train(cast("TorchTrainingModel[Net]", saved["policy"]))
        saved.save_state(tmp_path / "models")
        loaded.load_state(tmp_path / "models")
        x = torch.randn(3, 4)
        for name in ("policy", "eye"):
            got = loaded.inference_models_dict[name](x)
            assert torch.equal(got, evaluate(get(saved, name), x))
        assert_same(get(loaded, "target"), get(saved, "target"))

    def test_loading_keeps_module_and_parameters(self, tmp_path: Path) -> None:
        model = self.make()
        model.save_state(tmp_path / "m")
        parameters = list(model.model.parameters())
        module = model.model
        train(model)
        model.load_state(tmp_path / "m")
        assert model.model is module
        assert all(a is b for a, b in zip(module.parameters(), parameters, strict=True))

    def test_what_is_loaded_does_not_depend_on_the_file_afterwards(self, tmp_path: Path) -> None:
        saved, loaded = TorchTrainingModel(nn.Linear(300, 300)), TorchTrainingModel(nn.Linear(300, 300))
        saved.save_state(tmp_path / "m")
        loaded.load_state(tmp_path / "m")
        (tmp_path / "m.tree").write_bytes(bytes((tmp_path / "m.tree").stat().st_size))
        assert_same(loaded.model, saved.model)

    def test_tied_parameters_stay_tied(self, tmp_path: Path) -> None:
        class Tied(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.one, self.other = nn.Linear(3, 3), nn.Linear(3, 3)
                self.other.weight = self.one.weight

        saved, loaded = TorchTrainingModel(Tied()), TorchTrainingModel(Tied())
        saved.save_state(tmp_path / "m")
        loaded.load_state(tmp_path / "m")
        loaded.sync()
        for module in (loaded.model, loaded.inference_model.module):
            assert isinstance(module, Tied)
            assert module.one.weight is module.other.weight
            assert_same(module, saved.model)

    def test_values_that_were_not_tied_are_refused_where_they_are(self, tmp_path: Path) -> None:
        def make(tied: bool) -> TorchTrainingModel[nn.Sequential]:
            module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
            if tied:
                module[1].weight = module[0].weight
            return TorchTrainingModel(module)

        make(tied=False).save_state(tmp_path / "m")
        with pytest.raises(FormatError, match=r"0\.weight and 1\.weight have different values, and are one tensor"):
            make(tied=True).load_state(tmp_path / "m")
        saved = make(tied=True)
        saved.save_state(tmp_path / "t")
        for tied in (False, True):
            loaded = make(tied=tied)
            loaded.load_state(tmp_path / "t")
            assert torch.equal(loaded.model.state_dict()["1.weight"], saved.model.state_dict()["0.weight"])

    def test_a_module_of_another_shape_is_refused_by_name_and_stays_as_it_was(self, tmp_path: Path) -> None:
        self.make().save_state(tmp_path / "m")
        other = TorchTrainingModel(Net(width=16))
        before = {name: value.clone() for name, value in tensors(other.model).items()}
        with pytest.raises(FormatError, match=r"layers\.0\.weight has the shape \(8, 4\), the module's \(16, 4\)"):
            other.load_state(tmp_path / "m")
        assert all(torch.equal(value, before[name]) for name, value in tensors(other.model).items())

    def test_missing_and_unexpected_parameters_are_named(self, tmp_path: Path) -> None:
        TorchTrainingModel(nn.Linear(2, 2)).save_state(tmp_path / "m")
        with pytest.raises(FormatError, match=r"bias is not in the module"):
            TorchTrainingModel(nn.Linear(2, 2, bias=False)).load_state(tmp_path / "m")
        with pytest.raises(FormatError, match=r"0\.weight is missing; 0\.bias is missing; weight is not"):
            TorchTrainingModel(nn.Sequential(nn.Linear(2, 2))).load_state(tmp_path / "m")

    def test_foreign_and_missing_files_are_refused(self, tmp_path: Path) -> None:
        from statevault.state_persistence import write_tree

        write_tree([1], tmp_path / "m.tree")
        with pytest.raises(FormatError, match=r"m\.tree"):
            self.make().load_state(tmp_path / "m")
        with pytest.raises(FileNotFoundError, match=r"none\.tree"):
            self.make().load_state(tmp_path / "none")

    def test_what_older_versions_of_modules_saved_is_converted_as_torch_does(self, tmp_path: Path) -> None:
        old = {name: value for name, value in Net().state_dict().items() if not name.endswith("num_batches_tracked")}
        torch.save(old, tmp_path / "batch_norm.pt")
        loaded = TorchTrainingModel(Net(), pretrained_parameter_file=tmp_path / "batch_norm.pt")
        assert torch.equal(loaded.model.state_dict()["layers.0.weight"], old["layers.0.weight"])

        bias, weight = torch.randn(3), torch.randn(3, 2)
        renamed = {"bias": bias, "weight_g": weight.norm(dim=1, keepdim=True), "weight_v": weight}
        torch.save(renamed, tmp_path / "weight_norm.pt")
        normed = TorchTrainingModel(
            nn.utils.parametrizations.weight_norm(nn.Linear(2, 3)),
            pretrained_parameter_file=tmp_path / "weight_norm.pt",
        )
        x = torch.randn(4, 2)
        assert torch.allclose(normed.inference_model(x), x @ weight.T + bias, atol=1e-6)

    def test_damaged_files_of_torch_are_refused_whatever_torch_makes_of_them(self, tmp_path: Path) -> None:
        for new in (True, False):
            torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "m.pt", _use_new_zipfile_serialization=new)
            whole = (tmp_path / "m.pt").read_bytes()
            model = TorchTrainingModel(nn.Linear(2, 2))
            before = {name: value.clone() for name, value in model.model.state_dict().items()}
            for length in (0, 1, 40, 150, len(whole) // 2, len(whole) - 1):
                (tmp_path / "cut.pt").write_bytes(whole[:length])
                with pytest.raises((FormatError, PickleNotAllowedError), match=r"cut\.pt"):
                    model.load_state(tmp_path / "cut")
            assert all(torch.equal(value, before[name]) for name, value in model.model.state_dict().items())
        for foreign in (b"", b"hello world, this is no model"):
            (tmp_path / "foreign.pt").write_bytes(foreign)
            with pytest.raises(FormatError, match=r"foreign\.pt is damaged"):
                TorchTrainingModel(nn.Linear(2, 2), pretrained_parameter_file=tmp_path / "foreign.pt")

    def test_code_in_a_file_of_parameters_is_not_run(self, tmp_path: Path) -> None:
        class Payload:
            def __reduce__(self) -> tuple[Any, ...]:
                return (exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",))

        torch.save({"weight": Payload()}, tmp_path / "zip.pt")
        torch.save({"weight": Payload()}, tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
        for name in ("zip.pt", "legacy.pt"):
            with pytest.raises(PickleNotAllowedError, match=name):
                TorchTrainingModel(nn.Linear(2, 2), pretrained_parameter_file=tmp_path / name)
        assert not (tmp_path / "ran").exists()

    def test_what_pamiq_core_saved_is_loaded(self, tmp_path: Path) -> None:
        saved, loaded = self.make(), self.make()
        train(saved)
        torch.save(saved.model.state_dict(), tmp_path / "m.pt")
        loaded.load_state(tmp_path / "m")
        assert all(
            torch.equal(value, loaded.model.state_dict()[name]) for name, value in saved.model.state_dict().items()
        )


def test_a_torch_that_runs_code_out_of_weights_reads_no_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "model.pt"
    torch.save({"weight": torch.zeros(2)}, file)
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.5.1"))
    with pytest.raises(MissingExtraError, match="torch 2.5.1 runs code .*pip install 'torch>=2.6'"):
        read_torch_file(file)
    with pytest.raises(MissingExtraError, match=r"torch 2.5.1 runs code"):
        read_state_dict(file, PolicyMode.POLICY_STATE_DICT, "cpu", allow_pickle=False, where="it")
