"""What becomes of a gallery's images once they are embedded: answers, and lines of the tables.

This is the writer thread's work, done while the next batch is being embedded.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from PIL import Image

from embed.prepare import Prepared
from embed.shards import ImageRow
from ingest.record import Reject
from search.answer import Attribution
from search.audit.duplicates import fingerprint
from search.audit.gallery import Named, Part
from search.audit.inputs import metadata_text
from search.audit.lines import lines_table
from search.audit.parts import FINGERPRINT, LINES, PartsFolder, PartWriter
from search.audit.shares import image_statistics
from search.folder import writing
from search.index import Features
from search.writer import Batch, Failure, Message, Started

if TYPE_CHECKING:
    from search.audit.near_copy import Found, NearCopy

__all__ = ["Answered", "Attributes", "PartsSink"]

Attributes: TypeAlias = Callable[[Features, Sequence[str]], list[Attribution]]
"""From base features (images, dim) and names to answers."""


@dataclass(frozen=True)
class Answered:
    """Images of the part that began last, with answers that came from elsewhere."""

    rows: Sequence[ImageRow]
    thumbnails: Sequence[bytes]
    answers: Sequence[Attribution]


class PartsSink:
    """A `search.writer.ShardSink` that keeps parts of an audit.

    Args:
        out: the audit's folder, to be named where the disk refuses.
        parts: where they go.
        near_copy: looks whether an image is the copy of a training image.

    Attributes:
        attribute: answers batches that come as features; set before the first of them.
    """

    def __init__(
        self,
        out: Path,
        parts: PartsFolder,
        near_copy: NearCopy,
    ) -> None:
        self.attribute: Attributes | None = None
        self._out = out
        self._parts = parts
        self._near_copy = near_copy
        self._expected: dict[int, Named] = {}
        self._source: Named | None = None
        self._files: PartWriter | None = None

    def expect(self, part: Part) -> None:
        """This part comes next, or after others that were expected."""
        self._expected[part.number] = part.source

    def handle(self, message: Message | Answered) -> None:
        """As `ShardSink.handle`.

        Raises:
            DataFolderError: the disk refuses.
            IndexFailedError: the index fails.
        """
        if isinstance(message, Started):
            self._source = self._expected.pop(message.number)
            with writing(self._out):
                self._files = PartWriter(self._parts, message.number)
        elif isinstance(message, Batch):
            if self.attribute is None:
                raise RuntimeError("features came where answers were to come")
            names = [image.row.key for image in message.images]
            self._add(message.images, self.attribute(message.features, names))
        elif isinstance(message, Answered):
            self._write(message.rows, message.thumbnails, message.answers)
        elif isinstance(message, Failure):
            self._open.reject(self._rejected(message.reject))
        else:
            if message.cut_off is not None:
                self._open.reject(self._rejected(message.cut_off))
            with writing(self._out):
                self._open.finish()
            self._files = None

    def abandon(self) -> None:
        """As `ShardSink.abandon`."""
        if self._files is not None:
            self._files.abandon()
            self._files = None

    @property
    def _open(self) -> PartWriter:
        if self._files is None:
            raise RuntimeError("no part was started")
        return self._files

    @property
    def _named(self) -> Named:
        if self._source is None:
            raise RuntimeError("no part was started")
        return self._source

    def _add(self, images: Sequence[Prepared], answers: Sequence[Attribution]) -> None:
        rows = [image.row for image in images]
        self._write(rows, [image.thumbnail for image in images], answers)

    def _write(
        self,
        rows: Sequence[ImageRow],
        thumbnails: Sequence[bytes],
        answers: Sequence[Attribution],
    ) -> None:
        keys = [self._named.key(row.key) for row in rows]
        lines, counts = lines_table(keys, answers)
        pictures = [Image.open(io.BytesIO(thumbnail)).convert("RGB") for thumbnail in thumbnails]
        copies = self._near_copy.check_many(pictures, answers)
        images = [
            {**self._line(key, row, answer, copy, fingerprint(picture)), LINES: count}
            for key, row, answer, copy, picture, count in zip(
                keys, rows, answers, copies, pictures, counts, strict=True
            )
        ]
        with writing(self._out):
            self._open.add(images, lines, thumbnails)

    def _line(
        self, key: str, row: ImageRow, answer: Attribution, copy: Found, looks: bytes
    ) -> dict[str, Any]:
        return {
            "image": key,
            "path": self._named.path(row.key, row.path),
            "sha256": row.sha256,
            "width": row.width,
            "height": row.height,
            "prompt": row.caption,
            "metadata": metadata_text(row),
            "remaining": answer.remaining,
            "remaining_low": answer.remaining_interval[0],
            "remaining_high": answer.remaining_interval[1],
            "method": answer.method,
            "support": answer.support,
            **image_statistics(answer),
            "flags": [],  # known once all images are
            "copy_of": copy.training_id,
            "copy_score": copy.score,
            "duplicate_of": "",
            "note": answer.note,
            FINGERPRINT: looks,
        }

    def _rejected(self, reject: Reject) -> Mapping[str, Any]:
        return {
            "image": self._named.key(reject.key),
            "path": self._named.path(reject.key, reject.path),
            "reason": reject.reason.value,
            "detail": reject.detail,
        }
