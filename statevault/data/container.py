"""The data pipelines of an agent by name: users for its trainers, collectors for its acting side."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Self

from typing_extensions import override

from statevault.data.buffer import DataBuffer
from statevault.data.collector import DataCollector
from statevault.data.user import DataUser
from statevault.format.names import check_component_name
from statevault.state_persistence import PersistentStateMixin

__all__ = ["DataCollectorsDict", "DataUsersDict"]


class DataCollectorsDict(UserDict[str, DataCollector[Any]]):
    """Collectors by name; each can be acquired once, so that no two parts of an agent feed one buffer."""

    def __init__(self, collectors: Mapping[str, DataCollector[Any]] | None = None, /) -> None:
        """Initialize with collectors that nobody has acquired."""
        self._acquired: set[str] = set()
        super().__init__(collectors)

    def acquire(self, collector_name: str) -> DataCollector[Any]:
        """Return a collector, for the caller alone.

        Args:
            collector_name: Its name.

        Raises:
            KeyError: There is no such collector, or it has been acquired before.
        """
        if collector_name not in self:
            raise KeyError(f"there is no data collector {collector_name!r}; there are {sorted(self)}")
        if collector_name in self._acquired:
            raise KeyError(f"the data collector {collector_name!r} is already acquired: pass it on instead")
        self._acquired.add(collector_name)
        return self[collector_name]


class DataUsersDict(UserDict[str, DataUser[Any]], PersistentStateMixin):
    """Data users by name; they are saved below one folder, each under its name."""

    def __init__(self, users: Mapping[str, DataUser[Any]] | None = None, /, **kwargs: DataUser[Any]) -> None:
        """Initialize with data users.

        Args:
            users: Data users by name.
            **kwargs: More of them.

        Raises:
            InvalidNameError: A name can't be the name of a file.
        """
        self._collectors = DataCollectorsDict()
        super().__init__(users, **kwargs)

    @classmethod
    def from_data_buffers(
        cls, buffers: Mapping[str, DataBuffer[Any, Any]] | None = None, /, **kwargs: DataBuffer[Any, Any]
    ) -> Self:
        """Return data users for buffers.

        Args:
            buffers: Buffers by name.
            **kwargs: More of them.

        Raises:
            InvalidNameError: A name can't be the name of a file.
        """
        return cls({name: DataUser(buffer) for name, buffer in {**(buffers or {}), **kwargs}.items()})

    @property
    def data_collectors_dict(self) -> DataCollectorsDict:
        """The collectors that feed these users, by the same names."""
        return self._collectors

    @override
    def __setitem__(self, key: str, item: DataUser[Any]) -> None:
        check_component_name(key)
        super().__setitem__(key, item)
        self._collectors[key] = item.collector

    @override
    def __delitem__(self, key: str) -> None:
        super().__delitem__(key)
        del self._collectors[key]

    @override
    def save_state(self, path: Path) -> None:
        """Save each user under its name below a new folder ``path``."""
        path.mkdir(exist_ok=True)
        for name, user in self.items():
            user.save_state(path / name)

    def save_early(self, path: Path) -> None:
        """Save the buffers, while the agent may collect on."""
        path.mkdir(exist_ok=True)
        for name, user in self.items():
            user.save_early(path / name)

    def save_late(self, path: Path) -> None:
        """Save the samples that were collected since :meth:`save_early`."""
        for name, user in self.items():
            user.save_late(path / name)

    @override
    def load_state(self, path: Path) -> None:
        """Load each user from below ``path``.

        Raises:
            FileNotFoundError: The state has nothing, or not all, of a user; the message names it.
        """
        self.load_members(path, self.member_names)

    @property
    def member_names(self) -> Collection[str]:
        """The names of the users."""
        return self.keys()

    def load_members(self, path: Path, names: Collection[str]) -> None:
        """Load some of the users from below ``path``.

        Args:
            path: As for :meth:`load_state`.
            names: The names of the users.

        Raises:
            FileNotFoundError: The state has nothing, or not all, of a user; the message names it.
        """
        for name in names:
            try:
                self[name].load_state(path / name)
            except FileNotFoundError as error:
                raise FileNotFoundError(
                    f"the state has no data {name!r} ({error}): load a state that was saved with this buffer, "
                    "or load what fits with strict=False"
                ) from error
