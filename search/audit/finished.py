"""Reading a finished audit: its summary and tables, and one line for each way they are broken."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingest.errors import RunError
from search.audit.payload_fields import FIELDS, further_columns
from search.audit.tables import (
    ATTRIBUTIONS,
    CREATORS,
    IMAGES,
    REJECTS,
    SCHEMA,
    SUMMARY,
    attributions_schema,
    creators_schema,
    images_schema,
    rejects_schema,
)

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "ImageBatch",
    "image_batches",
    "line_fields",
    "read_creators",
    "read_summary",
    "read_table",
]

_LINES = 1 << 16
_IMAGES = 128  # with up to 1,000 lines each


def read_summary(out: Path) -> dict[str, Any]:
    """summary.json.

    Raises:
        RunError: there is none, it is damaged, or of another schema.
    """
    path = out / SUMMARY
    try:
        summary = json.loads(path.read_bytes())
    except OSError as exc:
        raise RunError(f"cannot read {path}: {exc.strerror or exc}") from exc
    except (ValueError, RecursionError) as exc:
        raise RunError(f"{path} is damaged: it is no JSON") from exc
    if not isinstance(summary, dict) or summary.get("schema") != SCHEMA:
        raise RunError(f"{path} is not of schema {SCHEMA}")
    return summary


def read_table(out: Path, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """One of the small tables, whole.

    Raises:
        RunError: it is missing or damaged, or a column is missing or of another type.
    """
    with _opened(out, name) as file, _translated(out / name):
        return file.read(columns=columns)


def read_creators(out: Path) -> list[dict[str, Any]]:
    """The lines of creators.parquet; raises as `read_table`."""
    lines: list[dict[str, Any]] = read_table(out, CREATORS).to_pylist()
    return lines


class ImageBatch:
    """Some images of the gallery, in order, with all of their lines.

    Attributes:
        images: lines of images.parquet.
        lines: lines of attributions.parquet, those of each image together.
    """

    def __init__(self, images: pa.Table, lines: pa.Table) -> None:
        self.images = images
        self.lines = lines


def image_batches(
    out: Path,
    *,
    images: Sequence[str] | None = None,
    lines: Sequence[str] | None = None,
) -> Iterator[ImageBatch]:
    """The gallery from its first to its last image, in bounded memory.

    Args:
        out: of the audit.
        images, lines: columns wanted of either table beside `image`; all by default. Of a field
            the column is `search.audit.payload_fields.column_of`.

    Raises:
        RunError: as `read_table`; or lines that do not come in order of the images.
    """
    import pyarrow as pa

    disordered = RunError(
        f"{out / ATTRIBUTIONS} has lines of images that are not in {IMAGES}, or not in its order"
    )
    of_images = ["image", *(images_schema().names if images is None else images)]
    if lines is None:
        lines = attributions_schema(further_columns(_text_columns(out, ATTRIBUTIONS))).names
    of_lines = ["image", *lines]
    with (
        _opened(out, IMAGES) as image_file,
        _opened(out, ATTRIBUTIONS) as line_file,
        _translated(out / ATTRIBUTIONS),
    ):
        parts = line_file.iter_batches(_LINES, columns=list(dict.fromkeys(of_lines)))
        held = line_file.schema_arrow.empty_table().select(list(dict.fromkeys(of_lines)))
        for batch in image_file.iter_batches(_IMAGES, columns=list(dict.fromkeys(of_images))):
            table = pa.Table.from_batches([batch])
            keys = pa.array(set(table.column("image").to_pylist()), pa.string())
            taken = []
            while True:
                # The lines of these images are the first ones held: up to the first of another.
                foreign = pa.compute.is_in(held.column("image"), keys).index(False).as_py()
                taken.append(held if foreign < 0 else held.slice(0, foreign))
                if foreign >= 0:
                    held = held.slice(foreign)
                    break
                part = next(parts, None)
                if part is None:
                    held = held.slice(0, 0)
                    break
                held = pa.Table.from_batches([part])
            found = pa.concat_tables(taken)
            order = pa.compute.index_in(found.column("image"), table.column("image").unique())
            if (pa.compute.pairwise_diff(order.combine_chunks()).to_numpy(False) < 0).any():
                raise disordered
            yield ImageBatch(table, found)
        if held.num_rows or next(parts, None) is not None:
            raise disordered


def line_fields(out: Path) -> tuple[str, ...]:
    """What the lines of an audit can be summed by.

    Raises:
        RunError: as `read_table`.
    """
    return (*FIELDS, *further_columns(_text_columns(out, ATTRIBUTIONS)))


def _text_columns(out: Path, name: str) -> list[str]:
    with _opened(out, name) as file:
        return [field.name for field in file.schema_arrow if field.type == "string"]


@contextmanager
def _opened(out: Path, name: str) -> Iterator[Any]:
    import pyarrow.parquet as pq

    path = out / name
    schema = {
        ATTRIBUTIONS: attributions_schema,
        IMAGES: images_schema,
        CREATORS: creators_schema,
        REJECTS: rejects_schema,
    }[name]()
    if not path.is_file():
        raise RunError(f"{out} is no finished audit: {name} is missing")
    with _translated(path):
        file = pq.ParquetFile(path)
    with file:
        found = file.schema_arrow
        for field in schema:
            place = found.get_field_index(field.name)
            if place < 0 or not found.field(place).type.equals(field.type):
                raise RunError(f"{path} has no column {field.name!r} of type {field.type}")
        yield file


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Turns what pyarrow says of a broken file into one line."""
    import pyarrow as pa

    try:
        yield
    except (OSError, pa.ArrowException) as exc:
        first = str(exc).partition("\n")[0]
        raise RunError(f"{path} is damaged: {first}") from exc
