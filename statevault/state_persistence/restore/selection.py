"""What of a state is loaded into which component: decided from names alone, before anything is read.

A component may be made of members that can be loaded one by one (:class:`PersistentMembers`): ``"models/policy"``
names one. The files of a member are those that its ``save_state`` may have written: at its path, below it, or
beside it with a suffix (``models/policy``, ``models/policy/…``, ``models/policy.tree``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from statevault.errors import ComponentNotFoundError
from statevault.state_persistence.mixin import PersistentMembers, PersistentState

__all__ = ["Contents", "Selection", "owner_of", "select"]


@dataclass(frozen=True, slots=True)
class Contents:
    """The names in a state.

    Attributes:
        where: What to call the state in messages.
        paths: The logical paths of each component's files and empty folders, by the component's name.
    """

    where: str
    paths: Mapping[str, Collection[str]]


@dataclass(frozen=True, slots=True)
class Selection:
    """What is loaded, and what is not.

    Attributes:
        members: By the name of each component that is loaded: the members to load, or None for all of it.
        missing: Components (or ``component/member``) that are registered but not in the state.
        left_over: Those in the state that nothing is registered for.
    """

    members: dict[str, tuple[str, ...] | None]
    missing: tuple[str, ...]
    left_over: tuple[str, ...]

    @property
    def loaded(self) -> tuple[str, ...]:
        """The names of the components that are loaded, or ``component/member`` where it is not all of one."""
        names: list[str] = []
        for component, members in self.members.items():
            names += [component] if members is None else [f"{component}/{member}" for member in members]
        return tuple(names)

    def takes(self, component: str, path: str, components: Mapping[str, PersistentState]) -> bool:
        """Whether a file or folder of a component is needed.

        Args:
            component: Its component.
            path: Its logical path.
            components: All registered components.
        """
        if component not in self.members:
            return False
        members = self.members[component]
        if members is None:
            return True
        return _member(path, _member_names(components[component])) in members


def select(
    contents: Contents,
    components: Mapping[str, PersistentState],
    *,
    wanted: Collection[str] | None = None,
    strict: bool = True,
    optional: Collection[str] = (),
) -> Selection:
    """Decide what to load, in the order in which the components were registered.

    Args:
        contents: What the state has.
        components: All registered components by name.
        wanted: The names of those to load, or ``component/member``; None for all.
        strict: Whether all that is wanted must be there, and, where `wanted` is None, all that is there wanted.
        optional: Components that may be missing on either side even so.

    Raises:
        ComponentNotFoundError: A wanted name is not registered; or the two sides do not fit, and `strict` is set.
    """
    asked = _asked(components, wanted)
    members: dict[str, tuple[str, ...] | None] = {}
    missing: list[str] = []
    left_over: list[str] = []
    for name, asked_members in asked.items():
        if name not in contents.paths:
            missing.append(name)
            continue
        members[name] = asked_members
        if asked_members is None and (strict or not isinstance(components[name], PersistentMembers)):
            continue
        known = _member_names(components[name])
        there = {_member(path, known) for path in contents.paths[name]}
        take = known if asked_members is None else asked_members
        members[name] = tuple(member for member in take if member in there)
        missing += [f"{name}/{member}" for member in take if member not in there]
        if asked_members is None:
            left_over += sorted(
                {
                    "/".join(path.split("/")[:2])
                    for path in contents.paths[name]
                    if "/" in path and _member(path, known) is None
                }
            )
    if wanted is None:
        left_over = [name for name in contents.paths if name not in components] + left_over
    if strict:
        _refuse_misfit(contents, missing, left_over, optional)
    return Selection(members, tuple(missing), tuple(left_over))


def owner_of(entry: str, names: Iterable[str]) -> str | None:
    """Which of some names has written a file or folder: the longest that it is, or that it is with a suffix.

    Args:
        entry: The name of the file or folder.
        names: The names of components or members.
    """
    fitting = [name for name in names if entry == name or entry.startswith(f"{name}.")]
    return max(fitting, key=len, default=None)


def _asked(
    components: Mapping[str, PersistentState], wanted: Collection[str] | None
) -> dict[str, tuple[str, ...] | None]:
    """By component, in the order of registration: the members that are wanted, None for all of it."""
    if wanted is None:
        return dict.fromkeys(components)
    by_component: dict[str, list[str] | None] = {}
    for name in wanted:
        component, separator, member = name.partition("/")
        if component not in components:
            raise ComponentNotFoundError(
                f"no component is registered as {component!r}; registered are: {', '.join(components) or 'none'}"
            )
        if not separator:
            by_component[component] = None
            continue
        known = _member_names(components[component])
        if member not in known:
            raise ComponentNotFoundError(
                f"the component {component!r} has no member {member!r} to load; it has: {', '.join(known) or 'none'}"
            )
        members = by_component.setdefault(component, [])
        if members is not None:
            members.append(member)
    return {
        name: None if (members := by_component[name]) is None else tuple(members)
        for name in components
        if name in by_component
    }


def _refuse_misfit(contents: Contents, missing: list[str], left_over: list[str], optional: Collection[str]) -> None:
    missing = [name for name in missing if name not in optional]
    left_over = [name for name in left_over if name not in optional]
    if missing:
        has = ", ".join(contents.paths) or "none"
        component, _, member = missing[0].partition("/")
        if member:
            has = ", ".join(contents.paths[component]) or "none"
        raise ComponentNotFoundError(
            f"the state {contents.where!r} has no component {missing[0]!r}, it has: {has}. "
            "Load the others with components=[…], or all that fits with strict=False"
        )
    if left_over:
        raise ComponentNotFoundError(
            f"the state {contents.where!r} has the component {left_over[0]!r}, which is not registered: "
            "register it, say with components=[…] what to load, or load all that fits with strict=False"
        )


def _member_names(component: PersistentState) -> tuple[str, ...]:
    return tuple(component.member_names) if isinstance(component, PersistentMembers) else ()


def _member(path: str, names: Iterable[str]) -> str | None:
    """The member that a logical path (``models/policy.tree``) belongs to."""
    entry = path.split("/")[1:2]
    return owner_of(entry[0], names) if entry else None
