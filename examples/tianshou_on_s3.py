"""A high-level experiment of Tianshou's whose policies are saved to S3, and restored from there.

    python examples/tianshou_on_s3.py s3://bucket/policies              # trains: DQN on CartPole, a minute
    python examples/tianshou_on_s3.py s3://bucket/policies --evaluate   # in another process: the best policy
    python examples/tianshou_on_s3.py ./policies                        # the same, in a local folder

Needs Tianshou 2 with its experiments: pip install "tianshou[eval]>=2". Credentials are those of the environment
(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, …).
"""
# ruff: noqa: T201 - it talks to whoever runs it
# mypy: disable-error-code="import-not-found, import-untyped, unused-ignore"

from __future__ import annotations

import argparse

from tianshou.data import Collector, CollectStats
from tianshou.highlevel.config import OffPolicyTrainingConfig
from tianshou.highlevel.env import EnvFactoryRegistered, VectorEnvType
from tianshou.highlevel.experiment import DQNExperimentBuilder, ExperimentConfig
from tianshou.highlevel.logger import LoggerFactoryDefault
from tianshou.highlevel.params.algorithm_params import DQNParams

from statevault.persistence.tianshou import policy_directory, with_policy_persistence


def main() -> None:
    """Train, or evaluate."""
    parser = argparse.ArgumentParser(description="A Tianshou experiment with its policies on any storage")
    parser.add_argument("directory", help="a path or URL")
    parser.add_argument("--evaluate", action="store_true", help="restore the best policy, and do not train")
    parser.add_argument("--epochs", type=int, default=5)
    options = parser.parse_args()

    experiment = (
        DQNExperimentBuilder(
            EnvFactoryRegistered(task="CartPole-v1", venv_type=VectorEnvType.DUMMY, render_mode_watch="rgb_array"),
            ExperimentConfig(
                device="cpu", train=not options.evaluate, persistence_enabled=not options.evaluate, watch=False
            ),
            OffPolicyTrainingConfig(
                max_epochs=options.epochs,
                epoch_num_steps=2000,
                num_training_envs=4,
                num_test_envs=4,
                test_step_num_episodes=4,
                buffer_size=20000,
                collection_step_num_env_steps=40,
                update_step_num_gradient_steps_per_sample=0.25,
            ),
        )
        .with_dqn_params(DQNParams(lr=1e-3, gamma=0.95, target_update_freq=100, eps_training=0.2))
        .with_model_factory_default(hidden_sizes=(64, 64))
        .with_logger_factory(LoggerFactoryDefault(save_interval=1))  # a checkpoint after each epoch
        .with_name("cartpole")
        .build()
    )
    run = policy_directory(experiment, options.directory)
    experiment = with_policy_persistence(
        experiment,
        options.directory,
        mode="policy_state_dict",  # no pickle: whoever can write to the bucket can't run code here
        restore_from=run if options.evaluate else None,
    )
    result = experiment.run(raise_error_on_dirname_collision=False)
    if options.evaluate:
        collector = Collector[CollectStats](result.world.algorithm, result.world.envs.test_envs)
        collector.reset()
        print(f"the best policy scores {collector.collect(n_episode=12).returns_stat.mean:.1f}")
    else:
        print(f"the best score is {result.trainer_result.best_score:.1f}")
        print(f"the policies are in {run}: statevault ls {run}")


if __name__ == "__main__":
    main()
