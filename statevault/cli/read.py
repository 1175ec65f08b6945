"""``statevault cat`` and ``statevault export``: files out of a state."""

from __future__ import annotations

import base64
import difflib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import typer

from statevault.cli.failures import reported
from statevault.cli.options import AsJson, StateArgument, StorageOptions, StoreArgument, opened, own_name
from statevault.cli.output import console, plain, print_json, progress, size
from statevault.errors import StateExistsError, StateNotFoundError, StateVaultError
from statevault.format.manifest import FileEntry
from statevault.state_persistence.restore.download import StateReader
from statevault.storage import local_folder
from statevault.storage.os_errors import storage_error

__all__ = ["cat", "export"]

_PIECE = 1024**2


def cat(
    url: StoreArgument,
    state: StateArgument,
    path: Annotated[str, typer.Argument(metavar="PATH", help="A file of the state, as `show` prints it.")],
    storage_option: StorageOptions = None,
    as_json: AsJson = False,
) -> None:
    """Write the verified content of one file of a state to stdout (with --json: in base64)."""
    with reported(as_json=as_json), opened(url, storage_option) as store:
        reader = store.open_state(own_name(store, state))
        file = _find(reader, path)
        with tempfile.TemporaryDirectory(prefix="statevault-") as folder:
            target = Path(folder) / "content"
            reader.restore([file], lambda _: target)
            if as_json:
                content = base64.b64encode(target.read_bytes()).decode("ascii")
                print_json({"state": reader.record.state, "path": path, "size": file.size, "base64": content})
                return
            with target.open("rb") as opened_file:
                while piece := opened_file.read(_PIECE):
                    sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()


def export(
    url: StoreArgument,
    state: StateArgument,
    folder_path: Annotated[str, typer.Argument(metavar="FOLDER", help="A new or empty folder.")],
    component: Annotated[
        list[str] | None, typer.Option("--component", "-c", help="Only this component; may be given again.")
    ] = None,
    storage_option: StorageOptions = None,
    as_json: AsJson = False,
) -> None:
    """Write a state as a plain folder: the files as the components wrote them, verified."""
    with reported(as_json=as_json), opened(url, storage_option) as store:
        local_folder(folder_path, "what a state is exported to")
        folder = Path(folder_path)
        reader = store.open_state(own_name(store, state))
        manifest = reader.manifest
        for name in component or ():
            if name not in manifest.components:
                known = ", ".join(manifest.components)
                raise StateNotFoundError(f"{reader.record.state!r} has no component {name!r}, it has: {known}")
        _refuse_filled(folder)
        chosen = {i for i, name in enumerate(manifest.components) if not component or name in component}
        files = [file for file in manifest.files if file.component in chosen]
        total = sum(file.size for file in files)
        with (
            _appearing_whole(folder) as partial,
            progress(f"exporting {reader.record.state}", total, hidden=as_json) as advance,
        ):
            reader.restore(files, lambda file: partial / file.path, on_progress=advance)
            for directory in manifest.directories:
                if directory.component in chosen:
                    (partial / directory.path).mkdir(parents=True, exist_ok=True)
        if as_json:
            print_json({"state": reader.record.state, "folder": str(folder), "files": len(files), "size": total})
        else:
            console.print(
                f"{reader.record.state} is in {plain(str(folder))}: {len(files)} files, {size(total)}", soft_wrap=True
            )


@contextmanager
def _appearing_whole(folder: Path) -> Iterator[Path]:
    """A folder to fill beside `folder`, which becomes it only if the block ends well."""
    with _writing(folder):
        folder.absolute().parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.absolute().name[:100]}.", dir=folder.absolute().parent))
        try:
            yield partial
            with suppress(OSError):  # FAT and some network mounts have no modes
                partial.chmod(0o755)
            partial.rename(folder)  # also over an empty folder
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def _refuse_filled(folder: Path) -> None:
    with _writing(folder):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise StateExistsError(f"{folder} is there and not an empty folder: name a new one")
        for parent in folder.absolute().parents:
            if parent.exists() and not parent.is_dir():
                raise StateExistsError(f"{parent} is a file, and no folder for {folder.name}: name another one")


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Name the folder in what the system says of it, and not the temporary one."""
    try:
        yield
    except StateVaultError:
        raise
    except OSError as error:
        bare = OSError(error.errno, error.strerror or str(error))
        raise storage_error(bare, url="", key="", what=f"Can't write {folder}") from error


def _find(reader: StateReader, path: str) -> FileEntry:
    for file in reader.manifest.files:
        if file.path == path.strip("/"):
            return file
    paths = [file.path for file in reader.manifest.files]
    near = difflib.get_close_matches(path, paths, n=1) or [name for name in paths if name.endswith(f"/{path}")]
    hint = f"; did you mean {near[0]!r}?" if near else "; `statevault show` lists its files"
    raise StateNotFoundError(f"the state {reader.record.state!r} has no file {path!r}{hint}")
