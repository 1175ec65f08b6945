"""The events in the life of the interaction's parts, and how a part made of parts passes them on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from typing_extensions import override

from statevault.state_persistence import PersistentStateMixin

__all__ = ["InteractionEventMixin", "InteractionPart", "InteractionWhole", "ThreadEventMixin"]


class InteractionEventMixin:
    """The beginning and the end of an interaction, both in the inference thread."""

    def setup(self) -> None:
        """Called once before the first step."""

    def teardown(self) -> None:
        """Called once after the last step; also after a step or :meth:`setup` failed."""


class ThreadEventMixin:
    """The pauses of a thread, told in that thread."""

    def on_paused(self) -> None:
        """Called when the thread has come to a pause, before its parts are saved."""

    def on_resumed(self) -> None:
        """Called when the thread goes on, before its next step."""


class InteractionPart(InteractionEventMixin, ThreadEventMixin, PersistentStateMixin):
    """Anything that takes part in an interaction: it is told the events, and its state is saved."""


class InteractionWhole(InteractionPart):
    """A part made of named parts: passes on every event, and saves each part in its folder, by name.

    A subclass says which they are in :meth:`parts`. One that has a state of its own calls ``super()`` first.
    """

    def parts(self) -> Mapping[str, InteractionPart]:
        """The parts by name, in the order of their set-up."""
        return {}

    @override
    def setup(self) -> None:
        """Set up all parts, in order."""
        super().setup()
        for part in self.parts().values():
            part.setup()

    @override
    def teardown(self) -> None:
        """Tear down all parts, in reverse order, each one even when another fails.

        Raises:
            BaseException: The first failure; later ones, which may follow from it, are its notes.
        """
        teardowns = [(type(self).__name__, super().teardown)]
        teardowns += [(name, part.teardown) for name, part in self.parts().items()]
        first: BaseException | None = None
        for name, teardown in reversed(teardowns):
            try:
                teardown()
            except BaseException as error:  # noqa: BLE001 - raised below
                if first is None:
                    first = error
                else:
                    first.add_note(f"the teardown of {name!r} failed as well: {error!r}")
        if first is not None:
            raise first

    @override
    def on_paused(self) -> None:
        """Tell all parts that the thread has paused."""
        super().on_paused()
        for part in self.parts().values():
            part.on_paused()

    @override
    def on_resumed(self) -> None:
        """Tell all parts that the thread goes on."""
        super().on_resumed()
        for part in self.parts().values():
            part.on_resumed()

    @override
    def save_state(self, path: Path) -> None:
        """Save all parts in the folder `path`, which is made when it is not there."""
        super().save_state(path)
        parts = self.parts()
        if parts:
            path.mkdir(exist_ok=True)
        for name, part in parts.items():
            part.save_state(path / name)

    @override
    def load_state(self, path: Path) -> None:
        """Load all parts. Those without a state were not saved, so that their paths need not exist."""
        super().load_state(path)
        for name, part in self.parts().items():
            part.load_state(path / name)
