"""CartPole by random search: the best policy, and that of every epoch, each with its statistics of observations.

    python examples/policy_persistence.py                    # into the folder ./policies
    python examples/policy_persistence.py                    # goes on from the best one; a worse one replaces nothing
    python examples/policy_persistence.py s3://bucket/walker # the same, on S3
    python examples/policy_persistence.py --evaluate         # the best policy alone

    statevault ls ./policies                                 # what lies there
    statevault verify ./policies

Needs torch and gymnasium: pip install "statevault[torch,gym]".
"""
# ruff: noqa: T201 - it talks to whoever runs it

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from typing_extensions import override

from statevault.errors import StateNotFoundError
from statevault.persistence import Persistence, PersistEvent, PolicyPersistence, RestoreEvent, World


class ObservationStatistics(Persistence):
    """Mean and variance of the observations so far (Welford, 1962). A policy is worth nothing with those of another."""

    def __init__(self) -> None:
        self.count = 1e-4
        self.mean = np.zeros(4)
        self.squares = np.full(4, 1e-4)

    def normalised(self, observation: Any) -> torch.Tensor:
        """An observation, as the policy takes it."""
        deviation = np.sqrt(self.squares / self.count)
        return torch.as_tensor((observation - self.mean) / deviation, dtype=torch.float32)

    def add(self, observation: Any) -> None:
        """Take note of an observation."""
        self.count += 1
        distance = observation - self.mean
        self.mean += distance / self.count
        self.squares += distance * (observation - self.mean)

    @override
    def persist(self, event: PersistEvent, world: Any) -> None:
        # A plain local file, wherever the policy itself is saved.
        content = {"count": self.count, "mean": self.mean.tolist(), "squares": self.squares.tolist()}
        Path(world.persist_path("observations.json")).write_text(json.dumps(content), encoding="utf-8")

    @override
    def restore(self, event: RestoreEvent, world: Any) -> None:
        content = json.loads(Path(world.restore_path("observations.json")).read_text(encoding="utf-8"))
        self.count = content["count"]
        self.mean, self.squares = np.array(content["mean"]), np.array(content["squares"])


class Search:
    """What trains: tries changes of the policy, and keeps those that are no worse. A world's ``trainer``."""

    def __init__(self, policy: torch.nn.Module, statistics: ObservationStatistics) -> None:
        self.policy = policy
        self.statistics = statistics
        self.environment = gymnasium.make("CartPole-v1")
        self.epoch = 0
        self.env_step = 0
        self.gradient_step = 0
        self.best_score: float | None = None

    @torch.no_grad()
    def score(self, episodes: int, *, learn: bool = False) -> float:
        """The mean return of some episodes."""
        total = 0.0
        for episode in range(episodes):
            observation, _ = self.environment.reset(seed=episode)
            over = False
            while not over:
                if learn:
                    self.statistics.add(observation)
                action = int(self.policy(self.statistics.normalised(observation)).argmax())
                observation, reward, terminated, truncated, _ = self.environment.step(action)
                self.env_step += 1
                total += float(reward)
                over = terminated or truncated
        return total / episodes

    @torch.no_grad()
    def train(self, tries: int) -> None:
        """One epoch."""
        self.epoch += 1
        current = self.score(2, learn=True)
        for _ in range(tries):
            before = [parameter.clone() for parameter in self.policy.parameters()]
            for parameter in self.policy.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.3)
            changed = self.score(2)
            self.gradient_step += 1
            if changed >= current:
                current = changed
            else:
                for parameter, value in zip(self.policy.parameters(), before, strict=True):
                    parameter.copy_(value)


def main(arguments: list[str] | None = None) -> None:
    """Train, or evaluate."""
    parser = argparse.ArgumentParser(description="CartPole by random search, with its policies on any storage")
    parser.add_argument("directory", nargs="?", default="./policies", help="a path or URL")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--tries", type=int, default=5, help="per epoch")
    parser.add_argument("--evaluate", action="store_true", help="restore the best policy, and do not train")
    options = parser.parse_args(arguments)

    policy = torch.nn.Linear(4, 2)
    statistics = ObservationStatistics()
    search = Search(policy, statistics)
    world = World(policy, options.directory, options.directory, trainer=search)
    with PolicyPersistence(statistics, mode=PolicyPersistence.Mode.POLICY_STATE_DICT) as persistence:
        try:
            persistence.restore(policy, world, "cpu")
            print(f"the best policy so far scores {search.score(5):.1f}")
        except StateNotFoundError:
            print("there is no policy yet")
        save_best = persistence.get_save_best_fn(world)
        save_epoch = persistence.get_save_checkpoint_fn(world)
        assert save_epoch is not None
        for _ in range(0 if options.evaluate else options.epochs):
            search.train(options.tries)
            score = search.score(5)
            path = save_epoch(search.epoch, search.env_step, search.gradient_step)
            print(f"epoch {search.epoch}: {score:.1f}, {path}")
            if search.best_score is None or score > search.best_score:
                search.best_score = score
                save_best(policy)  # unless an earlier run has saved a better one


if __name__ == "__main__":
    main()
