"""From a record to what backbone and shard need: all the work off the main thread."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embed.preprocess import Preprocessing
from embed.shards import ImageRow
from ingest.decode import Decoded, DecodeLimits, decode
from ingest.errors import ImageError
from ingest.record import ImageRecord, Reject
from ingest.thumbnail import make_thumbnail

__all__ = ["Prepared", "prepare", "row_of"]


@dataclass(frozen=True, slots=True)
class Prepared:
    """One image, ready for the backbone.

    Attributes:
        row: what is kept of it.
        pixels: (crop, crop, 3) uint8.
        thumbnail: an image file.
    """

    row: ImageRow
    pixels: NDArray[np.uint8]
    thumbnail: bytes


def prepare(
    record: ImageRecord, dataset: str, preprocessing: Preprocessing, limits: DecodeLimits
) -> Prepared | Reject:
    """Decode, preprocess, hash, draw the thumbnail. Thread-safe; a bad image is a `Reject`."""
    try:
        decoded = decode(record.data, limits)
    except ImageError as exc:
        return Reject(record.key, record.path, exc.reason, exc.detail)
    row = row_of(record, decoded, dataset)
    thumbnail = make_thumbnail(decoded.image, record.data, decoded.format)
    return Prepared(row, preprocessing.apply(decoded.image), thumbnail)


def row_of(record: ImageRecord, decoded: Decoded, dataset: str) -> ImageRow:
    """What is kept of an image besides its pixels."""
    return ImageRow(
        key=record.key,
        dataset=dataset,
        path=record.path,
        url=record.url,
        caption=record.caption,
        creator=record.creator,
        licence=record.licence,
        width=decoded.width,
        height=decoded.height,
        sha256=hashlib.sha256(record.data).hexdigest(),
        extra=dict(record.extra),
    )
