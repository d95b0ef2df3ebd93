"""A staged feature shard taken in without the rows that do not stand."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from embed.shard_files import arrow_file, exists
from embed.shards import ShardWriter, read_shard, shard_paths
from ingest.storage import Location

__all__ = ["is_whole", "keep_rows"]


def is_whole(folder: Location, number: int) -> bool:
    """Whether nothing of the staged shard was moved away yet."""
    return all(exists(path) for path in shard_paths(folder, number))


def keep_rows(folder: Location, target: Location, number: int, keep: NDArray[np.bool_]) -> None:
    """Copy some rows of the staged shard to its place; the staged one stays as it is.

    `keep`: (images,). Rows are told by their place: one key may have several.

    Raises:
        OSError: the disk refuses, or the shard is damaged.
    """
    import pyarrow.parquet as pq

    features, rows = read_shard(folder, number)
    file = arrow_file(shard_paths(folder, number)[2], whole=True)
    thumbnails = pq.read_table(file).column("thumbnail").to_pylist()
    kept = np.flatnonzero(keep)
    writer = ShardWriter(target, number, features.shape[1])
    try:
        if len(kept):
            writer.append(
                np.array(features[kept]), [rows[i] for i in kept], [thumbnails[i] for i in kept]
            )
        writer.finish()
    except BaseException:
        writer.abandon()
        raise
