"""The sample of an embedded index across restarts and crashes.

Only the members' ids are kept: their vectors are read from the shard, so that a replaced vector can
never be stale. The file is taken away before the first change and written again at the next flush,
so its presence means that it is true; where it is missing the sample is gathered anew from all ids.
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np

from search.sample import Keys, Sketch, keys_from_bytes, keys_to_bytes

__all__ = ["SampleKeeper"]

_FILE = "sample.npz"


class SampleKeeper:
    """The sketch of a folder's ids, or the knowledge that it has to be gathered again."""

    def __init__(self, folder: Path, size: int, points: int) -> None:
        self._file = folder / _FILE
        self._size = size
        self._sketch = _read(self._file, size, points)
        self._saved = self._sketch is not None
        if self._sketch is None and points == 0:
            self._sketch = Sketch(size)

    def __len__(self) -> int:
        return len(self._sketch) if self._sketch is not None else 0

    def add(self, ids: bytes) -> None:
        """Points came (or came again)."""
        if self._sketch is not None:
            self._sketch.add(keys_from_bytes(ids))

    def remove(self, ids: bytes) -> None:
        """Points went."""
        if self._sketch is not None:
            self._sketch.remove(keys_from_bytes(ids))

    def ids(self) -> bytes:
        """The members, in order of place."""
        return keys_to_bytes(self._sketch.keys) if self._sketch is not None else b""

    def needs_repair(self, points: int) -> bool:
        """Whether it is unknown, or thinned by deletions below half of what `points` could give."""
        return self._sketch is None or self._sketch.is_thin(points)

    def start_over(self) -> None:
        """Begin gathering anew; every id has to be added after this."""
        self.invalidate_file()
        self._sketch = Sketch(self._size)

    def forget(self) -> None:
        """Give up what is known, because it proved wrong."""
        self.invalidate_file()
        self._sketch = None

    def invalidate_file(self) -> None:
        """Take the file away before a change, durably."""
        if self._saved:
            self._saved = False
            self._file.unlink(missing_ok=True)
            _sync_folder(self._file.parent)

    def save(self, points: int) -> None:
        """Write the file if it is not there and the sample is known."""
        if self._saved or self._sketch is None:
            return
        new = self._file.with_suffix(".new")
        with new.open("wb") as stream:
            np.savez(
                stream,
                keys=self._sketch.keys,
                bound=np.array(str(self._sketch.bound)),  # up to 2**64: one too many for uint64
                size=np.array(self._size),
                points=np.array(points),
            )
            stream.flush()
            os.fsync(stream.fileno())
        new.replace(self._file)
        _sync_folder(self._file.parent)
        self._saved = True


def _read(file: Path, size: int, points: int) -> Sketch | None:
    """The sketch in `file`, None where it cannot be relied on."""
    try:
        with np.load(file, allow_pickle=False) as content:
            keys: Keys = content["keys"]
            bound = int(str(content["bound"]))
            written = (int(content["size"]), int(content["points"]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    if written != (size, points) or keys.ndim != 2 or keys.shape[1] != 2:
        return None
    if keys.dtype != np.uint64 or not 0 < bound <= 2**64:
        return None
    return Sketch(size, bound=bound, keys=keys)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
