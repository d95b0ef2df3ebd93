"""How a shard's files are put where they belong, on a disk or in a store, and how they are read.

On a disk a file is written beside its place under a temporary name and renamed. In a store there is
no renaming: a file is written to this machine's temporary folder and uploaded in one piece, which
is there with all its bytes or not at all, whatever is killed meanwhile.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ingest.storage import Location, is_remote

__all__ = [
    "arrow_file",
    "discard",
    "exists",
    "features_in",
    "publish",
    "remove",
    "replace",
    "stage",
]


def stage(paths: Iterable[Location]) -> list[Path]:
    """Where the files of those paths are written before they are published, in their order."""
    paths = list(paths)
    if not any(is_remote(path) for path in paths):
        return [path.with_name(f".{path.name}.part") for path in paths if isinstance(path, Path)]
    folder = Path(tempfile.mkdtemp(prefix="attrib-shard-"))
    return [folder / path.name for path in paths]


def discard(staged: Iterable[Path], *, of: Location) -> None:
    """Remove what was staged and has not been published; `of`: one of the paths staged for."""
    staged = list(staged)
    for temporary in staged:
        temporary.unlink(missing_ok=True)
    if is_remote(of):
        for folder in {temporary.parent for temporary in staged}:
            if folder.exists():
                folder.rmdir()


def publish(temporary: Path, path: Location) -> None:
    """Make a staged file the one at `path`, durable and whole."""
    if is_remote(path):
        from ingest.stored import put_file

        put_file(temporary, path)
        temporary.unlink()
        return
    _fsync(temporary)
    temporary.replace(path)
    _fsync(path.parent)


def replace(path: Location, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file anew: it is the old one until it is the whole new one."""
    if is_remote(path):
        from ingest.stored import put_bytes

        buffer = io.BytesIO()
        write(buffer)
        put_bytes(buffer.getvalue(), path)
        return
    temporary = path.with_name(f".{path.name}.part")
    with temporary.open("wb") as out:
        write(out)
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(path)
    _fsync(path.parent)


def remove(paths: Iterable[Location]) -> None:
    """Remove files that need not be there."""
    for path in paths:
        if is_remote(path):
            from ingest.stored import remove as remove_stored

            remove_stored(path)
        else:
            path.unlink(missing_ok=True)


def exists(path: Location) -> bool:
    """Whether there is such a file."""
    if is_remote(path):
        from ingest.stored import exists as is_stored

        return is_stored(path)
    return path.exists()


def features_in(path: Location) -> NDArray[np.float16]:
    """The rows of a .npy file: memory-mapped, or fetched in one piece.

    Raises:
        OSError: it is missing or unreadable.
        ValueError: it is no such file.
        StorageError: its store refuses, or cannot be reached.
    """
    if is_remote(path):
        from ingest.stored import read_bytes

        fetched: NDArray[np.float16] = np.load(io.BytesIO(read_bytes(path)), allow_pickle=False)
        return fetched
    mapped: NDArray[np.float16] = np.load(path, mmap_mode="r", allow_pickle=False)
    return mapped


def arrow_file(path: Location, *, whole: bool = False) -> Any:  # noqa: ANN401 (path, buffer or file)
    """What pyarrow reads a parquet file from.

    `whole`: all of it is going to be read; otherwise only what is needed is fetched from a store,
    and kept as long as the file is open.
    """
    if not is_remote(path):
        return path
    if whole:
        import pyarrow as pa

        from ingest.stored import read_bytes

        return pa.BufferReader(read_bytes(path))
    from ingest.stored_file import StoredFile

    return StoredFile(path, scattered=True)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
