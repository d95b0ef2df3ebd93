"""Small pictures for a report: drawn anew, each once, within limits of number and size."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import islice
from typing import TypeAlias

from ingest.decode import decode
from ingest.errors import ImageError
from search.audit.report_blocks import PictureSpool

__all__ = ["Pictures", "PicturesOf", "Shown", "small_picture"]

Wanted: TypeAlias = tuple[str, bool]
"""Key or id of an image, and whether it may be large."""

PicturesOf: TypeAlias = Callable[[Sequence[str]], Sequence[bytes | None]]
"""Image files by the keys or ids of their images; None where there is none."""

_AT_ONCE = 256


def small_picture(data: bytes, side: int, quality: int) -> bytes | None:
    """A WebP file no larger than ``side`` pixels, never larger than the image; None where the
    bytes are no usable image. Nothing of the file but its pixels gets into it."""
    try:
        image = decode(data).image
    except ImageError:
        return None
    image.thumbnail((side, side), reducing_gap=3.0)
    file = io.BytesIO()
    image.save(file, "WEBP", quality=quality, method=2)
    return file.getvalue()


@dataclass
class Shown:
    """Which images have a picture, and how many do not, and why.

    Attributes:
        numbers: key or id -> number of the picture in the spool.
        missing: there was none, or it could not be read.
        left_out: beyond the limits.
        size: bytes of the pictures that were added.
    """

    numbers: dict[str, int] = field(default_factory=dict)
    missing: int = 0
    left_out: int = 0
    size: int = 0


class Pictures:
    """Draws the pictures into a spool; equal ones are stored once.

    Args:
        side, flagged_side: longest sides in pixels.
    """

    def __init__(self, spool: PictureSpool, side: int, flagged_side: int, quality: int) -> None:
        self._spool = spool
        self._sides = (side, flagged_side)
        self._quality = quality
        self._known: dict[bytes, int] = {}

    def add(
        self,
        wanted: Iterable[Wanted],
        pictures_of: PicturesOf,
        *,
        most: int,
        most_bytes: int,
    ) -> Shown:
        """Draw what is wanted, in this order, until ``most`` pictures or ``most_bytes`` are there.

        ``pictures_of`` is called in this thread, with up to 256 keys or ids.
        """
        shown = Shown()
        waiting = iter(wanted)
        with ThreadPoolExecutor(thread_name_prefix="report") as pool:
            while batch := list(islice(waiting, _AT_ONCE)):
                room = most - len(shown.numbers)
                if room < 1 or shown.size >= most_bytes:
                    shown.left_out += len(batch)
                    continue
                shown.left_out += len(batch[room:])
                for (name, _), drawn in zip(
                    batch[:room], self._drawn(pool, batch[:room], pictures_of), strict=True
                ):
                    self._keep(shown, name, drawn, most_bytes)
        return shown

    def _drawn(
        self,
        pool: ThreadPoolExecutor,
        batch: list[Wanted],
        pictures_of: PicturesOf,
    ) -> Iterator[bytes | None]:
        files = pictures_of([name for name, _ in batch])
        read = [(file, self._sides[large]) for file, (_, large) in zip(files, batch, strict=True)]
        return pool.map(
            lambda one: None if one[0] is None else small_picture(one[0], one[1], self._quality),
            read,
        )

    def _keep(self, shown: Shown, name: str, drawn: bytes | None, most_bytes: int) -> None:
        if drawn is None:
            shown.missing += 1
            return
        digest = sha256(drawn).digest()
        number = self._known.get(digest)
        if number is None:
            if shown.size + len(drawn) > most_bytes:
                shown.left_out += 1
                return
            number = self._known[digest] = self._spool.add(drawn)
            shown.size += len(drawn)
        shown.numbers[name] = number
