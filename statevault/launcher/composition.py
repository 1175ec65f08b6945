"""The composition root: makes a running system of an agent's components."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from statevault import time
from statevault.data import DataBuffer, DataUsersDict
from statevault.errors import MissingExtraError, SaveTimeoutError, StateNotFoundError, StatePrunedError
from statevault.interaction import Interaction
from statevault.launcher.config import DEFAULT_WEB_API_ADDRESS, LaunchConfig
from statevault.launcher.signals import StopSignals
from statevault.model import TrainingModel, TrainingModelsDict
from statevault.state_persistence import EXIT, LATEST, LatestStatesKeeper, RandomGenerators, StateStore
from statevault.state_persistence.keepers import Retention
from statevault.state_persistence.spool import Spool
from statevault.threads import ControlThread, InferenceThread, SaveSupervisor, ThreadController, TrainingThread
from statevault.threads.notes import told
from statevault.threads.save_supervisor import keep_all, never, nothing
from statevault.trainer import Trainer, TrainersDict

if TYPE_CHECKING:
    from statevault.console import WebApiServer

__all__ = ["launch"]

_logger = logging.getLogger(__name__)

_NONE: Mapping[str, Any] = MappingProxyType({})
_LONGEST_EXIT = 1000
_RNG = "rng"


def launch(
    interaction: Interaction[Any, Any],
    models: Mapping[str, TrainingModel[Any]] = _NONE,
    data: Mapping[str, DataBuffer[Any, Any]] | None = None,
    trainers: Mapping[str, Trainer] = _NONE,
    config: Mapping[str, Any] | LaunchConfig | None = None,
    *,
    buffers: Mapping[str, DataBuffer[Any, Any]] | None = None,
) -> None:
    """Run an agent until it is shut down: by SIGTERM or Ctrl-C, its maximal uptime, or an error.

    The threads end in order, and a final state is saved with ``{"exit": "clean"}`` in its metadata; after an
    error in a component with ``{"exit": "error: …"}``. A second signal ends that at once. The signals are handled
    when it is called in the main thread, and their handlers are put back.

    Args:
        interaction: The agent and its environment.
        models: The models by name.
        data: The data buffers by name.
        trainers: The trainers by name, run in this order.
        config: A :class:`LaunchConfig`, or its fields; None for the defaults.
        buffers: The same as `data`.

    Raises:
        TypeError: Both `data` and `buffers` are given.
        pydantic.ValidationError: A field of `config` is wrong or unknown; the message names it.
        StateNotFoundError: The state to start from is not there.
        StorageOptionError: An option of the storage can't be used. Nothing has run then.
        StorageError: The store can't be read, or the final state not saved.
        SaveTimeoutError: The final state was not saved in time.
        AddressInUseError: Something else listens at `web_api_address`.
        MissingExtraError: The web API needs a package, and `web_api_address` is not the default.
        PauseTimeoutError: A thread did not end. It is left behind, and no final state was saved.
        KeyboardInterrupt: A second signal, Ctrl-C, came before the final state was saved.
        SystemExit: A second signal, SIGTERM, did; the status is 143.
        Exception: Whatever a component raised, with its traceback.
    """
    if data is not None and buffers is not None:
        raise TypeError("launch() takes the data buffers as data= or as buffers=, not both")
    if not isinstance(config, LaunchConfig):
        config = LaunchConfig(**(config or {}))

    training_models = TrainingModelsDict(models)
    data_users = DataUsersDict.from_data_buffers((data if buffers is None else buffers) or {})
    trainers_dict = TrainersDict(trainers)

    interaction.agent.attach_inference_models(training_models.inference_models_dict)
    interaction.agent.attach_data_collectors(data_users.data_collectors_dict)
    trainers_dict.attach_training_models(training_models)
    trainers_dict.attach_data_users(data_users)

    clock = time.get_global_time_controller()
    with ExitStack() as stack:
        # First, so that a port in use is known before anything has begun; closed last.
        server = _web_api_server(config)
        if server is not None:
            stack.callback(server.close)
        store = StateStore(
            config.states_dir,
            config.state_name_format,
            storage_options=config.storage_options,
            allow_pickle=config.allow_pickle,
            incremental=config.incremental,
            shrink=config.shrink,
            spool=config.spool,
        )
        hurried = False
        stack.callback(lambda: _close(store, config, hurried=hurried))
        store.register("interaction", interaction)
        store.register("models", training_models)
        store.register("data", data_users)
        store.register("trainers", trainers_dict)
        store.register("time", clock)
        if config.save_rng_state:
            store.register(_RNG, RandomGenerators())
        resumed_from = _load(store, config)

        supervisor = SaveSupervisor(
            store,
            condition=config.condition() or never,
            metadata=config.state_metadata or nothing,
            cleanup=_retention(store, config, resumed_from) or keep_all,
            cleanup_interval_s=config.states_cleanup_interval,
            final_timeout_s=config.timeout_for_final_save,
        )
        controller = ThreadController()
        # Registered in the order in which they pause: the agent acts on until a training step has ended.
        training = TrainingThread(trainers_dict, controller)
        inference = InferenceThread(
            interaction,
            controller,
            log_tick_time_statistics_interval=config.log_tick_time_statistics_interval,
        )
        signals = stack.enter_context(StopSignals())
        control = ControlThread(
            [training, inference],
            controller,
            supervisor,
            clock=clock,
            timeout_for_all_threads_pause=config.timeout_for_all_threads_pause,
            max_attempts_to_pause_all_threads=config.max_attempts_to_pause_all_threads,
            max_uptime=config.max_uptime,
            stop_signal=lambda: signals.received,
        )
        stack.callback(_release, clock)
        stack.callback(supervisor.close)
        if server is not None:
            _serve(server, config, control, inference, store)
        clock.set_time_scale(config.time_scale)
        try:
            _run(control, supervisor, clock, signals)
        except BaseException as error:
            hurried = signals.hurried
            if hurried:
                supervisor.forgo_final(error)
            raise


def _web_api_server(config: LaunchConfig) -> WebApiServer | None:
    """Listen at the address of the web API, if there is one and it can be served.

    Raises:
        AddressInUseError: Something else listens there.
        MissingExtraError: A package is missing, and the address is not the default.
    """
    if config.web_api_address is None:
        return None
    try:
        from statevault.console import WebApiServer  # noqa: PLC0415 - an extra
    except MissingExtraError as error:
        if config.web_api_address != DEFAULT_WEB_API_ADDRESS:
            raise
        _logger.warning("no web API at %s:%d: %s", *config.web_api_address, error)
        return None
    return WebApiServer(*config.web_api_address)


def _serve(
    server: WebApiServer, config: LaunchConfig, control: ControlThread, inference: InferenceThread, store: StateStore
) -> None:
    from statevault.console import StatesListing, SystemSource, web_api  # noqa: PLC0415 - an extra

    source = SystemSource(
        control, lambda: inference.tick_statistics, StatesListing(store.url, store.names), store.replication
    )
    host = config.web_api_address[0] if config.web_api_address is not None else "localhost"
    server.start(
        web_api(
            source,
            host=host,
            loopback=config.web_api_is_local,
            allowed_hosts=config.web_api_allowed_hosts,
            token=config.web_api_token,
            queue_size=config.web_api_command_queue_size,
        )
    )


def _load(store: StateStore, config: LaunchConfig) -> str | None:
    """Load the state to start from; its name, None for a fresh start."""
    if config.saved_state_path is None:
        return None
    try:
        # States of runs without save_rng_state have no generators, and a run without it uses none.
        return store.load_state(config.saved_state_path, strict=config.strict, optional=[_RNG]).name
    except StatePrunedError:
        raise  # there were states, so that a fresh start would be a loss
    except StateNotFoundError:
        if str(config.saved_state_path) != LATEST:
            raise
        _logger.info("%s holds no state yet: the agent starts afresh", store.url)
        return None


def _retention(store: StateStore, config: LaunchConfig, resumed_from: str | None) -> Retention | None:
    keeper = config.states_keeper
    if keeper is None and config.max_keep_states > 0:
        keeper = LatestStatesKeeper(config.states_dir, config.max_keep_states, config.state_name_pattern)
    return None if keeper is None else Retention(store, keeper, resumed_from=resumed_from)


def _run(control: ControlThread, supervisor: SaveSupervisor, clock: time.TimeController, signals: StopSignals) -> None:
    """Run the system to its end, and save the final state.

    Raises:
        BaseException: See :func:`launch`.
    """
    failure: BaseException | None = None
    try:
        control.run()
    except BaseException as error:
        if signals.hurried:
            raise
        # Raised again below, after the state is safe.
        failure = error
        if isinstance(error, KeyboardInterrupt):
            _logger.info("keyboard interrupt, shutting down")
            if control.at_rest:
                failure = None
            else:
                error.add_note("threads were still running, so that no final state was saved")
    clock.pause()
    if control.at_rest:
        _save_final(supervisor, failure)
    if failure is not None:
        raise failure


def _save_final(supervisor: SaveSupervisor, failure: BaseException | None) -> None:
    _logger.info("saving the final state; one more SIGTERM or Ctrl-C, and it is given up")
    if failure is None:
        supervisor.save_final({EXIT: "clean"})
        return
    try:
        how = f"error: {type(failure).__name__}: {failure}"[:_LONGEST_EXIT]
        supervisor.save_final({EXIT: how.encode("utf-8", "backslashreplace").decode()})
    except Exception as error:  # noqa: BLE001 - the caller gets the failure, with this in its notes
        failure.add_note(f"the final state was not saved: {told(error)}")
    except BaseException as interrupt:
        raise interrupt from failure


def _release(clock: time.TimeController) -> None:
    """Let the clock of the process run as it does without a launch."""
    clock.set_time_scale(1.0)
    clock.resume()
    clock.allow_sleeps()


def _close(store: StateStore, config: LaunchConfig, *, hurried: bool) -> None:
    # The supervisor has waited for all publishes, or has given them up and told of it: all that a publish may have to
    # do yet is to go. One that hangs needs what close() would give back; it goes with the process.
    linger_s = 0.0 if config.spool is None or hurried else Spool.of(config.spool).linger_s
    with suppress(SaveTimeoutError):
        store.close(timeout=1.0 + linger_s)
