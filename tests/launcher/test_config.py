from __future__ import annotations

import math
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from upath import UPath

from statevault.launcher import LaunchConfig
from statevault.state_persistence import LatestStatesKeeper, PeriodicSaveCondition


def test_the_defaults_are_those_of_the_manual() -> None:
    config = LaunchConfig()
    assert config.states_dir == Path("./states")
    assert config.state_name_format == "%Y-%m-%d_%H-%M-%S,%f.state"
    assert config.saved_state_path is None
    assert config.save_state_interval == math.inf
    assert config.max_keep_states == -1
    assert config.timeout_for_all_threads_pause == 60.0
    assert config.max_attempts_to_pause_all_threads == 3
    assert config.max_uptime == math.inf
    assert config.web_api_address == ("localhost", 8319)
    assert config.time_scale == 1.0
    assert config.condition() is None


@pytest.mark.parametrize("place", ["./states", "s3://bucket/walker", Path("states"), UPath("memory://states")])
def test_any_kind_of_place_is_kept_as_it_is(place: Any) -> None:
    config = LaunchConfig(states_dir=place, saved_state_path=place)
    assert (config.states_dir, config.saved_state_path) == (place, place)
    assert type(config.states_dir) is type(place)


def test_the_condition_is_the_given_one_or_made_of_the_interval() -> None:
    assert isinstance(LaunchConfig(save_state_interval=300.0).condition(), PeriodicSaveCondition)
    condition = PeriodicSaveCondition(1.0)
    assert LaunchConfig(save_state_condition=condition).condition() is condition


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("save_state_interval", 0),
        ("save_state_condition", 5),
        ("max_keep_states", 0),
        ("max_keep_states", -2),
        ("max_attempts_to_pause_all_threads", 0),
        ("timeout_for_all_threads_pause", -1.0),
        ("max_uptime", "long"),
        ("time_scale", math.inf),
        ("time_scale", 0),
        ("web_api_address", ("localhost", 70000)),
        ("web_api_address", "localhost:80"),
        ("states_keeper", object()),
        ("state_name_format", ""),
    ],
)
def test_a_wrong_field_is_named(field: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=field):
        LaunchConfig(**{field: value})


@pytest.mark.parametrize(
    "fields",
    [
        {"save_state_interval": 1.0, "save_state_condition": lambda: True},
        {"max_keep_states": 3, "states_keeper": LatestStatesKeeper("states", 3)},
        {"state_name_pattern": "*.s", "states_keeper": LatestStatesKeeper("states", 3)},
    ],
)
def test_a_shorthand_beside_its_long_form_is_an_error(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="give one of them"):
        LaunchConfig(**fields)


def test_a_config_can_not_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        LaunchConfig().time_scale = 2.0  # type: ignore[misc]


def test_credentials_are_neither_in_the_repr_nor_in_an_error() -> None:
    options = {"key": "AKIA-public", "secret": "very-secret"}
    assert "very-secret" not in repr(LaunchConfig(storage_options=options))
    with pytest.raises(ValidationError) as caught:
        LaunchConfig(max_keep_states=0, storage_options=options)
    assert "very-secret" not in str(caught.value)
    assert "max_keep_states" in str(caught.value)
