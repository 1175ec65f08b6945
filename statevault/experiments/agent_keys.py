"""Dictionaries whose keys are agents, stored by a key that outlives the agents.

An algorithm may keep something for each agent of a network in a dictionary with the agents as keys. Unpickled, such a
dictionary would be filled before its agents are whole, and it would belong to those agents and to no others. So an
attribute of which every key has a stable key is stored by that, and put back for the agents of the network that it is
loaded with.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import IO, Any, TypeAlias

from typing_extensions import override

__all__ = ["AgentKeyed", "AgentsOf", "KeyOf", "MakePickler", "agents_of_network", "algorithm_pickler", "put_back"]

KeyOf: TypeAlias = Callable[[Any], Hashable | None]
"""The stable key of an agent; None for an object that is none."""

MakePickler: TypeAlias = Callable[[IO[bytes]], pickle.Pickler]
"""Makes the pickler that writes to a file."""

AgentsOf: TypeAlias = Callable[[Any], Iterable[Any]]
"""The agents of a network."""


@dataclass(frozen=True, slots=True)
class AgentKeyed:
    """The values of a dictionary whose keys were agents, by their stable keys, in its order."""

    values: dict[Any, Any]


def agents_of_network(network: Any) -> Iterable[Any]:
    """The agents of a network that has them as ``agents``, or ``agents()``; else what it iterates over."""
    agents = getattr(network, "agents", network)
    return agents() if callable(agents) else agents  # type: ignore[no-any-return]


def algorithm_pickler(algorithms: Iterable[object], key_of: KeyOf) -> MakePickler:
    """Make picklers that store the agent-keyed attributes of some objects by stable keys.

    The objects themselves are not changed, and whatever else refers to them goes on doing so.

    Args:
        algorithms: The objects.
        key_of: The stable key of an agent.
    """
    own = {id(algorithm) for algorithm in algorithms}

    class Pickler(pickle.Pickler):
        @override
        def reducer_override(self, obj: Any) -> Any:
            if id(obj) not in own:
                return NotImplemented
            reduced = obj.__reduce_ex__(5)
            if isinstance(reduced, str) or len(reduced) < 3 or not isinstance(reduced[2], dict):
                return reduced
            state = {name: _by_stable_key(value, key_of) for name, value in reduced[2].items()}
            return (*reduced[:2], state, *reduced[3:])

    return lambda file: Pickler(file, protocol=5)


def put_back(algorithm: object, network: Any, agents_of: AgentsOf, key_of: KeyOf | None) -> None:
    """Give an algorithm's agent-keyed attributes the agents of a network as keys.

    Args:
        algorithm: As it was unpickled; changed in place.
        network: The network; None to leave stable keys as keys.
        agents_of: The agents of a network.
        key_of: The stable key of an agent; None to leave stable keys as keys.

    Raises:
        ValueError: No agent of the network has a key that was stored, or two have the same, or `key_of` is None.
    """
    keyed = {name: value for name, value in _attributes(algorithm).items() if isinstance(value, AgentKeyed)}
    if not keyed:
        return
    if network is not None and key_of is None:
        raise ValueError(
            f"{type(algorithm).__name__}.{next(iter(keyed))} was stored by the keys of agents: make the "
            "CheckpointManager with the same key_of"
        )
    agents: dict[Any, Any] | None = None
    if network is not None and key_of is not None:
        agents = {}
        for agent in agents_of(network):
            key = key_of(agent)
            if key in agents:
                raise ValueError(f"two agents of the network have the key {key!r}: keys must tell agents apart")
            agents[key] = agent
    for name, value in keyed.items():
        if agents is None:
            setattr(algorithm, name, dict(value.values))
            continue
        unmatched = [key for key in value.values if key not in agents]
        if unmatched:
            raise ValueError(
                f"{type(algorithm).__name__}.{name} was stored for agents that the network does not have: "
                f"{', '.join(map(repr, unmatched[:5]))}"
            )
        setattr(algorithm, name, {agents[key]: item for key, item in value.values.items()})


def _by_stable_key(value: Any, key_of: KeyOf) -> Any:
    if not isinstance(value, dict) or not value:
        return value
    values = {}
    for agent, item in value.items():
        key = key_of(agent)
        if key is None:
            return value
        if key in values:
            raise ValueError(f"two agents have the key {key!r}: keys must tell agents apart")
        values[key] = item
    return AgentKeyed(values)


def _attributes(obj: object) -> Mapping[str, Any]:
    return dict(getattr(obj, "__dict__", {}))
