"""What a gallery is made of: arrays of features, and what their images are called."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embed.shard_files import arrow_file, exists, features_in
from embed.shards import shard_paths
from evaluation.official import open_npy
from ingest.errors import SourceError
from ingest.storage import Location

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.floating[Any]]
    Array = NDArray[np.float32]

__all__ = ["Names", "Part", "kept_parts", "shard_parts"]


@dataclass(frozen=True, slots=True)
class Names:
    """What tells the images of a part from others; each is empty or as long as the part.

    Attributes:
        keys: what they are called.
        paths: their files; '' where unknown.
        hashes: sha256 of their files, 64 hex digits; '' where unknown.
        folder: where relative paths may begin, besides the working folder.
    """

    keys: Sequence[str] = ()
    paths: Sequence[str] = ()
    hashes: Sequence[str] = ()
    folder: Path | None = None

    def is_file_of(self, row: int, files: set[str]) -> bool:
        """Whether the image of that row is one of the files, links followed."""
        path = self.paths[row]
        places = [path] if self.folder is None else [path, os.path.join(self.folder, path)]  # noqa: PTH118
        try:
            return any(os.path.realpath(place) in files for place in places)
        except ValueError:  # a name that no file can have
            return False


@dataclass(frozen=True, eq=False)
class Part:
    """One array of features, e.g. a shard.

    Attributes:
        features: (stored, dim), usually a memory map.
        read_names: called for the names of the stored images, in their order; they are not kept,
            since those of a million images are as large as some features.
        kept: int64, the rows that count, ascending; None for all.
    """

    features: Floats
    read_names: Callable[[], Names]
    kept: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.features) if self.kept is None else len(self.kept)

    def names(self) -> Names:
        """The names of the stored images.

        Raises:
            SourceError: they are not as many as the features.
        """
        names = self.read_names()
        stored = len(self.features)
        if any(what and len(what) != stored for what in (names.keys, names.paths, names.hashes)):
            raise SourceError(
                f"distractors: {stored} features have names for another number of images; if "
                "they were changed meanwhile, run it again"
            )
        return names

    def rows(self, start: int, stop: int) -> Array:
        """float32 (stop - start, dim) of the rows that count."""
        if self.kept is None:
            return np.asarray(self.features[start:stop], dtype=np.float32)
        chosen = self.kept[start:stop]
        if len(chosen) and chosen[-1] - chosen[0] == len(chosen) - 1:  # a slice is quicker
            return np.asarray(self.features[chosen[0] : chosen[-1] + 1], dtype=np.float32)
        return np.asarray(self.features[chosen], dtype=np.float32)


def shard_parts(folder: Path) -> Iterator[Part]:
    """The shards of a feature folder in clip-retrieval's layout, memory-mapped, in order.

    Args:
        folder: holds `img_emb/*.npy`, and `metadata/*.parquet` where images have names.

    Raises:
        SourceError: none there, or one that cannot be read.
    """
    files = sorted((folder / "img_emb").glob("*.npy"), key=_by_number)
    if not files:
        raise SourceError(f"no features in {folder}: it has no img_emb/*.npy")
    for file in files:
        stem = file.stem.removeprefix("img_emb").removeprefix("_")
        metadata = folder / "metadata" / f"metadata_{stem}.parquet"
        yield Part(open_npy(file), _names_in(folder, metadata))


def kept_parts(folder: Location, numbers: Sequence[int]) -> Iterator[Part]:
    """Shards of a data folder, by their numbers: memory-mapped, or in memory from a store.

    Raises:
        SourceError: one that cannot be read.
        StorageError: the store refuses, or cannot be reached.
    """
    for number in numbers:
        features, metadata, _ = shard_paths(folder, number)
        if not exists(features):  # a shard of no image has no files
            continue
        rows = open_npy(features) if isinstance(features, Path) else features_in(features)
        yield Part(rows, _names_in(folder, metadata))


def _names_in(folder: Location, metadata: Location) -> Callable[[], Names]:
    def read() -> Names:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not exists(metadata):
            return Names()
        wanted = {"key": "keys", "image_path": "paths", "path": "paths", "sha256": "hashes"}
        found: dict[str, list[str]] = {}
        try:
            with pq.ParquetFile(arrow_file(metadata, whole=True)) as file:
                present = [name for name in wanted if name in file.schema_arrow.names]
                table = file.read(columns=present)
        except (OSError, ValueError, pa.ArrowException) as exc:
            raise SourceError(f"cannot read {metadata}: {' '.join(str(exc).split())}") from exc
        for name in present:
            values = table.column(name).to_pylist()
            found[wanted[name]] = ["" if value is None else str(value) for value in values]
        return Names(**found, folder=folder if isinstance(folder, Path) else None)

    return read


def _by_number(file: Path) -> tuple[int, str]:
    """clip-retrieval pads its numbers by their count alone: `img_emb_2` comes before `_10`."""
    digits = file.stem.rpartition("_")[2]
    return (int(digits) if digits.isascii() and digits.isdigit() else -1, file.name)
