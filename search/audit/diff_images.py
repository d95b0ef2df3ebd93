"""The images of two audits side by side, whatever their order, in bounded memory.

The second audit is put into a temporary database on disk first, an image a row.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import fsum
from pathlib import Path
from typing import Any

from search.audit.finished import image_batches
from search.audit.payload_fields import column_of

__all__ = ["CompareImages", "Image"]

_NAMED = 20
_OF_IMAGES = ("sha256", "remaining", "top_key")
_OF_LINES = ("training_id", "influence")


@dataclass(frozen=True)
class Image:
    """What is compared of an image.

    Attributes:
        sha256: of its file.
        top: key of the top training image, '' without one.
        values: share by (kind, name): known and unknown values of a field, and what remains.
        sources: share by training id; '' is what remains.
    """

    sha256: str
    top: str
    values: Mapping[tuple[str, str], float]
    sources: Mapping[str, float]


class CompareImages:
    """Iterate `common` to its end; then the counts are those of the whole audits.

    Args:
        a, b: folders of two finished audits.
        by: the field of `Image.values`.

    Attributes:
        changed: keys that both have, with another file.
        only_a, only_b: images that one alone has.
        named_a, named_b: the first of them, 20 at most.
    """

    def __init__(self, a: Path, b: Path, by: str) -> None:
        self._a, self._b, self._by = a, b, by
        self.changed = self.only_a = self.only_b = 0
        self.named_a: tuple[str, ...] = ()
        self.named_b: tuple[str, ...] = ()

    def __enter__(self) -> CompareImages:
        self._kept = sqlite3.connect("")  # a temporary file, gone when it is closed
        self._kept.execute(
            "CREATE TABLE images (image TEXT PRIMARY KEY, place INTEGER, found INTEGER, body TEXT)"
        )
        return self

    def __exit__(self, *exc: object) -> None:
        self._kept.close()

    def common(self) -> Iterator[list[tuple[str, Image, Image]]]:
        """Images that both have, by key and file, before and after; in the order of `a`.

        Raises:
            RunError: a table is missing or damaged.
        """
        self._keep()
        for some in _images(self._a, self._by):
            pairs = []
            for key, before in some:
                after = self._take(key)
                if after is None:
                    self.only_a += 1
                    if len(self.named_a) < _NAMED:
                        self.named_a += (key,)
                elif after.sha256 != before.sha256:
                    self.changed += 1
                else:
                    pairs.append((key, before, after))
            yield pairs
        left = "FROM images WHERE found = 0"
        self.only_b = int(self._kept.execute(f"SELECT count(*) {left}").fetchone()[0])
        rows = self._kept.execute(f"SELECT image {left} ORDER BY place LIMIT ?", (_NAMED,))
        self.named_b = tuple(row[0] for row in rows)

    def _keep(self) -> None:
        place = 0
        for some in _images(self._b, self._by):
            rows = []
            for key, image in some:
                values = [[*value, share] for value, share in image.values.items()]
                body = json.dumps([image.sha256, image.top, values, image.sources])
                rows.append((key, place, body))
                place += 1
            self._kept.executemany("INSERT OR IGNORE INTO images VALUES (?, ?, 0, ?)", rows)

    def _take(self, key: str) -> Image | None:
        row = self._kept.execute("SELECT body FROM images WHERE image = ?", (key,)).fetchone()
        if row is None:
            return None
        self._kept.execute("UPDATE images SET found = 1 WHERE image = ?", (key,))
        sha256, top, values, sources = json.loads(row[0])
        return Image(sha256, top, {(kind, name): share for kind, name, share in values}, sources)


def _images(out: Path, by: str) -> Iterator[list[tuple[str, Image]]]:
    column = column_of(by)
    for batch in image_batches(out, images=_OF_IMAGES, lines=[*_OF_LINES, column]):
        of_image: dict[str, list[Mapping[str, Any]]] = {}
        for line in batch.lines.to_pylist():
            of_image.setdefault(line["image"], []).append(line)
        yield [
            (image["image"], _image(image, of_image.get(image["image"], []), column))
            for image in batch.images.to_pylist()
        ]


def _image(image: Mapping[str, Any], lines: list[Mapping[str, Any]], column: str) -> Image:
    values: dict[tuple[str, str], list[float]] = {("remaining", ""): [image["remaining"]]}
    sources: dict[str, float] = {"": image["remaining"]}
    for line in lines:
        kind = "known" if line[column] else "unknown"
        values.setdefault((kind, line[column]), []).append(line["influence"])
        sources[line["training_id"]] = line["influence"]
    summed = {value: fsum(parts) for value, parts in values.items()}
    return Image(image["sha256"], image["top_key"], summed, sources)
