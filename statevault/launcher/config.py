"""How a system is to be launched."""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, ConfigDict, Field, InstanceOf, PositiveFloat, ValidationInfo, model_validator
from pydantic.dataclasses import dataclass
from upath import UPath

from statevault.state_persistence import PeriodicSaveCondition, StatesKeeper
from statevault.state_persistence.publish.names import DEFAULT_STATE_NAME_FORMAT
from statevault.state_persistence.spool import Spool
from statevault.state_persistence.whole_numbers import whole_number

__all__ = ["DEFAULT_WEB_API_ADDRESS", "LaunchConfig"]

DEFAULT_WEB_API_ADDRESS = ("localhost", 8319)


def _integer(value: Any, info: ValidationInfo) -> int:
    try:
        return whole_number(str(info.field_name), value)
    except TypeError as error:
        raise ValueError(str(error)) from None  # what pydantic takes for an error of the field


_Integer = Annotated[int, BeforeValidator(_integer)]
_PositiveInteger = Annotated[_Integer, Field(gt=0)]
_PositiveFinite = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Token = Annotated[str, Field(min_length=16, pattern=r"^[A-Za-z0-9._~+/-]+=*$")]  # as RFC 6750 has it
_Port = Annotated[int, Field(ge=0, le=65535)]


@dataclass(
    frozen=True,
    kw_only=True,
    config=ConfigDict(extra="forbid", arbitrary_types_allowed=True, hide_input_in_errors=True),
)
class LaunchConfig:
    """Everything about a launch but its components. Frozen; wrong and unknown fields are errors that name them.

    When to save and what to keep can be said in two ways: by a condition and a keeper, or by the shorthands
    `save_state_interval`, and `max_keep_states` with `state_name_pattern`. Giving a shorthand together with what it is
    short for is an error.

    Attributes:
        states_dir: A path, or the URL of any storage that fsspec reaches, to which states are saved.
        state_name_format: Makes the name of a state from the time, as :meth:`datetime.datetime.strftime` does.
        saved_state_path: A state to start from: a path, a URL, a state's name, or ``"latest"``, which starts
            afresh when there is none; None to start afresh.
        strict: Whether that state must fit what is launched. False: load what fits, and log what was missing or left
            over.
        save_state_condition: Asked several times a second: whether to save now. None for no automatic saves.
        save_state_interval: Seconds between automatic saves; infinity for none.
        state_metadata: Asked at each save while the threads stand still: a JSON object to keep with the state, such as
            ``{"reward": 231.5, "step": 40000}``.
        states_keeper: Which states to remove after each save; None to keep all.
        max_keep_states: How many of the newest states to keep; -1 to keep all.
        state_name_pattern: Glob pattern of the names that `max_keep_states` counts.
        states_cleanup_interval: Retention is applied after each save; seconds until it is applied again where nothing
            is saved meanwhile.
        storage_options: Options of the filesystem of `states_dir`, as fsspec takes them.
        allow_pickle: Whether states may hold pickles, which run code when they are loaded.
        incremental: Whether a save uploads only what changed since an earlier state, to whose chunks it refers.
        shrink: Whether floating-point numbers are stored as byte planes where that makes them smaller: for slow links.
        spool: A local folder, or a :class:`~statevault.state_persistence.spool.Spool`, in which states are committed
            and wait until they are at `states_dir`; None to save there directly.
        save_rng_state: Whether the global random generators (of Python, NumPy and torch) are part of the states.
        timeout_for_all_threads_pause: Seconds in which all threads must come to a step boundary.
        max_attempts_to_pause_all_threads: How often that is tried before the agent goes on without a pause.
        timeout_for_final_save: Seconds for which, at the end, the publish under way, the final state and retention are
            waited for in all; what has not ended by then is left behind.
        max_uptime: Seconds after which the system ends by itself; infinity for never.
        web_api_address: Host and port of the web API, None for none. Needs the extra ``web``; where that is missing,
            the default address is left unserved with a warning, and any other one is an error.
        web_api_command_queue_size: How many commands of the web API may wait; others are refused with status 503.
        web_api_token: The bearer token that requests to the web API need; required where other machines can reach
            it. At least 16 letters, digits and ``._~+/-``.
        web_api_allowed_hosts: Names that the ``Host`` header of such requests may have besides those of this machine,
            such as that of a reverse proxy.
        log_tick_time_statistics_interval: Seconds between two lines in the log on how long steps take.
        time_scale: How many seconds of :mod:`statevault.time` pass in one second.
    """

    states_dir: str | Path | InstanceOf[UPath] = Path("./states")
    state_name_format: Annotated[str, Field(min_length=1)] = DEFAULT_STATE_NAME_FORMAT
    saved_state_path: str | Path | InstanceOf[UPath] | None = None
    strict: bool = True
    save_state_condition: Callable[[], bool] | None = None
    save_state_interval: PositiveFloat = math.inf
    state_metadata: Callable[[], Mapping[str, Any]] | None = None
    states_keeper: InstanceOf[StatesKeeper] | None = None
    max_keep_states: Annotated[_Integer, Field(ge=-1)] = -1
    state_name_pattern: Annotated[str, Field(min_length=1)] = "*.state"
    states_cleanup_interval: PositiveFloat = 60.0
    storage_options: Mapping[str, Any] | None = Field(default=None, repr=False)  # holds secrets
    allow_pickle: bool = False
    incremental: bool = True
    shrink: bool = False
    spool: str | Path | InstanceOf[Spool] | None = None
    save_rng_state: bool = True
    timeout_for_all_threads_pause: PositiveFloat = 60.0
    max_attempts_to_pause_all_threads: _PositiveInteger = 3
    timeout_for_final_save: PositiveFloat = 3600.0
    max_uptime: PositiveFloat = math.inf
    web_api_address: tuple[Annotated[str, Field(min_length=1)], _Port] | None = DEFAULT_WEB_API_ADDRESS
    web_api_command_queue_size: _PositiveInteger = 1
    web_api_token: _Token | None = Field(default=None, repr=False)
    web_api_allowed_hosts: tuple[str, ...] = ()
    log_tick_time_statistics_interval: PositiveFloat = 60.0
    time_scale: _PositiveFinite = 1.0

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        if self.max_keep_states == 0:
            raise ValueError("max_keep_states is at least 1, or -1 to keep all: the newest state is never removed")
        if self.save_state_condition is not None and not math.isinf(self.save_state_interval):
            raise ValueError(
                "save_state_interval is short for save_state_condition=PeriodicSaveCondition(interval): "
                "give one of them"
            )
        shorthands = {"max_keep_states": -1, "state_name_pattern": "*.state"}
        given = [name for name, default in shorthands.items() if getattr(self, name) != default]
        if self.states_keeper is not None and given:
            raise ValueError(f"{', '.join(given)}: short for states_keeper=LatestStatesKeeper(…): give one of them")
        if self.web_api_address is not None and not self.web_api_is_local and self.web_api_token is None:
            raise ValueError(
                f"web_api_address: other machines can reach {self.web_api_address[0]!r}, which needs a web_api_token; "
                "without one, take 'localhost'"
            )
        return self

    @property
    def web_api_is_local(self) -> bool:
        """Whether only this machine can reach the web API."""
        if self.web_api_address is None:
            return True
        host = self.web_api_address[0]
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            # Of all names, this one alone is certain to mean this machine (RFC 6761).
            return host.lower() == "localhost"

    def condition(self) -> Callable[[], bool] | None:
        """The save condition, in whichever way it was given; None for no automatic saves.

        A condition that is made of the interval counts it from this call.
        """
        if self.save_state_condition is not None or math.isinf(self.save_state_interval):
            return self.save_state_condition
        return PeriodicSaveCondition(self.save_state_interval)
