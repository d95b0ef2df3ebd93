"""A picture of one model for a dataset's card."""

from __future__ import annotations

import io
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from evaluation.dataset.files import inside
from ingest.decode import decode
from ingest.errors import ImageError, SourceError
from ingest.item import printable

__all__ = ["REMEDY", "damaged", "drawn", "shown_pairs"]

REMEDY = "the `attrib dataset build` that made it makes it again"
_SHOWN = 8
_TILE = 96
_GAP = 24


def shown_pairs(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """An image of the model and its twin of the generator itself, some of them, evenly."""
    pairs = sorted((made, base) for base, made in record["base_of"].items())
    step = max(1, len(pairs) // _SHOWN)
    return pairs[::step][:_SHOWN]


def drawn(out: Path, record: Mapping[str, Any], files: Container[str]) -> bytes:
    """A PNG file: the first exemplar, a gap, images of the model; their twins below.

    Raises:
        SourceError: a picture is damaged, or not of the dataset.
    """
    from PIL import Image

    pairs = shown_pairs(record)
    width = _TILE * (1 + len(pairs)) + _GAP
    sheet = Image.new("RGB", (width, 2 * _TILE), "white")
    sheet.paste(_tile(out, record["exemplars"][0], files), (0, 0))
    for place, pair in enumerate(pairs, start=1):
        for row, name in enumerate(pair):
            sheet.paste(_tile(out, name, files), (_GAP + place * _TILE, row * _TILE))
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def damaged(path: Path, exc: Exception) -> SourceError:
    """What is said of a file that cannot be used."""
    why = (exc.strerror if isinstance(exc, OSError) else None) or str(exc)
    return SourceError(f"{printable(str(path))} is damaged: {printable(why)}; {REMEDY}")


def _tile(out: Path, name: str, files: Container[str]) -> Any:  # noqa: ANN401 (an image)
    from PIL import Image, ImageOps

    try:
        image = decode(inside(out, name, files).read_bytes()).image
    except (ImageError, OSError, ValueError) as exc:
        raise damaged(out / name, exc) from exc
    return ImageOps.pad(image, (_TILE, _TILE), Image.Resampling.LANCZOS, color="white")
