"""``statevault ls`` and ``statevault show``: what is there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.text import Text

from statevault.cli.failures import reported
from statevault.cli.options import AsJson, StateArgument, StorageOptions, StoreArgument, own_name
from statevault.cli.other_folders import opened_any
from statevault.cli.output import console, plain, print_json, size, state_as_json, states_table, when
from statevault.format.manifest import FileEntry
from statevault.state_persistence import StateInfo, StateStore
from statevault.state_persistence.restore.download import StateReader
from statevault.state_persistence.stored_states import LATEST
from statevault.storage.redaction import redacted

__all__ = ["ls", "show"]


def ls(url: StoreArgument, storage_option: StorageOptions = None, as_json: AsJson = False) -> None:
    """List the committed states of a store, oldest first; the trials of an experiment; policies in a folder."""
    with reported(as_json=as_json), opened_any(url, storage_option) as store:
        if not isinstance(store, StateStore):
            store.ls(as_json=as_json)
            return
        infos, pins = store.states(), store.pins()
        if as_json:
            print_json([state_as_json(info, pins.get(info.name, ())) for info in infos])
        elif infos:
            console.print(states_table(infos, pins=pins))
        else:
            console.print(f"No states in {plain(store.url)}.")


def show(
    url: StoreArgument,
    state: StateArgument = "latest",
    storage_option: StorageOptions = None,
    as_json: AsJson = False,
) -> None:
    """Show a state: its layout with sizes, digests and compression, and its metadata; a trial; a policy."""
    with reported(as_json=as_json), opened_any(url, storage_option) as store:
        if not isinstance(store, StateStore):
            store.show(None if state == LATEST else state, as_json=as_json)
            return
        reader = store.open_state(own_name(store, state))
        info = store.info(reader.record.state)
        pins = store.pins().get(info.name, ())
        if as_json:
            print_json(
                {**state_as_json(info, pins), "tree": [_file_as_json(reader, file) for file in reader.manifest.files]}
            )
            return
        _print_head(info, pins)
        for line in _layout(reader):
            console.print(line, soft_wrap=True)


def _file_as_json(reader: StateReader, file: FileEntry) -> dict[str, Any]:
    return {
        "path": file.path,
        "component": reader.manifest.components[file.component],
        "size": file.size,
        "stored_size": file.stored_size,
        "digest": file.digest.hex(),
        "compression": file.compression,
        "pickle": file.holds_pickle,
        "chunks": len(file.chunks),
        "objects": sorted({reader.manifest.objects[chunk.object].key for chunk in file.chunks}),
    }


def _print_head(info: StateInfo, pins: Sequence[str]) -> None:
    console.print(Text(info.name, style="bold"))
    lines = {
        "path": redacted(str(info.path)),
        "sequence": str(info.sequence),
        "saved": f"{when(info.created_at)} by {info.writer}",
        "size": f"{size(info.size)} in {info.files} files",
        "stored": f"{size(info.stored_size)}, {size(info.new_size)} of it uploaded by this save",
        "base": info.base or "none",
        **({"pins": ", ".join(pins)} if pins else {}),
        **{f"metadata.{key}": str(value) for key, value in info.metadata.items()},
    }
    width = max(map(len, lines))
    for key, value in lines.items():
        console.print(Text.assemble((f"  {plain(key):<{width}}  ", "dim"), plain(value)), soft_wrap=True)


@dataclass(slots=True)
class _Branch:
    line: Text
    below: list[_Branch] = field(default_factory=list)

    def add(self, line: Text) -> _Branch:
        self.below.append(_Branch(line))
        return self.below[-1]

    def lines(self, guide: str = "", last: str = "") -> Iterator[Text]:
        """Its line and those below it. Not rich's tree, which cuts lines to the width: digests after long names."""
        yield Text.assemble(last, self.line)
        fork, end, pipe = ("|-- ", "`-- ", "|   ") if console.options.ascii_only else ("├── ", "└── ", "│   ")
        for branch in self.below:
            is_last = branch is self.below[-1]
            yield from branch.lines(guide + ("    " if is_last else pipe), guide + (end if is_last else fork))


def _layout(reader: StateReader) -> Iterator[Text]:
    tree = _Branch(Text(f"{reader.record.state}/", style="bold"))
    branches: dict[str, _Branch] = {"": tree}

    def branch(folder: str) -> _Branch:
        if folder not in branches:
            parent, _, name = folder.rpartition("/")
            branches[folder] = branch(parent).add(Text(plain(f"{name}/")))
        return branches[folder]

    for file in reader.manifest.files:
        folder, _, name = file.path.rpartition("/")
        how = file.compression if file.compression == "none" else f"{file.compression} {size(file.stored_size)}"
        branch(folder).add(
            Text.assemble(
                plain(name),
                (f"  {size(file.size)}", "cyan"),
                (f"  {how}", "green"),
                (f"  {file.digest.hex()[:16]}", "dim"),
                ("  pickle" if file.holds_pickle else "", "yellow"),
            )
        )
    for directory in reader.manifest.directories:
        branch(directory.path)
    return tree.lines()
