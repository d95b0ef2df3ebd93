"""What a source says of an image besides its pixels: the names it may go by, and their meaning."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

__all__ = ["FILE_COLUMNS", "Metadata", "Scalar", "column_named"]

Scalar = str | int | float | bool | None

FILE_COLUMNS = ("file", "file_name", "path", "image_path", "key", "image")
"""Columns that may name the image file, the first one present is used."""

_CAPTION = ("caption", "text", "title", "prompt")
_CREATOR = ("creator", "author", "artist")
_LICENCE = ("licence", "license")
_URL = ("url", "source")

# Bookkeeping of img2dataset that says nothing about the image.
_DROPPED = frozenset({"exif", "status", "error_message"})
_MAX_EXTRA_CHARS = 1000
_MAX_EXTRA_FIELDS = 64


@dataclass(frozen=True, slots=True)
class Metadata:
    """Fields as in `ingest.record.ImageRecord`; '' where unknown."""

    url: str = ""
    caption: str = ""
    creator: str = ""
    licence: str = ""
    extra: Mapping[str, Scalar] = field(default_factory=dict)

    @classmethod
    def from_row(cls, row: Mapping[str, object], without: Collection[str] = ()) -> Metadata:
        """The metadata in a table row or a JSON object; names are compared in any letter case.

        Small scalars under other names go to `extra`; lists, objects, nulls and the columns in
        `without` are left out. A `source` that is not an address goes to `extra` too.
        """
        names = {name.casefold(): name for name in row}
        used = set(without)

        def first(candidates: Iterable[str]) -> str:
            for candidate in candidates:
                name = names.get(candidate)
                if name is None:
                    continue
                text = _text(row[name])
                if candidate == "source" and "://" not in text:
                    continue
                if text:
                    used.add(name)
                    return text
            return ""

        url, caption = first(_URL), first(_CAPTION)
        creator, licence = first(_CREATOR), first(_LICENCE)
        extra: dict[str, Scalar] = {}
        for name, value in row.items():
            if name in used or name.casefold() in _DROPPED or len(extra) >= _MAX_EXTRA_FIELDS:
                continue
            if _is_small(value):
                extra[name] = _encodable(value) if isinstance(value, str) else value  # type: ignore[assignment]
        return cls(url, caption, creator, licence, extra)

    def over(self, other: Metadata) -> Metadata:
        """These fields, and the other's where these are unknown."""
        return Metadata(
            url=self.url or other.url,
            caption=self.caption or other.caption,
            creator=self.creator or other.creator,
            licence=self.licence or other.licence,
            extra={**other.extra, **self.extra},
        )


def column_named(candidates: Iterable[str], columns: Iterable[str]) -> str | None:
    """The column that goes by one of the names, in the order of the names; None for none."""
    present = {column.casefold(): column for column in reversed(list(columns))}
    return next((present[name] for name in candidates if name in present), None)


def _text(value: object) -> str:
    if isinstance(value, str):
        return _encodable(value).strip()
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    return "" if isinstance(value, float) and math.isnan(value) else str(value)


def _encodable(text: str) -> str:
    """JSON may hold lone surrogates, which no database takes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _is_small(value: object) -> bool:
    if isinstance(value, str):
        return 0 < len(value) <= _MAX_EXTRA_CHARS
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, bool | int)
