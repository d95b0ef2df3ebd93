"""Small files that coordinator and workers exchange, on a common disk or in a store.

Raises (all of it):
    OSError: the disk refuses.
    StorageError: the store does, or cannot be reached.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from embed.shard_files import exists, remove
from ingest.storage import Location, is_remote

__all__ = ["exists", "move", "names_in", "read", "remove", "remove_tree", "write"]


def names_in(folder: Location) -> list[str]:
    """What is directly in a folder, in no order; nothing in one that is not there."""
    if is_remote(folder):
        from ingest.stored import scan

        found = scan(folder)
        return [*found.files, *found.folders]
    try:
        return os.listdir(folder)  # noqa: PTH208 (no Path is made of each)
    except (FileNotFoundError, NotADirectoryError):
        return []


def read(path: Location) -> bytes | None:
    """A file's bytes; None where there is none."""
    if is_remote(path):
        from ingest.stored import read_bytes
        from ingest.stored_errors import MissingError

        with suppress(MissingError):
            return read_bytes(path)
        return None
    with suppress(FileNotFoundError):
        return path.read_bytes()
    return None


def write(path: Location, data: bytes) -> None:
    """Whole and durable, or not at all."""
    if is_remote(path):
        from ingest.stored import put_bytes

        put_bytes(data, path)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    with temporary.open("wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(path)
    _sync(path.parent)


def move(source: Location, target: Location) -> None:
    """Move a file, in the place of another; where it was moved already, nothing happens."""
    if not exists(source):
        return
    if is_remote(source) and is_remote(target):
        from ingest.stored_errors import asked

        here, there = source, target
        asked(here, lambda: here.fs.cp_file(here.path, there.path))
        remove([source])
    elif isinstance(source, Path) and isinstance(target, Path):
        target.parent.mkdir(parents=True, exist_ok=True)
        source.replace(target)
        _sync(target.parent)
    else:
        raise ValueError(f"{source} and {target} are not in one place")


def remove_tree(folder: Location) -> None:
    """Remove a folder with all that is in it; there need be none."""
    if is_remote(folder):
        from ingest.stored_errors import MissingError, asked

        at = folder
        with suppress(MissingError):
            asked(at, lambda: at.fs.rm(at.path, recursive=True))
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
