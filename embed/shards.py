"""Base-feature shards, on a disk or in a store, in the layout of clip-retrieval.

    <folder>/img_emb/img_emb_00000.npy             float16 (images, dim), base features
    <folder>/metadata/metadata_00000.parquet       one row an image, in the same order
    <folder>/thumbnails/thumbnails_00000.parquet   key and a small JPEG or PNG, in the same order;
                                                   absent where features came without images

A shard is written under temporary names batch by batch, so that memory does not grow with its size,
and put in its place when it is whole, the metadata last. Whether it counts is the ledger's to say.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from embed.shard_files import (
    arrow_file,
    discard,
    exists,
    features_in,
    publish,
    remove,
    replace,
    stage,
)
from ingest.storage import Location, is_remote

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa
    import pyarrow.parquet as pq
    from upath import UPath

__all__ = ["ImageRow", "ShardWriter", "drop_rows", "read_shard", "read_thumbnails", "shard_paths"]

LocationT = TypeVar("LocationT", "Path", "UPath", "Path | UPath")

_THUMBNAIL_ROW_GROUP = 64  # rows read to get one thumbnail: about half a megabyte


@dataclass(frozen=True, slots=True)
class ImageRow:
    """What is kept of one training image beside its features."""

    key: str
    dataset: str
    path: str
    url: str
    caption: str
    creator: str
    licence: str
    width: int
    height: int
    sha256: str
    extra: dict[str, Any] = field(default_factory=dict)

    def payload(self, shard: int) -> dict[str, Any]:
        """As the index keeps it; `shard` says where its features and its thumbnail are.

        Fields of `extra` stand beside the named ones, which win where names are equal.
        """
        return {
            **self.extra,
            "key": self.key,
            "dataset": self.dataset,
            "path": self.path,
            "url": self.url,
            "caption": self.caption,
            "creator": self.creator,
            "licence": self.licence,
            "width": self.width,
            "height": self.height,
            "sha256": self.sha256,
            "shard": shard,
        }


def shard_paths(folder: LocationT, number: int) -> tuple[LocationT, LocationT, LocationT]:
    """(features, metadata, thumbnails) of a shard."""
    return (
        folder / "img_emb" / f"img_emb_{number:05d}.npy",
        folder / "metadata" / f"metadata_{number:05d}.parquet",
        folder / "thumbnails" / f"thumbnails_{number:05d}.parquet",
    )


class ShardWriter:
    """Writes one shard. Use `append` any number of times, then `finish` or `abandon`.

    Raises:
        OSError: where the disk does (full, read-only); the caller knows what to say of it.
        StorageError: where a store does, or cannot be reached.
    """

    def __init__(self, folder: Location, number: int, dim: int) -> None:
        self._paths = shard_paths(folder, number)
        self._dim = dim
        self._rows = 0
        for path in self._paths:
            if not is_remote(path):  # stores have no folders
                path.parent.mkdir(parents=True, exist_ok=True)
        self._temporary = stage(self._paths)
        self._features = self._temporary[0].open("w+b")
        self._metadata: pq.ParquetWriter | None = None
        self._thumbnails: pq.ParquetWriter | None = None
        _write_header(self._features, 0, dim)

    @property
    def rows(self) -> int:
        """Images written so far."""
        return self._rows

    def append(
        self,
        features: NDArray[np.floating[Any]],
        images: Sequence[ImageRow],
        thumbnails: Sequence[bytes] | None,
    ) -> None:
        """Write a batch. `features`: (images, dim) base features, stored as float16.

        `thumbnails`: None in every batch of a shard that has none.
        """
        pictures = len(images) if thumbnails is None else len(thumbnails)
        if features.shape != (len(images), self._dim) or len(images) != pictures:
            raise ValueError(
                f"a shard of dim {self._dim} was given features {features.shape}, "
                f"{len(images)} images and {pictures} thumbnails"
            )
        import pyarrow.parquet as pq

        half = np.ascontiguousarray(features, dtype=np.float16)
        self._features.write(half.tobytes())
        if self._metadata is None:
            self._metadata = pq.ParquetWriter(str(self._temporary[1]), _metadata_schema())
        self._metadata.write_table(_metadata_table(images))
        if thumbnails is not None:
            if self._thumbnails is None:
                self._thumbnails = pq.ParquetWriter(
                    str(self._temporary[2]), _thumbnail_schema(), compression="none"
                )
            self._thumbnails.write_table(
                _thumbnail_table([image.key for image in images], thumbnails),
                row_group_size=_THUMBNAIL_ROW_GROUP,
            )
        self._rows += len(images)

    def finish(self) -> None:
        """Make the shard whole and durable under its real names (none, where it has no rows)."""
        _write_header(self._features, self._rows, self._dim)
        self._features.flush()
        os.fsync(self._features.fileno())
        self._close()
        if self._rows == 0:
            self._discard()
            remove(self._paths)
            return
        features, metadata, thumbnails = zip(self._temporary, self._paths, strict=True)
        publish(*features)
        if self._thumbnails is None:  # nor may those of an abandoned shard of this number stay
            remove([self._paths[2]])
        else:
            publish(*thumbnails)
        publish(*metadata)
        self._discard()

    def abandon(self) -> None:
        """Leave nothing behind."""
        with suppress(OSError):
            self._features.close()
        for writer in (self._metadata, self._thumbnails):
            if writer is not None:
                with suppress(OSError):
                    writer.close()
                writer.is_open = False  # or its finalizer would try to write once more
        self._discard()

    def _close(self) -> None:
        self._features.close()
        for writer in (self._metadata, self._thumbnails):
            if writer is not None:
                writer.close()

    def _discard(self) -> None:
        discard(self._temporary, of=self._paths[0])


def read_shard(folder: Location, number: int) -> tuple[NDArray[np.float16], list[ImageRow]]:
    """(images, dim) base features and their rows. A shard of no image has no files.

    The features are memory-mapped where they are on a disk, and in memory where they are not.

    Raises:
        OSError: a file is missing or unreadable.
        StorageError: its store refuses, or cannot be reached.
        ValueError: the files do not fit each other.
    """
    import pyarrow.parquet as pq

    features_path, metadata_path, _ = shard_paths(folder, number)
    if not exists(features_path) and not exists(metadata_path):
        return np.empty((0, 0), np.float16), []
    features = features_in(features_path)
    images = [
        ImageRow(**{**row, "extra": json.loads(row["extra"])})
        for row in pq.read_table(
            arrow_file(metadata_path, whole=True),
            columns=[n for n in _metadata_schema().names if n != "image_path"],
        ).to_pylist()
    ]
    if len(features) != len(images):
        raise ValueError(
            f"{features_path} has {len(features)} rows, {metadata_path} has {len(images)}"
        )
    return features, images


def read_thumbnails(folder: Location, number: int, keys: Sequence[str]) -> dict[str, bytes]:
    """The thumbnails of those keys, reading only the row groups that hold them.

    Keys that are not there are left out, and so is everything where the shard has no thumbnails.
    """
    import pyarrow.parquet as pq

    path = shard_paths(folder, number)[2]
    if not exists(path):
        return {}
    wanted = set(keys)
    found: dict[str, bytes] = {}
    with pq.ParquetFile(arrow_file(path)) as file:
        for group in range(file.num_row_groups):
            left = wanted - found.keys()
            if not left:
                break
            if not any(_may_hold(file.metadata.row_group(group), key) for key in left):
                continue  # not even fetched; most shards are in order of their keys
            names = file.read_row_group(group, columns=["key"]).column("key").to_pylist()
            if wanted.isdisjoint(names):
                continue
            images = file.read_row_group(group, columns=["thumbnail"]).column("thumbnail")
            for row, name in enumerate(names):
                if name in wanted:
                    found[name] = images[row].as_py()
    return found


def _may_hold(group: pq.RowGroupMetaData, key: str) -> bool:
    """Whether a row group of thumbnails can have that key, by what is written of its first column.

    Parquet orders text by its UTF-8 bytes, which is Python's order, too.
    """
    known = group.column(0).statistics
    return known is None or not known.has_min_max or known.min <= key <= known.max


def drop_rows(folder: Location, number: int, keys: Iterable[str]) -> int:
    """Rewrite a shard without those keys; returns how many rows went. The old files are gone after.

    A kill in the middle leaves files of unequal length between two of the replacements; running it
    again mends that, since each file is filtered by the keys that it holds itself.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    features_path, metadata_path, thumbnails_path = shard_paths(folder, number)
    if not exists(metadata_path):
        return 0
    gone = pa.array(sorted(set(keys)), pa.string())
    metadata = pq.read_table(arrow_file(metadata_path, whole=True))
    keep = np.asarray(pc.invert(pc.is_in(metadata.column("key"), value_set=gone)))
    dropped = int((~keep).sum())
    features = features_in(features_path)
    if dropped and len(features) == len(keep):
        replace(features_path, lambda out: np.save(out, features[keep]))
    if exists(thumbnails_path):
        thumbnails = pq.read_table(arrow_file(thumbnails_path, whole=True))
        still = np.asarray(pc.invert(pc.is_in(thumbnails.column("key"), value_set=gone)))
        if not still.all():
            replace(
                thumbnails_path,
                lambda out: pq.write_table(
                    thumbnails.filter(pa.array(still)),
                    out,
                    compression="none",
                    row_group_size=_THUMBNAIL_ROW_GROUP,
                ),
            )
    if dropped:  # last: as long as the metadata names a row, running again finds it
        replace(metadata_path, lambda out: pq.write_table(metadata.filter(pa.array(keep)), out))
    if keep.sum() == 0:
        remove((features_path, metadata_path, thumbnails_path))
    return dropped


def _write_header(file: IO[bytes], rows: int, dim: int) -> None:
    """Numpy pads the header for growth of the first axis: it can be written again in place."""
    file.seek(0)
    header = {"descr": "<f2", "fortran_order": False, "shape": (rows, dim)}
    np.lib.format.write_array_header_1_0(file, header)


def _metadata_schema() -> pa.Schema:
    import pyarrow as pa

    text = ("key", "dataset", "path", "url", "caption", "creator", "licence")
    return pa.schema(
        [(name, pa.string()) for name in text]
        + [("width", pa.int32()), ("height", pa.int32())]
        + [("sha256", pa.string()), ("extra", pa.string()), ("image_path", pa.string())]
    )


def _metadata_table(images: Sequence[ImageRow]) -> pa.Table:
    import pyarrow as pa

    rows: Iterator[dict[str, Any]] = (
        {
            **{name: getattr(image, name) for name in image.__slots__ if name != "extra"},
            "extra": json.dumps(image.extra, ensure_ascii=False, sort_keys=True),
            "image_path": image.path,  # the column that clip-retrieval looks for
        }
        for image in images
    )
    return pa.Table.from_pylist(list(rows), schema=_metadata_schema())


def _thumbnail_schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema([("key", pa.string()), ("thumbnail", pa.binary())])


def _thumbnail_table(keys: Sequence[str], thumbnails: Sequence[bytes]) -> pa.Table:
    import pyarrow as pa

    return pa.Table.from_pydict(
        {"key": list(keys), "thumbnail": list(thumbnails)}, schema=_thumbnail_schema()
    )
