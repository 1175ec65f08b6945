"""The states of optimizers and schedulers go to the parameters that they are of, or nowhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim import lr_scheduler as lrs
from typing_extensions import override

from statevault import read_tree, write_tree
from statevault.errors import FormatError
from statevault.model import TrainingModelsDict
from statevault.torch import OptimizersSetup, TorchTrainer, TorchTrainingModel
from tests.profiles import rounds
from tests.torch.test_trainer import assert_equal

Modules = dict[str, nn.Module]
Create = Callable[[Modules], OptimizersSetup]


class Net(nn.Module):
    """Parameters of which several have the same shape."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)
        self.last = nn.Linear(width, 4)

    @override
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        value: torch.Tensor = self.last(self.second(self.first(x).tanh()).tanh())
        return value


class Fitter(TorchTrainer):
    """Fits modules to noise, each step determined by its number; may have parameters of its own."""

    def __init__(self, modules: Modules, create: Create) -> None:
        super().__init__()
        self.modules, self._create, self.number = modules, create, 0

    @override
    def on_training_models_attached(self) -> None:
        for name in self.modules:
            self.get_torch_training_model(name)

    @override
    def create_optimizers(self) -> OptimizersSetup:
        return self._create(self.modules)

    @override
    def train(self) -> None:
        self.number += 1
        for module in self.modules.values():
            # As gradients would be, but the same in whatever order.
            for name, parameter in module.named_parameters():
                # The first and the second may be tied, and have one gradient then by either name.
                seed = sum(bare(name).replace("second", "first").encode()) + self.number
                noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))
                if parameter.requires_grad:
                    parameter.grad = noise + parameter.detach()
        for optimizer in self.optimizers.values():
            optimizer.step(lambda: 0.0)
        for scheduler in self.lr_schedulers.values():
            scheduler.step()


def make(create: Create, modules: Modules | None = None, *, seed: int = 0) -> Fitter:
    torch.manual_seed(seed)
    modules = {"net": Net()} if modules is None else modules
    trainer = Fitter(modules, create)
    models = {name: TorchTrainingModel(module, has_inference_model=False) for name, module in modules.items()}
    trainer.attach_training_models(TrainingModelsDict(models))
    return trainer


def save(trainer: Fitter, path: Path, runs: int = 3) -> None:
    for _ in range(runs):
        trainer.run()
    trainer.save_state(path)


def as_older_versions(path: Path) -> None:
    record = read_tree(path / "optimizers.tree")
    del record["made_of"]
    write_tree(record, path / "optimizers.tree")


def goes_on(trainer: Fitter, path: Path, create: Create, modules: Modules | None = None, runs: int = 3) -> None:
    """Assert that a trainer with other optimizers goes on to the last bit, given what was loaded of the models."""
    restarted = make(create, modules, seed=1)
    restarted.load_state(path)
    restarted.number = trainer.number
    for name, module in restarted.modules.items():
        values = by_name(trainer.modules[name])
        with torch.no_grad():
            for own, parameter in by_name(module).items():
                parameter.copy_(values[own])
    for _ in range(runs):
        trainer.run()
        restarted.run()
    for name, module in restarted.modules.items():
        assert_equal(by_name(module), by_name(trainer.modules[name]))


def by_name(module: nn.Module) -> dict[str, torch.Tensor]:
    """The parameters of a module, in the order of their names."""
    return dict(sorted((bare(name), value) for name, value in module.state_dict().items()))


def bare(name: str) -> str:
    return name.replace("module.", "").replace("_orig_mod.", "")


def refuses(path: Path, create: Create, message: str, modules: Modules | None = None) -> None:
    """Assert that a state is refused by optimizers that are created later, and by running ones, which it leaves."""
    late = make(create, modules)
    late.load_state(path)
    with pytest.raises(FormatError, match=message):
        late.run()
    late.save_state(path.with_name("late"))
    # What could not be used is still there for a program that can.
    assert_equal(read_tree(path.with_name("late") / "optimizers.tree"), read_tree(path / "optimizers.tree"))

    running = make(create, modules)
    running.run()
    before = snapshot(running)
    with pytest.raises(FormatError, match=message):
        running.load_state(path)
    assert_equal(snapshot(running), before)


def snapshot(trainer: Fitter) -> dict[str, Any]:
    return {
        "time": trainer._previous_training_time,
        **{name: optimizer.state_dict() for name, optimizer in trainer.optimizers.items()},
        **{name: scheduler.state_dict() for name, scheduler in trainer.lr_schedulers.items()},
    }


def sgd(*names: str, named: bool = False, **arguments: Any) -> Create:
    """An optimizer of some parameters of the net, in an order."""

    def create(modules: Modules) -> OptimizersSetup:
        parameters = dict(modules["net"].named_parameters())
        chosen: list[Any] = [(name, parameters[name]) if named else parameters[name] for name in names or parameters]
        return {"a": torch.optim.SGD(chosen, lr=0.1, momentum=0.9, **arguments)}

    return create


def optimizer_of(kind: Callable[[Any], torch.optim.Optimizer]) -> Create:
    return lambda modules: {"a": kind(modules["net"].parameters())}


NAMES = [name for name, _ in Net().named_parameters()]
SWAPPED = ["second.weight", "first.bias", "first.weight", "second.bias", "last.weight", "last.bias"]

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "adadelta": torch.optim.Adadelta,
    "adafactor": torch.optim.Adafactor,
    "adagrad": torch.optim.Adagrad,
    "adam": lambda given: torch.optim.Adam(given, amsgrad=True),
    "adamax": torch.optim.Adamax,
    "adamw": torch.optim.AdamW,
    "adamw-fused": lambda given: torch.optim.AdamW(given, fused=True),
    "adam-single": lambda given: torch.optim.Adam(given, foreach=False),
    "asgd": lambda given: torch.optim.ASGD(given, t0=1),
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "rmsprop": lambda given: torch.optim.RMSprop(given, momentum=0.5, centered=True),
    "rprop": torch.optim.Rprop,
    "sgd": lambda given: torch.optim.SGD(given, lr=0.1, momentum=0.9, nesterov=True),
}


def decay(factor: float) -> Callable[[int], float]:
    return lambda epoch: 0.9**epoch * factor


SCHEDULERS: dict[str, Callable[[torch.optim.Optimizer], Any]] = {
    "lambda": lambda o: lrs.LambdaLR(o, [decay(group["weight_decay"]) for group in o.param_groups]),
    "one-cycle": lambda o: lrs.OneCycleLR(
        o, [2 * g["lr"] for g in o.param_groups], total_steps=20, cycle_momentum=False
    ),
    "cyclic": lambda o: lrs.CyclicLR(
        o, [g["lr"] for g in o.param_groups], [3 * g["lr"] for g in o.param_groups], 3, cycle_momentum=False
    ),
    "sequential": lambda o: lrs.SequentialLR(o, [lrs.ConstantLR(o, 0.1, 3), lrs.ExponentialLR(o, 0.9)], milestones=[2]),
    "chained": lambda o: lrs.ChainedScheduler([lrs.LinearLR(o, 0.5), lrs.StepLR(o, 2)]),
    "cosine": lambda o: lrs.CosineAnnealingLR(o, 9),
}


@st.composite
def permuted_groups(draw: st.DrawFn) -> tuple[list[list[str]], list[list[str]]]:
    """Parameters in groups, and the same in another order of the groups and in the groups."""
    names = draw(st.permutations(NAMES))
    cuts = sorted(draw(st.sets(st.integers(1, len(names) - 1), max_size=3)))
    groups = [list(names[a:b]) for a, b in zip([0, *cuts], [*cuts, len(names)], strict=True)]
    return groups, draw(st.permutations([list(draw(st.permutations(group))) for group in groups]))


@st.composite
def setups(draw: st.DrawFn) -> tuple[Create, Create]:
    groups, others = draw(permuted_groups())
    kind, scheduler = draw(st.sampled_from(sorted(OPTIMIZERS))), draw(st.sampled_from([None, *SCHEDULERS]))
    named = draw(st.booleans())

    def create(groups: list[list[str]], modules: Modules) -> OptimizersSetup:
        parameters = dict(modules["net"].named_parameters())
        given: list[Any] = [
            {
                "params": [(name, parameters[name]) if named else parameters[name] for name in group],
                # Each group has values of its own, whatever its place.
                "lr": 0.01 * (1 + NAMES.index(min(group))),
                "weight_decay": 0.001 * (1 + NAMES.index(min(group))),
            }
            for group in groups
        ]
        optimizer = OPTIMIZERS[kind](given)
        return {"a": optimizer}, {} if scheduler is None else {"s": SCHEDULERS[scheduler](optimizer)}

    return (lambda modules: create(groups, modules)), (lambda modules: create(others, modules))


@settings(deadline=None, max_examples=rounds(short=60, long=2000), suppress_health_check=list(HealthCheck))
@given(setup=setups(), runs=st.integers(0, 4))
def test_training_goes_on_to_the_last_bit_in_whatever_order_the_parameters_come(
    setup: tuple[Create, Create], runs: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("trainer") / "t"
    trainer = make(setup[0])
    _ = trainer.optimizers
    save(trainer, path, runs)
    goes_on(trainer, path, setup[1])


@settings(deadline=None, max_examples=rounds(short=30, long=1000), suppress_health_check=list(HealthCheck))
@given(kind=st.sampled_from(sorted(OPTIMIZERS)), names=st.permutations(NAMES), described=st.booleans())
def test_another_shape_is_refused_and_nothing_has_changed(
    kind: str, names: list[str], described: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("trainer") / "t"
    trainer = make(optimizer_of(OPTIMIZERS[kind]))
    save(trainer, path)
    if not described:
        as_older_versions(path)

    def create(modules: Modules) -> OptimizersSetup:
        parameters = dict(modules["net"].named_parameters())
        return {"a": OPTIMIZERS[kind]([parameters[name] for name in (names if described else NAMES)])}

    refuses(path, create, r"has? ?d? the shape \(", {"net": Net(width=5)})


class TestNames:
    def test_a_parameter_that_is_missing_or_new_or_renamed_is_refused_by_name(self, tmp_path: Path) -> None:
        save(make(sgd(*NAMES[:4])), tmp_path / "t")
        refuses(tmp_path / "t", sgd(*NAMES[:3]), r"net/second\.bias is in the state only\. Make it as it was")
        refuses(
            tmp_path / "t", sgd(*NAMES), r"net/last\.weight is not in the state; net/last\.bias is not in the state"
        )
        refuses(tmp_path / "t", sgd(*NAMES[1:5]), r"net/first\.weight is in the state only; net/last\.weight is not")

    def test_another_model_is_another_name(self, tmp_path: Path) -> None:
        save(make(lambda m: {"a": torch.optim.Adam(m["net"].parameters())}), tmp_path / "t")
        other: Create = lambda m: {"a": torch.optim.Adam(m["critic"].parameters())}  # noqa: E731
        refuses(tmp_path / "t", other, r"net/first\.weight is in the state only; .*, and 7 more", {"critic": Net()})

    def test_of_many_five_are_named(self, tmp_path: Path) -> None:
        save(make(sgd()), tmp_path / "t")
        refuses(tmp_path / "t", sgd("first.weight"), r"net/last\.bias is in the state only\. Make")

    @pytest.mark.parametrize("wrap", ["compiled", "wrapped", "compiled and wrapped"])
    @pytest.mark.parametrize("wrapped_first", [False, True])
    def test_what_compilers_and_wrappers_put_before_a_name_makes_no_difference(
        self, wrap: str, wrapped_first: bool, tmp_path: Path
    ) -> None:
        def create(modules: Modules) -> OptimizersSetup:
            parameters = list(modules["net"].parameters())
            return {"a": torch.optim.Adam(reversed(parameters) if type(modules["net"]) is Net else parameters)}

        torch.manual_seed(0)
        net, wrapped = Net(), cast("nn.Module", Net())
        wrapped = Wrapped(wrapped) if "wrapped" in wrap else wrapped
        wrapped = cast("nn.Module", torch.compile(wrapped, backend="eager")) if "compiled" in wrap else wrapped
        first, second = (wrapped, net) if wrapped_first else (net, wrapped)
        trainer = make(create, {"net": first})
        save(trainer, tmp_path / "t")
        goes_on(trainer, tmp_path / "t", create, {"net": second})

    def test_a_tied_parameter_has_all_its_names(self, tmp_path: Path) -> None:
        def tied(*, turned: bool) -> Modules:
            net = Net()
            net.second.weight = net.first.weight
            if turned:
                first = net.first
                del net.first
                net.first = first  # as the last one: the weight is first named that of the second
            return {"net": net}

        def create(modules: Modules) -> OptimizersSetup:
            return {"a": torch.optim.Adam(reversed(list(modules["net"].parameters())))}

        trainer = make(lambda m: {"a": torch.optim.Adam(m["net"].parameters())}, tied(turned=False))
        save(trainer, tmp_path / "t")
        goes_on(trainer, tmp_path / "t", create, tied(turned=True))
        refuses(tmp_path / "t", create, r"net/second\.weight is not in the state")

    def test_a_module_in_two_models_has_both_names(self, tmp_path: Path) -> None:
        def shared(*names: str) -> Modules:
            net = Net()
            return dict.fromkeys(names, net)

        trainer = make(lambda m: {"a": torch.optim.Adam(m["one"].parameters())}, shared("one", "two"))
        save(trainer, tmp_path / "t")
        goes_on(
            trainer,
            tmp_path / "t",
            lambda m: {"a": torch.optim.Adam(reversed(list(m["two"].parameters())))},
            shared("two", "one"),
        )

    def test_frozen_parameters_have_a_place_and_no_state(self, tmp_path: Path) -> None:
        def frozen() -> Modules:
            net = Net()
            net.first.requires_grad_(False)
            return {"net": net}

        trainer = make(sgd(*NAMES), frozen())
        save(trainer, tmp_path / "t")
        goes_on(trainer, tmp_path / "t", sgd(*SWAPPED), frozen())
        trained = [name for name in NAMES if not name.startswith("first")]
        refuses(tmp_path / "t", sgd(*trained), r"net/first\.weight is in the state only", frozen())

    def test_several_models_and_optimizers(self, tmp_path: Path) -> None:
        def create(modules: Modules) -> OptimizersSetup:
            both = [*modules["actor"].parameters(), *modules["critic"].parameters()]
            return {"both": torch.optim.Adam(both), "critic": torch.optim.RMSprop(modules["critic"].parameters())}

        def other(modules: Modules) -> OptimizersSetup:
            both = [*modules["critic"].parameters(), *modules["actor"].parameters()]
            critic = reversed(list(modules["critic"].parameters()))
            return {"both": torch.optim.Adam(both), "critic": torch.optim.RMSprop(critic)}

        trainer = make(create, {"actor": Net(), "critic": Net()})
        save(trainer, tmp_path / "t")
        goes_on(trainer, tmp_path / "t", other, {"critic": Net(), "actor": Net()})

    def test_parameters_of_no_model_go_by_the_names_that_they_were_given_or_by_their_order(
        self, tmp_path: Path
    ) -> None:
        def create(modules: Modules, *extra: Any) -> OptimizersSetup:
            return {"a": torch.optim.Adam([*extra, *modules["net"].parameters()])}

        def own(*values: float) -> list[nn.Parameter]:
            parameters = [nn.Parameter(torch.tensor([value])) for value in values]
            for parameter in parameters:
                parameter.grad = parameter.detach().clone()
            return parameters

        trainer = make(lambda m: create(m, *own(1.0, 2.0)))
        save(trainer, tmp_path / "t")
        again = make(lambda m: {"a": torch.optim.Adam([*reversed(list(m["net"].parameters())), *own(1.0, 2.0)])})
        again.load_state(tmp_path / "t")
        _ = again.optimizers
        assert again.optimizers["a"].state_dict()["state"][7]["exp_avg"] > 0.5
        refuses(tmp_path / "t", lambda m: create(m, *own(1.0)), "its 8 parameters are not told apart from the 7 here")

        def named(modules: Modules, *names: str) -> OptimizersSetup:
            given = [(name, parameter) for name, parameter in zip(names, own(1.0, 2.0), strict=True)]
            return {"a": torch.optim.Adam([*given, *modules["net"].named_parameters()])}

        save(make(lambda m: named(m, "temperature", "scale")), tmp_path / "n")
        again = make(lambda m: named(m, "scale", "temperature"))
        again.load_state(tmp_path / "n")
        _ = again.optimizers
        assert again.optimizers["a"].state_dict()["state"][0]["exp_avg"] > 0.5  # that of the scale, 2
        refuses(
            tmp_path / "n", lambda m: named(m, "scale", "heat"), r"temperature is in the state only; heat is not in"
        )

    def test_names_that_were_given_twice_are_not_guessed_at(self, tmp_path: Path) -> None:
        def create(*names: str) -> Create:
            given = [(name, nn.Parameter(torch.zeros(1))) for name in names]
            return lambda _: {"a": torch.optim.Adam(given)}

        save(make(create("w", "w", "v")), tmp_path / "t")
        refuses(tmp_path / "t", create("v", "w", "w"), "its 3 parameters are not told apart from the 3 here")
        make(create("w", "w", "v")).load_state(tmp_path / "t")

    def test_a_parameter_in_another_group_is_refused(self, tmp_path: Path) -> None:
        def grouped(*groups: list[str]) -> Create:
            def create(modules: Modules) -> OptimizersSetup:
                parameters = dict(modules["net"].named_parameters())
                given = [{"params": [parameters[name] for name in group]} for group in groups]
                return {"a": torch.optim.Adam(given)}

            return create

        save(make(grouped(NAMES[:3], NAMES[3:])), tmp_path / "t")
        moved = r"net/second\.bias was in the parameter group 1 with 3 parameters, and is in the group 0 with 4 here"
        refuses(tmp_path / "t", grouped([NAMES[3], *NAMES[:3]], NAMES[4:]), moved)
        refuses(tmp_path / "t", grouped(NAMES), "it has 2 parameter groups, here there are 1")
        refuses(tmp_path / "t", grouped([*NAMES[:2], NAMES[4]], [NAMES[2], NAMES[3], NAMES[5]]), "was in the param")


class Wrapped(nn.Module):
    """As DistributedDataParallel names what it wraps."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


class TestStatesOfOlderVersions:
    """They know the position of a parameter, and its name where the optimizer was given names."""

    def test_they_go_on(self, tmp_path: Path) -> None:
        trainer = make(sgd())
        save(trainer, tmp_path / "t")
        as_older_versions(tmp_path / "t")
        goes_on(trainer, tmp_path / "t", sgd())

    @pytest.mark.parametrize("named", [False, True], ids=["names of the model", "given names"])
    def test_names_that_were_given_put_them_right(self, named: bool, tmp_path: Path) -> None:
        trainer = make(sgd(*NAMES, named=True))
        save(trainer, tmp_path / "t")
        as_older_versions(tmp_path / "t")
        goes_on(trainer, tmp_path / "t", sgd(*SWAPPED, named=named))
        save(make(sgd(*NAMES[1:], named=True)), tmp_path / "u")
        as_older_versions(tmp_path / "u")
        refuses(
            tmp_path / "u", sgd(*NAMES[:5], named=named), r"last\.bias is in the state only; .*first\.weight is not"
        )

    def test_names_that_are_needed_and_not_there_are_asked_for(self, tmp_path: Path) -> None:
        def create(modules: Modules) -> OptimizersSetup:
            return {"a": torch.optim.Adam([nn.Parameter(torch.zeros(1))])}

        save(make(lambda m: {"a": torch.optim.Adam([("x", nn.Parameter(torch.zeros(1)))])}), tmp_path / "t")
        refuses(tmp_path / "t", create, "the state has x, here they have no names")

    def test_another_order_is_found_where_shapes_differ(self, tmp_path: Path) -> None:
        save(make(sgd()), tmp_path / "t")
        as_older_versions(tmp_path / "t")
        refuses(tmp_path / "t", sgd(*reversed(NAMES)), r"momentum_buffer of net/last\.bias has the shape \(4, 4\), not")

    @pytest.mark.parametrize("kind", sorted(OPTIMIZERS))
    def test_what_every_optimizer_keeps_is_checked(self, kind: str, tmp_path: Path) -> None:
        save(make(optimizer_of(OPTIMIZERS[kind])), tmp_path / "t")
        as_older_versions(tmp_path / "t")
        refuses(tmp_path / "t", optimizer_of(lambda p: OPTIMIZERS[kind](reversed(list(p)))), "has the shape")

    def test_other_groups_are_refused(self, tmp_path: Path) -> None:
        save(make(sgd()), tmp_path / "t")
        as_older_versions(tmp_path / "t")
        refuses(tmp_path / "t", sgd(*NAMES[:3]), r"its parameter groups have the sizes \[6\], here \[3\]")

    def test_another_optimizer_is_known_by_its_hyperparameters(self, tmp_path: Path) -> None:
        save(make(sgd()), tmp_path / "t")
        as_older_versions(tmp_path / "t")
        refuses(tmp_path / "t", optimizer_of(torch.optim.Adam), "betas is set in only one of the two; dampening is")

    def test_another_scheduler_is_known_by_what_it_keeps(self, tmp_path: Path) -> None:
        save(make(scheduled(lambda o: lrs.StepLR(o, 3))), tmp_path / "t")
        as_older_versions(tmp_path / "t")
        refuses(tmp_path / "t", scheduled(lambda o: lrs.ExponentialLR(o, 0.9)), r"\['step_size'\] is set in only one")
        goes_on(
            make(scheduled(lambda o: lrs.StepLR(o, 3))), tmp_path / "t", scheduled(lambda o: lrs.StepLR(o, 3)), runs=0
        )

    def test_lbfgs_is_known_by_its_size(self, tmp_path: Path) -> None:
        save(make(optimizer_of(torch.optim.LBFGS)), tmp_path / "t")
        as_older_versions(tmp_path / "t")
        size = sum(parameter.numel() for parameter in Net().parameters())
        refuses(tmp_path / "t", optimizer_of(torch.optim.LBFGS), f"of {size} numbers in all, here", {"net": Net(5)})

    def test_what_others_keep_in_other_shapes_is_theirs(self, tmp_path: Path) -> None:
        trainer = make(optimizer_of(Projected))
        save(trainer, tmp_path / "t")
        goes_on(trainer, tmp_path / "t", optimizer_of(lambda p: Projected(reversed(list(p)))))


class Projected(torch.optim.Optimizer):
    """Not one of torch's: keeps a projection of the moments, under the name that they mostly have."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 0.1})

    @override
    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                kept = self.state[parameter].setdefault("exp_avg", torch.zeros(()).expand(2).clone())
                kept.mul_(0.9).add_(parameter.grad.mean())
                parameter.sub_(group["lr"] * (parameter.grad + kept[0]))


def scheduled(make_scheduler: Callable[[torch.optim.Optimizer], Any], groups: int = 1) -> Create:
    def create(modules: Modules) -> OptimizersSetup:
        parameters = list(modules["net"].parameters())
        given = [{"params": parameters[number::groups]} for number in range(groups)]
        optimizer = torch.optim.SGD(given, lr=0.1, momentum=0.9)
        return {"a": optimizer}, {"s": make_scheduler(optimizer)}

    return create


class TestSchedulers:
    def test_another_class_is_refused(self, tmp_path: Path) -> None:
        save(make(scheduled(lambda o: lrs.StepLR(o, 3))), tmp_path / "t")
        for other, message in {
            lambda o: lrs.ExponentialLR(o, 0.9): "it is of the class StepLR, not ExponentialLR",
            lambda o: lrs.ChainedScheduler(
                [lrs.StepLR(o, 3)]
            ): r"it is of the class StepLR, not ChainedScheduler\(StepLR\)",
        }.items():
            refuses(tmp_path / "t", scheduled(other), f"the scheduler 's' does not fit it: {message}")

    def test_another_number_of_parts_is_refused(self, tmp_path: Path) -> None:
        def sequence(*factors: float) -> Callable[[torch.optim.Optimizer], Any]:
            return lambda o: lrs.ChainedScheduler([lrs.ConstantLR(o, factor, 3) for factor in factors])

        save(make(scheduled(sequence(0.1, 0.5))), tmp_path / "t")
        refuses(tmp_path / "t", scheduled(sequence(0.1)), r"ChainedScheduler\(ConstantLR, ConstantLR\), not Chain")
        as_older_versions(tmp_path / "t")
        refuses(tmp_path / "t", scheduled(sequence(0.1)), "it is made of 2 schedulers, here there are 1")

    def test_one_for_another_optimizer_is_refused(self, tmp_path: Path) -> None:
        def create(held: str) -> Create:
            def both(modules: Modules) -> OptimizersSetup:
                optimizers = {
                    name: torch.optim.Adam(modules["net"].get_submodule(name).parameters())
                    for name in ("first", "second")
                }
                return dict(optimizers), {"s": lrs.StepLR(optimizers[held], 3)}

            return both

        save(make(create("first")), tmp_path / "t")
        refuses(tmp_path / "t", create("second"), "it was for the optimizer 'first', and is for 'second' here")

    def test_one_of_the_users_own_is_refused_where_groups_come_in_another_order(self, tmp_path: Path) -> None:
        class Own(lrs.StepLR):
            pass

        def create(order: int) -> Create:
            def grouped(modules: Modules) -> OptimizersSetup:
                parts = [
                    {"params": list(modules["net"].get_submodule(name).parameters())} for name in ("first", "last")
                ]
                optimizer = torch.optim.Adam(parts[::order])
                return {"a": optimizer}, {"s": Own(optimizer, 3)}

            return grouped

        trainer = make(create(1))
        save(trainer, tmp_path / "t")
        refuses(tmp_path / "t", create(-1), "the parameter groups in another order")
        goes_on(trainer, tmp_path / "t", create(1))


class TestOptimizers:
    def test_another_class_is_refused(self, tmp_path: Path) -> None:
        save(make(optimizer_of(torch.optim.Adam)), tmp_path / "t")
        refuses(tmp_path / "t", optimizer_of(torch.optim.AdamW), "it is of the class Adam, not AdamW")

    def test_lbfgs_keeps_its_order(self, tmp_path: Path) -> None:
        trainer = make(optimizer_of(torch.optim.LBFGS))
        save(trainer, tmp_path / "t")
        other = optimizer_of(lambda p: torch.optim.LBFGS(reversed(list(p))))
        refuses(tmp_path / "t", other, r"an LBFGS needs its parameters in the order that they had: net/first\.weight,")

    def test_one_that_never_stepped_is_restored(self, tmp_path: Path) -> None:
        trainer = make(optimizer_of(torch.optim.Adam))
        _ = trainer.optimizers
        save(trainer, tmp_path / "t", runs=0)
        goes_on(trainer, tmp_path / "t", optimizer_of(lambda p: torch.optim.Adam(reversed(list(p)))))
        refuses(tmp_path / "t", optimizer_of(torch.optim.Adam), "had the shape", {"net": Net(5)})

    def test_how_it_computes_comes_from_the_state(self, tmp_path: Path) -> None:
        save(make(optimizer_of(lambda p: torch.optim.Adam(p, foreach=False))), tmp_path / "t")
        again = make(optimizer_of(lambda p: torch.optim.Adam(p, fused=True)))
        again.load_state(tmp_path / "t")
        group = again.optimizers["a"].param_groups[0]
        assert (group["foreach"], group["fused"]) == (False, None)

    def test_what_a_group_has_more_stays(self, tmp_path: Path) -> None:
        save(make(sgd()), tmp_path / "t")

        def create(modules: Modules) -> OptimizersSetup:
            return {"a": torch.optim.SGD([{"params": modules["net"].parameters(), "part": "all"}], lr=9, momentum=0.9)}

        again = make(create)
        again.load_state(tmp_path / "t")
        group = again.optimizers["a"].param_groups[0]
        assert (group["part"], group["lr"]) == ("all", 0.1)

    def test_all_are_loaded_or_none(self, tmp_path: Path) -> None:
        class Picky(torch.optim.SGD):
            @override
            def load_state_dict(self, state_dict: Any) -> None:
                super().load_state_dict(state_dict)
                if state_dict["param_groups"][0]["lr"] == 0.1:
                    raise ValueError("not this one")

        def create(lr: float) -> Create:
            def both(modules: Modules) -> OptimizersSetup:
                first, last = (modules["net"].get_submodule(name).parameters() for name in ("first", "last"))
                optimizers = {"a": torch.optim.Adam(first), "b": Picky(last, lr=lr, momentum=0.9)}
                return dict(optimizers), {"s": lrs.StepLR(optimizers["a"], 2)}

            return both

        save(make(create(0.1)), tmp_path / "t")
        running = make(create(0.2))
        running.run()
        before = snapshot(running)
        with pytest.raises(FormatError, match="not this one"):
            running.load_state(tmp_path / "t")
        assert_equal({**snapshot(running), "time": 0}, {**before, "time": 0})

    def test_a_damaged_state_is_refused(self, tmp_path: Path) -> None:
        save(make(sgd()), tmp_path / "t")
        record = read_tree(tmp_path / "t" / "optimizers.tree")
        for name, damaged in {
            "none": {**record, "optimizers": {"a": {}}},
            "short": {**record, "made_of": {**record["made_of"], "optimizers": {"a": {"class": "SGD", "groups": []}}}},
            "other": {**record, "made_of": {"optimizers": {}}},
        }.items():
            (tmp_path / name).mkdir()
            (tmp_path / name / "previous_training_time").write_text("1.0")
            write_tree(damaged, tmp_path / name / "optimizers.tree")
            refuses(tmp_path / name, sgd(), "the saved state of the optimizer 'a' does not fit it")
