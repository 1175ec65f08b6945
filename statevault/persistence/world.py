"""What a policy is saved from and restored into: an experiment's world, ours or that of another library."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from typing_extensions import override
from upath import UPath

from statevault.storage import Storage, join_url, normalized_url, open_storage

__all__ = ["World", "WorldLike", "WorldView", "gives_text", "module_of", "options_of"]


class WorldLike(Protocol):
    """Any object with these two methods, and the policy as its attribute ``algorithm`` or ``policy``.

    Paths are :class:`str` (paths or URLs), :class:`~pathlib.Path` or :class:`~upath.UPath`. If there is an attribute
    ``storage_options``, it is what fsspec needs for them. Tianshou's ``World`` is one.
    """

    def persist_path(self, filename: str, /) -> Any:
        """Where a file of that name is saved."""

    def restore_path(self, filename: str, /) -> Any:
        """Where a file of that name is restored from.

        Raises:
            ValueError: There is no place to restore from.
        """


class World:
    """A policy (or algorithm), and where it is saved and restored from.

    Attributes:
        algorithm: The module that is saved: a policy, or an algorithm with its policy in it.
        persist_directory: As given.
        restore_directory: As given.
        trainer: What trains it; it may be set later. Where the default of ``score_of`` looks for the best score.

    Args:
        algorithm: The module.
        persist_directory: A path, or the URL of any storage that fsspec reaches. It need not exist. None where
            nothing is saved as a file.
        restore_directory: Likewise; None where nothing is restored from a file.
        storage_options: What fsspec's filesystem of that protocol takes; where silent, the usual environment variables
            hold.
        restore_storage_options: The same for `restore_directory`, if they differ.
        trainer: See above.
        **attributes: Attributes that a :class:`Persistence` looks for: ``envs=…``.
    """

    def __init__(
        self,
        algorithm: Any,
        persist_directory: str | os.PathLike[str] | UPath | None,
        restore_directory: str | os.PathLike[str] | UPath | None = None,
        *,
        storage_options: Mapping[str, Any] | None = None,
        restore_storage_options: Mapping[str, Any] | None = None,
        trainer: Any = None,
        **attributes: Any,
    ) -> None:
        self.algorithm = algorithm
        self.persist_directory = persist_directory
        self.restore_directory = restore_directory
        self.trainer = trainer
        self._storage_options = storage_options
        self._restore_storage_options = storage_options if restore_storage_options is None else restore_storage_options
        self._storages: dict[str, Storage] = {}
        for name, value in attributes.items():
            setattr(self, name, value)

    def persist_path(self, filename: str) -> UPath:
        """Where a file of that name is saved; a :class:`pathlib.Path` as well where that is local.

        Raises:
            ValueError: There is no directory to save to.
            InvalidNameError: The name or the URL can't be used.
            MissingExtraError: The protocol needs a package that is not installed.
        """
        if self.persist_directory is None:
            raise ValueError(f"there is no path to save {filename!r} to: make the World with persist_directory=")
        return self._storage("persist", self.persist_directory, self._storage_options).path(filename)

    def restore_path(self, filename: str) -> UPath:
        """Where a file of that name is restored from.

        Raises:
            ValueError: There is no directory to restore from.
            InvalidNameError: The name or the URL can't be used.
            MissingExtraError: The protocol needs a package that is not installed.
        """
        if self.restore_directory is None:
            raise ValueError(
                f"there is no path to restore {filename!r} from: make the World with restore_directory=, "
                "the persist_directory of an earlier run"
            )
        return self._storage("restore", self.restore_directory, self._restore_storage_options).path(filename)

    def _storage(
        self, name: str, directory: str | os.PathLike[str] | UPath, options: Mapping[str, Any] | None
    ) -> Storage:
        # Never asked for an object, so that there is nothing to close.
        if name not in self._storages:
            self._storages[name] = open_storage(directory, options if "://" in normalized_url(directory) else None)
        return self._storages[name]


class WorldView:
    """A world whose paths lead somewhere else. All else is the original's, also what is set later.

    A view equals the world that it is a view of.

    Args:
        world: The world.
        persist_directory: A path or URL; None for a view that nothing is saved through.
        restore_directory: A path or URL; None for one that nothing is restored through.
        storage_options: What fsspec needs for them.
        as_text: Whether paths are strings. If not, they are :class:`~pathlib.Path`, for local directories only.
    """

    def __init__(
        self,
        world: Any,
        persist_directory: str | Path | None,
        restore_directory: str | Path | None,
        *,
        storage_options: Mapping[str, Any] | None = None,
        as_text: bool = True,
    ) -> None:
        kind: type[str | Path] = str if as_text else Path
        vars(self).update(
            _world=world,
            _as_text=as_text,
            persist_directory=None if persist_directory is None else kind(persist_directory),
            restore_directory=None if restore_directory is None else kind(restore_directory),
            storage_options=storage_options,
        )

    def persist_path(self, filename: str) -> str | Path:
        """Where a file of that name is saved.

        Raises:
            ValueError: Nothing is saved through this view.
        """
        return self._path("persist", filename)

    def restore_path(self, filename: str) -> str | Path:
        """Where a file of that name is restored from.

        Raises:
            ValueError: Nothing is restored through this view.
        """
        return self._path("restore", filename)

    def _path(self, purpose: str, filename: str) -> str | Path:
        directory = vars(self)[f"{purpose}_directory"]
        if directory is None:
            raise ValueError(f"there is no directory to {purpose} {filename!r}")
        path = join_url(directory, filename)
        return path if self._as_text else Path(path)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_world" not in vars(self):  # as copy and pickle ask, before there is a world
            raise AttributeError(name)
        return getattr(self._world, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in vars(self):
            vars(self)[name] = value
        else:
            setattr(self._world, name, value)

    @override
    def __eq__(self, other: object) -> bool:
        return bool(self._world == (other._world if isinstance(other, WorldView) else other))

    @override
    def __hash__(self) -> int:
        return hash(self._world)

    @override
    def __repr__(self) -> str:
        return f"<view of {self._world!r}>"


def module_of(world: Any) -> Any:
    """The module of a world: its ``algorithm``, or else its ``policy``.

    Raises:
        TypeError: It has neither.
    """
    for name in ("algorithm", "policy"):
        module = getattr(world, name, None)
        if module is not None:
            return module
    raise TypeError(f"the {type(world).__name__} has no policy to save: it needs an attribute 'algorithm' or 'policy'")


def options_of(world: Any, path: object) -> Mapping[str, Any] | None:
    """What fsspec needs for a path of a world: the path's own options, or else the world's; None if neither has any."""
    options: Mapping[str, Any] | None = (
        path.storage_options if isinstance(path, UPath) else getattr(world, "storage_options", None)
    )
    return options


def gives_text(world: WorldLike) -> bool:
    """Whether the paths of a world are strings."""
    for path in (world.persist_path, world.restore_path):
        with suppress(ValueError):  # it has no such place
            return isinstance(path("policy.pt"), str)
    return True
