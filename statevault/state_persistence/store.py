"""The StateStore: what users hold in their hands. It owns nothing but the wiring of the modules beside it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import JsonValue
from upath import UPath

from statevault.errors import (
    CorruptStateError,
    InvalidNameError,
    StateNotFoundError,
    StatePrunedError,
    StateVaultError,
    StorageError,
    UnsupportedVersionError,
)
from statevault.format.keys import StateKey
from statevault.format.names import check_component_name
from statevault.process_limits import naming_limits
from statevault.state_persistence.concurrency.exclusive import ExclusiveUse
from statevault.state_persistence.concurrency.patience import Patience
from statevault.state_persistence.content.chunk_encoding import Compression
from statevault.state_persistence.info import EXIT, LoadedState, StateInfo
from statevault.state_persistence.metadata import check_metadata
from statevault.state_persistence.mixin import PersistentState
from statevault.state_persistence.publish.background import BackgroundPublisher
from statevault.state_persistence.publish.commit import SaveRequest
from statevault.state_persistence.publish.names import DEFAULT_STATE_NAME_FORMAT, StateNames
from statevault.state_persistence.publish.reuse import Base
from statevault.state_persistence.records.catalog import Listing
from statevault.state_persistence.restore.download import StateReader
from statevault.state_persistence.restore.load import Loader
from statevault.state_persistence.restore.plain_folder import PlainFolder
from statevault.state_persistence.restore.selection import Selection
from statevault.state_persistence.snapshot.prepared_save import PreparedSave
from statevault.state_persistence.snapshot.snapshot import Cut, Snapshot, begin_snapshot, end_snapshot, take_snapshot
from statevault.state_persistence.snapshot.staging import Staging
from statevault.state_persistence.spool import Spool
from statevault.state_persistence.spool.spooled_states import SpooledStates
from statevault.state_persistence.stored_states import LATEST, StatePath, StoredStates
from statevault.storage import Storage, local_folder, parent_and_name
from statevault.storage.redaction import redacted

__all__ = ["LATEST", "StateStore"]

_logger = logging.getLogger(__name__)
_ROUNDS = 5


class StateStore(SpooledStates):
    """Saves the components of an agent as states, and loads them back.

    Example:
        >>> store = StateStore("./states")
        >>> store.register("models", models)
        >>> path = store.save_state(metadata={"step": 40_000})
        >>> store.load_state("latest")

    Args:
        states_dir: A path, or the URL of any storage that fsspec reaches. It need not exist. Or a
            :class:`~statevault.storage.Storage` of the caller's own.
        state_name_format: Makes a state's name from the local time, with :meth:`~datetime.datetime.strftime`. The
            names inform people; the order of states is that of their commits.
        storage_options: What fsspec's filesystem of that protocol takes; where silent, the usual environment
            variables hold.
        allow_pickle: Whether components may write pickles, and whether files that hold pickles are loaded. Loading
            one runs code of whoever can write to the store.
        staging_dir: Where snapshots are held before they are published; None for memory when they fit, else the
            folder for temporary files.
        incremental: Whether a save refers to the unchanged chunks of an earlier state instead of uploading them again:
            of the one that this object saved or loaded last, or, before that, of the newest in the store.
        shrink: Whether floating-point numbers are stored as byte planes where that makes them smaller. Nothing is lost.
            It saves about a tenth of weights in float32 and in bfloat16, and takes several times the time of
            compression: for slow links.
        spool: A folder of the local disk, or a :class:`~statevault.state_persistence.spool.Spool`: states are committed
            there, at the speed of the disk, and replicated to `states_dir` in the background. Replication of what an
            earlier process has left begins at once.

    Raises:
        InvalidNameError: The URL, the format, the spool or `staging_dir` can't be used.
        StorageOptionError: A storage option can't be used.
        MissingExtraError: The protocol needs a package that is not installed.
    """

    def __init__(
        self,
        states_dir: StatePath | Storage,
        state_name_format: str = DEFAULT_STATE_NAME_FORMAT,
        *,
        storage_options: Mapping[str, Any] | None = None,
        allow_pickle: bool = False,
        staging_dir: str | os.PathLike[str] | None = None,
        incremental: bool = True,
        shrink: bool = False,
        spool: Spool | str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__(states_dir, storage_options, spool)
        self._names = StateNames(state_name_format)
        self._allow_pickle = allow_pickle
        self._staging = Staging(None if staging_dir is None else local_folder(staging_dir, "staging_dir"))
        self._components: dict[str, PersistentState] = {}
        self._publisher: BackgroundPublisher[UPath] = BackgroundPublisher()
        self._components_in_use = ExclusiveUse()
        self._last_size = 0
        self._incremental = incremental
        self._compression = Compression.SMALLEST if shrink else Compression.ZSTD
        self._base: Base | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<StateStore {self.url} ({', '.join(self._components) or 'no components'})>"

    # -- components

    def register(self, name: str, component: PersistentState) -> None:
        """Make an object part of all states from now on.

        Args:
            name: Its name, one path segment.
            component: Anything with ``save_state(path)`` and ``load_state(path)``.

        Raises:
            KeyError: The name is in use.
            InvalidNameError: The name can't be one.
            TypeError: The component lacks one of these methods.
        """
        _check_component(name, component)
        if name in self._components:
            raise KeyError(f"a component is registered as {name!r} already")
        self._components[name] = component

    # -- saving

    def save_state(
        self,
        *,
        name: str | None = None,
        metadata: Mapping[str, JsonValue] | None = None,
        base: StatePath | None = None,
    ) -> UPath:
        """Save all components and wait until the state is committed.

        Args:
            name: The state's name; made from the time if not given.
            metadata: A JSON object that is kept with the state: ``{"reward": 231.5, "step": 40000}``.
            base: A state of this store whose unchanged chunks need not be uploaded again; by default the store
                chooses (`incremental`).

        Returns:
            The state's folder; a :class:`pathlib.Path` as well when the store is local.

        Raises:
            StateExistsError: `name` is or was the name of a state, perhaps of one whose save failed.
            StateNotFoundError: There is no state `base`.
            CorruptStateError: Its manifest is damaged.
            UnsupportedTypeError: A component holds a value that needs pickle, or `metadata` is not JSON.
            StagingSpaceError: There is no room for the snapshot.
            SaveFencedError: A prune took this writer for dead, again and again.
            StorageError: The storage failed; nothing of the state is visible, unless the error's notes say so.
            MemoryError: No memory is left, likewise; the message names the limits of this process.
            Exception: Whatever a component raises.
        """
        return self._save(name=name, metadata=metadata, base=base, replaceable=False).result()

    def save_state_async(
        self,
        *,
        name: str | None = None,
        metadata: Mapping[str, JsonValue] | None = None,
        base: StatePath | None = None,
    ) -> Future[UPath]:
        """Take the snapshot now and publish it in the background.

        When this returns, components may change again. One publish runs at a time and one snapshot waits; a newer one
        takes its place. Wait for the future, or :meth:`close` the store, before the process ends.

        Args:
            name: As for :meth:`save_state`.
            metadata: As for :meth:`save_state`.
            base: As for :meth:`save_state`; its manifest is read before the snapshot is taken.

        Returns:
            What :meth:`save_state` returns, or raises after the snapshot was taken; :class:`SaveSupersededError` if a
            newer snapshot took its place.

        Raises:
            StateNotFoundError: There is no state `base`.
            CorruptStateError: Its manifest is damaged.
            UnsupportedTypeError: A component holds a value that needs pickle, or `metadata` is not JSON.
            StagingSpaceError: There is no room for the snapshot.
            Exception: Whatever a component raises.
        """
        return self._save(name=name, metadata=metadata, base=base, replaceable=True)

    def _save(
        self, *, name: str | None, metadata: Mapping[str, JsonValue] | None, base: StatePath | None, replaceable: bool
    ) -> Future[UPath]:
        checked = check_metadata(metadata)
        find_base = self._base_finder(None if base is None else self._known_base(base))
        with self._components_in_use:
            snapshot = take_snapshot(
                self._components, self._staging, size_hint=self._last_size, allow_pickle=self._allow_pickle
            )
            return self._submit(snapshot, name, checked, find_base, replaceable=replaceable)

    def prepare_save(self) -> PreparedSave:
        """Save the first phase of those components that have two (:class:`PhasedState`).

        What they have saved must not change until the save is finished or discarded; other components may. Until then
        nothing else is saved or loaded.

        Returns:
            The save, to be finished or discarded by this thread.

        Raises:
            UnsupportedTypeError: A component holds a value that needs pickle.
            StagingSpaceError: There is no room for the snapshot.
            Exception: Whatever a component raises.
        """
        self._components_in_use.__enter__()
        try:
            cut = begin_snapshot(
                self._components, self._staging, size_hint=self._last_size, allow_pickle=self._allow_pickle
            )
        except BaseException:
            self._components_in_use.__exit__(None, None, None)
            raise
        return PreparedSave(
            cut, finish=self._finish_save, release=lambda: self._components_in_use.__exit__(None, None, None)
        )

    def _finish_save(self, cut: Cut, metadata: Mapping[str, JsonValue] | None) -> Future[UPath]:
        try:
            checked = check_metadata(metadata)
            find_base = self._base_finder(None)
        except BaseException:
            cut.discard()
            raise
        snapshot = end_snapshot(cut, size_hint=self._last_size)
        return self._submit(snapshot, None, checked, find_base, replaceable=True)

    def _submit(
        self,
        snapshot: Snapshot,
        name: str | None,
        metadata: dict[str, JsonValue],
        find_base: Callable[[Listing], Base | None],
        *,
        replaceable: bool,
    ) -> Future[UPath]:
        self._last_size = snapshot.written
        try:
            request = SaveRequest(snapshot, name, self._writer, metadata, find_base, compression=self._compression)
            return self._publisher.submit(
                lambda: self._publish(request), discard=snapshot.close, replaceable=replaceable
            )
        except StateVaultError:
            snapshot.close()
            raise

    def _publish(self, request: SaveRequest) -> UPath:
        with naming_limits("the state could not be saved"):
            record, self._base = self._commit(self._names, request)
        return self._storage.path(record.state)

    def _base_finder(self, given: Base | None) -> Callable[[Listing], Base | None]:
        """What chooses the base of a save, when its turn has come."""

        def find(listing: Listing) -> Base | None:
            base = given if given is not None else self._base
            if base is not None and base.is_still_there(listing):
                return base
            if given is not None or not self._incremental or not listing.visible:
                return None
            try:
                return Base.read(self._home._open(listing.visible[-1]))  # noqa: SLF001 - itself, or its spool
            except (CorruptStateError, StatePrunedError, UnsupportedVersionError) as error:
                _logger.warning("%s; all of the next state is uploaded", error)
                return None

        return find if given is not None or self._incremental else lambda listing: None

    def _known_base(self, state: StatePath) -> Base:
        store, key = self._resolve(state)
        if store is not self._home:
            raise StateNotFoundError(
                f"{redacted(str(state))} is not in {self._home.url}: a state refers to chunks of its own store only"
            )
        return Base.read(store._open(key))  # noqa: SLF001 - itself, or its spool

    def import_folder(
        self,
        folder: str | os.PathLike[str],
        *,
        name: str | None = None,
        metadata: Mapping[str, JsonValue] | None = None,
    ) -> UPath:
        """Save a plain folder, such as PAMIQ-Core wrote, as a state: its files as they are.

        Nothing is converted and nothing unpickled; each top-level entry becomes a component (``time.pkl``:
        ``"time"``). What is registered here does not matter.

        Args:
            folder: A local folder, which nobody changes meanwhile. It is left as it is.
            name: The state's name; made from the time if not given.
            metadata: As for :meth:`save_state`.

        Returns:
            What :meth:`save_state` returns.

        Raises:
            StateNotFoundError: There is no such folder, or it is empty.
            FormatError: It is a store, or a state of one, or what a save that never ended has left in one.
            StateExistsError: `name` is or was the name of a state, or of a folder that lies in the store.
            InvalidNameError: A name can't be used.
            UnsupportedTypeError: There is a link or a special file in it, or `metadata` is not JSON.
            StorageError: The storage failed.
        """
        checked = check_metadata(metadata)
        source = PlainFolder.read(Path(folder))
        snapshot = source.snapshot()
        try:
            # Not by the publisher: there it would take the place of a snapshot that waits.
            return self._publish(
                SaveRequest(
                    snapshot, name, self._writer, checked, self._base_finder(None), compression=self._compression
                )
            )
        finally:
            snapshot.close()

    # -- loading

    def load_state(
        self,
        path: StatePath = LATEST,
        *,
        components: Iterable[str] | None = None,
        strict: bool = True,
        optional: Iterable[str] = (),
    ) -> LoadedState:
        """Load components from a state.

        All bytes are fetched and verified before the first component is touched.

        Args:
            path: ``"latest"``, the name of a state of this store, or the path or URL of a state of any store.
                ``"latest"`` takes the newest state that verifies: a damaged one is reported in the log, and the next
                older one is used. One that was saved after an error (``metadata["exit"]``) is used only if there is no
                other. A name or path never falls back. The path of a local folder that PAMIQ-Core wrote, or that was
                exported, is loaded as it lies: nothing in it can be verified.
            components: Names of the components to load, and to read the bytes of; None for all that are registered.
                ``"models/policy"`` is one member of a component that is made of such.
            strict: Whether the state must fit what is registered. False: load what fits, and tell what does not.
            optional: Components that may be missing in the state, or not be registered, even so.

        Returns:
            The state, and what of it was loaded.

        Raises:
            StateNotFoundError: It is not there, or the store is empty.
            StatePrunedError: It was removed.
            CorruptStateError: It is damaged; for ``"latest"``, all states are.
            TypeError: `components` is one name, and not several.
            ComponentNotFoundError: A component is not registered, or not in the state; or, when all are to be loaded,
                the state holds one that is not registered.
            PickleNotAllowedError: It holds pickles, and the store was made without ``allow_pickle=True``.
            StorageError: The storage failed.
            Exception: Whatever a component's ``load_state`` raises, with a note that names the component. Components
                before it are loaded then.
        """
        if isinstance(components, str):
            raise TypeError(f"load_state() takes several components: components=[{components!r}]")
        wanted = None if components is None else list(components)
        loader = Loader(self._components, wanted, strict, frozenset(optional), self._allow_pickle)
        if str(path) != LATEST:
            try:
                store, key = self._resolve(path)
            except StatePrunedError:
                raise
            except StateNotFoundError:
                folder = self._plain_folder(path)
                if folder is None:
                    raise
                return self._load_folder(loader, folder)
            try:
                return self._load(loader, store, store._open(key))  # noqa: SLF001 - another store of this class
            except StatePrunedError:
                # It may have left the spool while it was read, because it is at the remote now.
                elsewhere, key = self._resolve(path)
                if elsewhere is store:
                    raise
                return self._load(loader, elsewhere, elsewhere._open(key))  # noqa: SLF001 - as above
        return self._load_latest(loader)

    def _load_latest(self, loader: Loader) -> LoadedState:
        damaged: dict[tuple[str, StateKey], CorruptStateError] = {}
        unreachable: StorageError | None = None
        for left in reversed(range(_ROUNDS)):
            # A state that is pruned while it is looked at was followed by a newer one: look again.
            pruned: set[StateKey] = set()
            for store, key in self._newest_first(damaged, pruned, but_local=unreachable is not None):
                try:
                    return self._load(loader, store, store._open(key))  # noqa: SLF001 - itself, or its spool
                except StatePrunedError:
                    pruned.add(key)
                    if left:
                        break
                except CorruptStateError as error:
                    _logger.error("%s; trying the next older state", error)
                    damaged[store.url, key] = error
                except StorageError as error:
                    if store is self._home or unreachable is not None:
                        raise
                    self._warn_unreachable(error)
                    unreachable = error
                    break
            else:
                if not pruned:
                    break
        else:
            raise StatePrunedError(f"the states of {self.url} are removed faster than they can be loaded: try again")
        if unreachable is not None:
            raise unreachable
        if damaged:
            newest = next(iter(damaged.values()))
            raise CorruptStateError(
                f"all {len(damaged)} states of {self.url} are damaged; the newest: {newest}"
            ) from newest
        raise StateNotFoundError(f"no state to load: {self.url} has none")

    def _newest_first(
        self, damaged: dict[tuple[str, StateKey], CorruptStateError], pruned: set[StateKey], *, but_local: bool
    ) -> Iterator[tuple[StoredStates, StateKey]]:
        """All visible states in the order in which ``"latest"`` tries them; notes those whose marker can't be read."""
        after_an_error: list[tuple[StoredStates, StateKey]] = []
        for store, key in self._newest_first_everywhere(but_local=but_local):
            if (store.url, key) in damaged:
                continue
            try:
                record = store._catalog.record(key)  # noqa: SLF001 - itself, or its spool
            except StatePrunedError:
                pruned.add(key)
                continue
            except CorruptStateError as error:
                _logger.error("%s; trying the next older state", error)
                damaged[store.url, key] = error
                continue
            how = str(record.metadata.get(EXIT, ""))
            if how.startswith("error"):
                _logger.warning("%s was saved after an %s; looking for an older state", key.state, how)
                after_an_error.append((store, key))
            else:
                yield store, key
        yield from after_an_error

    def _load(self, loader: Loader, store: StoredStates, reader: StateReader) -> LoadedState:
        with self._components_in_use:
            selection = loader.load_state(reader, self._staging)
        if store is self._home and self._incremental:
            # What was loaded has just been verified, as far as it was needed: a good base for the next save.
            self._base = Base.read(reader)
        return _report(store._info(reader.record), selection, store.url)  # noqa: SLF001 - a store as well

    def _load_folder(self, loader: Loader, folder: PlainFolder) -> LoadedState:
        _logger.warning(
            "%s is a plain folder, not a committed state: it is loaded as it is, without knowing whether it is whole",
            folder.path,
        )
        with self._components_in_use:
            selection = loader.load_folder(folder)
        return _report(folder.info, selection, str(folder.path.parent))

    def _plain_folder(self, state: StatePath) -> PlainFolder | None:
        """The local folder at a path, unless it belongs to a store: an unfinished save is nobody's to load."""
        if "/" not in str(state) and isinstance(state, str):
            return None
        root, name = parent_and_name(str(state))
        if "://" in root or not Path(root, name).is_dir():
            return None
        if name in self._looked_in(root)._catalog.listing().names:  # noqa: SLF001 - another store of this class
            return None
        return PlainFolder.read(Path(root, name), known=self._components)

    # -- the end

    def wait(self, timeout: float | None = None) -> None:
        """Wait until everything that :meth:`save_state_async` was given is published, or has failed.

        While it waits, a line in the log tells so every ten seconds.

        Args:
            timeout: Seconds to wait at most; None for as long as it takes.

        Raises:
            SaveTimeoutError: The time is over; the message names what was left behind. It goes on as long as the
                process lives, and does not keep it from ending.
        """
        self._publisher.wait(Patience(timeout))

    def flush(self, timeout: float | None = None) -> None:
        """Wait until everything saved so far is published, and, with a spool, replicated: :meth:`wait`, and more.

        What waits to be tried again is tried now.

        Args:
            timeout: As for :meth:`wait`.

        Raises:
            SaveTimeoutError: As for :meth:`wait`.
            StateVaultError: The store is closed.
            StorageError: The disk of the spool failed.
        """
        patience = Patience(timeout)
        self._publisher.wait(patience)
        self._flush(patience)

    def close(self, timeout: float | None = None) -> None:
        """Wait for the publishes that run or wait, and give everything back. The store is not used afterwards.

        With a spool, what is pending is waited for as long as the remote answers, for
        :attr:`~statevault.state_persistence.spool.Spool.linger_s` seconds at most; the rest goes on at the next start.

        Args:
            timeout: As for :meth:`wait`.

        Raises:
            SaveTimeoutError: As for :meth:`wait`. Nothing was given back then; closing it again waits again.
        """
        patience = Patience(timeout)
        self._publisher.close(patience)
        self._close_replication(patience)
        self._staging.close()
        self._close_storages()


def _check_component(name: object, component: object) -> None:
    if not isinstance(name, str):
        raise InvalidNameError(f"the name of a component is a str, which {name!r} is not")
    check_component_name(name)
    for method in ("save_state", "load_state"):
        if not callable(getattr(component, method, None)):
            raise TypeError(
                f"{name!r} can't be a component: {type(component).__name__} has no {method}(path). A component has "
                "save_state(path) and load_state(path), as PersistentStateMixin has"
            )


def _report(state: StateInfo, selection: Selection, url: str) -> LoadedState:
    loaded = LoadedState.of(state, loaded=selection.loaded, missing=selection.missing, left_over=selection.left_over)
    _logger.info("Loaded %s (%s) from %s", ", ".join(loaded.loaded) or "nothing", state.name, url)
    for names, what in ((loaded.missing, "not in it, and left as it was"), (loaded.left_over, "in it, and not used")):
        if names:
            _logger.warning("Loaded %s only in part; %s: %s", state.name, what, ", ".join(names))
    return loaded
