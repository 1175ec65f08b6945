"""Records that can't be read, in the way of a prune or a collection: which they are, and what to do about them.

What can't be read might protect anything, and is never taken for what protects nothing. So whoever meets it stops, and
says what people can do.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager

from statevault.errors import CorruptStateError, FormatError, StatePrunedError, StateVaultError
from statevault.state_persistence.records.sessions import UnreadableSession

__all__ = ["ObstacleError", "base_in_the_way", "check_sessions", "enumerated", "refusing", "states_in_the_way"]

_MOST_NAMES = 20


class ObstacleError(FormatError):
    """Something can't be read, and what depends on it is not done. Callers get what :func:`refusing` makes of it.

    Attributes:
        cause: What is wrong with it.
        remedy: What to do about it: whole sentences, without the full stop at the end.
    """

    def __init__(self, cause: StateVaultError, remedy: str) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.remedy = remedy


@contextmanager
def refusing(outcome: str) -> Iterator[None]:
    """Say in an error about an unreadable record what that means for the caller, and the remedy.

    Args:
        outcome: ``"nothing was removed"``.

    Raises:
        FormatError: A record can't be read.
        CorruptStateError: Likewise, a commit marker or a manifest.
        StatePrunedError: A marker has gone without a tombstone.
    """
    try:
        yield
    except ObstacleError as obstacle:
        raise type(obstacle.cause)(f"{obstacle.cause}; {outcome}. {obstacle.remedy}") from None
    except (FormatError, CorruptStateError, StatePrunedError) as error:
        raise type(error)(f"{error}; {outcome}") from error


def states_in_the_way(damaged: Mapping[str, CorruptStateError], *, twice: Collection[str] = ()) -> ObstacleError:
    """Visible states of which nobody knows what they need of others.

    Args:
        damaged: What is wrong with each, by its name; at least one.
        twice: Those of them that have another marker, which is sound.
    """
    cause = next(iter(damaged.values()))
    remedy = "It may need what would go. Remove it first, by name"
    if len(damaged) > 1:
        remedy = f"{len(damaged)} states are damaged, and may need what would go. Remove them first, all at once"
    remedy += f": `statevault rm STORE {' '.join(damaged)}`"
    if twice:
        remedy += f". That removes {enumerated(twice)} altogether; to keep it, delete the damaged marker by hand"
    return ObstacleError(cause, remedy)


def base_in_the_way(damaged: CorruptStateError) -> ObstacleError:
    """A removed state on which a save that is under way builds, and of which nobody knows what it needed."""
    return ObstacleError(
        damaged, "A save that builds on it has not ended: try again when it has, or a day after it began"
    )


def check_sessions(unreadable: Iterable[UnreadableSession], *, ended: Collection[str]) -> None:
    """Check that the sessions that can't be read protect nothing: those of states that are committed, or dead.

    Args:
        unreadable: The sessions that can't be read.
        ended: Names of the states with a marker or a tombstone.

    Raises:
        ObstacleError: One may protect what the save builds on that it is of.
    """
    for session in unreadable:
        if session.state not in ended:
            raise ObstacleError(
                session.error,
                f"It may protect what a save of {session.state!r} builds on. If that save is under way, wait until it "
                f"has ended. If its process has surely gone, or a day after it began (a writer gives up by then), "
                f"delete {session.key} by hand; what lies in {session.state}/ then belongs to nobody",
            )


def enumerated(names: Collection[str]) -> str:
    """Some names for people, not too many."""
    shown = list(names)[:_MOST_NAMES]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
