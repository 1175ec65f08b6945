"""One process with an experiment of Tianshou's: ``python -m tests.persistence.tianshou_run '<JSON>'``.

CartPole with normalised observations, whose statistics Tianshou's own kind of persistence pickles into a local file.
Prints JSON as its last line: the digest of the policy's parameters and the mean of the observations, as they are in the
end.
"""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
import sys
from typing import Any

import gymnasium
import numpy as np
from tianshou.env import VectorEnvNormObs  # type: ignore[import-not-found,import-untyped,unused-ignore]
from tianshou.highlevel.config import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
    OffPolicyTrainingConfig,
    OnPolicyTrainingConfig,
)
from tianshou.highlevel.env import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
    EnvFactory,
    Environments,
    EnvMode,
    VectorEnvType,
)
from tianshou.highlevel.experiment import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
    DQNExperimentBuilder,
    ExperimentConfig,
    PPOExperimentBuilder,
)
from tianshou.highlevel.logger import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
    LoggerFactoryDefault,
)
from tianshou.highlevel.params.algorithm_params import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
    DQNParams,
    PPOParams,
)
from tianshou.highlevel.persistence import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
    Persistence,
    PersistEvent,
    RestoreEvent,
)
from typing_extensions import override

from statevault.persistence.tianshou import policy_directory, with_policy_persistence


class ObservationStatistics(Persistence):  # type: ignore[misc,unused-ignore]
    """Written for Tianshou: a local file, and Tianshou's own events."""

    FILENAME = "env_obs_rms.pkl"

    @override
    def persist(self, event: Any, world: Any) -> None:
        if event == PersistEvent.PERSIST_POLICY:
            with open(world.persist_path(self.FILENAME), "wb") as file:  # noqa: PTH123
                pickle.dump(world.envs.training_envs.get_obs_rms(), file)

    @override
    def restore(self, event: Any, world: Any) -> None:
        if event == RestoreEvent.RESTORE_POLICY:
            with open(world.restore_path(self.FILENAME), "rb") as file:  # noqa: PTH123
                statistics = pickle.load(file)
            for envs in (world.envs.training_envs, world.envs.test_envs):
                envs.set_obs_rms(statistics)


class NormalisedCartPole(EnvFactory):  # type: ignore[misc,unused-ignore]
    """CartPole with normalised observations."""

    def __init__(self) -> None:
        super().__init__(VectorEnvType.DUMMY)

    @override
    def _create_env(self, mode: EnvMode) -> gymnasium.Env[Any, Any]:
        return gymnasium.make("CartPole-v1")

    @override
    def create_envs(self, *args: Any, **kwargs: Any) -> Environments:
        envs = super().create_envs(*args, **kwargs)
        envs.training_envs = VectorEnvNormObs(envs.training_envs)
        envs.test_envs = VectorEnvNormObs(envs.test_envs, update_obs_rms=False)
        envs.test_envs.set_obs_rms(envs.training_envs.get_obs_rms())
        envs.set_persistence(ObservationStatistics())
        return envs


def build(algorithm: str, log_directory: str, *, train: bool) -> Any:
    """An experiment of some seconds."""
    config = ExperimentConfig(
        seed=7, device="cpu", train=train, watch=False, persistence_base_dir=log_directory, persistence_enabled=train
    )
    common: dict[str, Any] = {
        "max_epochs": 2,
        "epoch_num_steps": 400,
        "num_training_envs": 2,
        "num_test_envs": 2,
        "test_step_num_episodes": 2,
        "buffer_size": 2000,
        "collection_step_num_env_steps": 50,
        "batch_size": 32,
    }
    factory = NormalisedCartPole()
    if algorithm == "dqn":
        training = OffPolicyTrainingConfig(**common, update_step_num_gradient_steps_per_sample=0.1)
        builder = DQNExperimentBuilder(factory, config, training).with_dqn_params(DQNParams(lr=1e-3))
        builder = builder.with_model_factory_default(hidden_sizes=(16,))
    else:
        training = OnPolicyTrainingConfig(**common, update_step_num_repetitions=2)
        builder = PPOExperimentBuilder(factory, config, training).with_ppo_params(PPOParams(lr=1e-3))
        builder = builder.with_actor_factory_default(hidden_sizes=(16,))
        builder = builder.with_critic_factory_default(hidden_sizes=(16,))
    builder = builder.with_logger_factory(LoggerFactoryDefault(save_interval=1))
    return builder.with_name("cartpole").build()


def digest_of(module: Any) -> str:
    """The digest of a module's parameters and buffers."""
    hasher = hashlib.sha256()
    for name, tensor in sorted([*module.named_parameters(), *module.named_buffers()]):
        hasher.update(name.encode() + tensor.detach().cpu().numpy().tobytes())
    return hasher.hexdigest()


def main(given: dict[str, Any]) -> None:
    """Train, or restore without training; with Tianshou's own persistence if no directory is given."""
    experiment = build(given["algorithm"], given["log_directory"], train=given["train"])
    if given["directory"] is not None:
        experiment = with_policy_persistence(experiment, given["directory"], **given["options"])
    if given["train"]:
        best: list[tuple[str, list[float]]] = []
        world = experiment.create_experiment_world()
        save_best = world.trainer.params.save_best_fn

        def watched(algorithm: Any) -> None:
            save_best(algorithm)
            statistics = world.envs.training_envs.get_obs_rms()
            best.append((digest_of(algorithm), np.asarray(statistics.mean).tolist()))

        world.trainer.params.save_best_fn = watched
        world.trainer.run()
        policy, mean = best[-1]
        score = float(world.trainer._best_score)
    else:
        world = experiment.run().world
        policy = digest_of(world.algorithm)
        mean = np.asarray(world.envs.training_envs.get_obs_rms().mean).tolist()
        score = None
    run = policy_directory(experiment, given["directory"] or given["log_directory"])
    print(json.dumps({"policy": policy, "mean": mean, "score": score, "run": run}))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    main(json.loads(sys.argv[1]))
