"""A finished audit, read for its report a batch at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ingest.errors import RunError
from search.audit.tables import ATTRIBUTIONS, CREATORS, IMAGES, REJECTS, SCHEMA, SUMMARY

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

__all__ = [
    "Answer",
    "answers",
    "batches",
    "floats",
    "image_columns",
    "read_rejects",
    "read_shares",
    "read_summary",
    "wanted_training",
]

_BATCH = 8192


@dataclass(frozen=True)
class Answer:
    """One generated image.

    Attributes:
        image: its line of images.
        lines: the first of its lines of attributions, and those of what stands beside it.
        main_id: of the training image that stands for its main creator; '' where none is wanted.
    """

    image: dict[str, Any]
    lines: list[dict[str, Any]]
    main_id: str


def read_summary(out: Path) -> dict[str, Any]:
    """The summary of the audit.

    Raises:
        RunError: there is none, or it is not of this schema.
    """
    try:
        summary = json.loads((out / SUMMARY).read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        raise RunError(f"{str(out)!r} is no finished audit: it has no {SUMMARY}") from exc
    except (OSError, ValueError) as exc:
        raise RunError(f"cannot read {str(out / SUMMARY)!r}: {exc}") from exc
    if not isinstance(summary, dict) or summary.get("schema") != SCHEMA:
        found = summary.get("schema") if isinstance(summary, dict) else None
        raise RunError(
            f"{str(out)!r} is an audit of the schema {found!r}, not {SCHEMA!r}: "
            "use the version of attrib that wrote it"
        )
    return summary


def image_columns(out: Path, columns: list[str]) -> Iterator[dict[str, Any]]:
    """Some columns of the table of images, line by line."""
    for batch in batches(out / IMAGES, columns):
        yield from batch.to_pylist()


def floats(out: Path, columns: list[str]) -> dict[str, NDArray[np.float64]]:
    """Whole columns of numbers; NaN where there is none. 8 bytes an image and column."""
    parts: dict[str, list[NDArray[np.float64]]] = {name: [] for name in columns}
    for batch in batches(out / IMAGES, columns):
        for name in columns:
            values = batch.column(name).to_numpy(zero_copy_only=False)
            parts[name].append(np.asarray(values, np.float64))
    return {name: np.concatenate([*each, np.empty(0)]) for name, each in parts.items()}


def answers(out: Path, most: int, mains: Mapping[str, str]) -> Iterator[Answer]:
    """Every generated image in order, with its lines up to the rank ``most``, and, wherever those
    stand, the lines of the training image it may be a copy of and of that which ``mains`` names.
    """
    beside = {
        image["image"]: (image["copy_of"], mains.get(image["image"], ""))
        for image in image_columns(out, ["image", "copy_of"])
        if image["copy_of"] or image["image"] in mains
    }
    lines = _wanted_lines(out, most, beside)
    line = next(lines, None)
    for image in image_columns(out, []):
        own = []
        while line is not None and line["image"] == image["image"]:
            own.append(line)
            line = next(lines, None)
        yield Answer(image, own, mains.get(image["image"], ""))
    if line is not None:
        raise RunError(
            f"{str(out / ATTRIBUTIONS)!r} tells of {line['image']!r}, which {IMAGES} does not have "
            "in that place: the tables do not belong together"
        )


def wanted_training(out: Path, most: int, mains: Mapping[str, str]) -> list[tuple[str, bool]]:
    """Ids of the training images that the report shows, and whether one stands beside a flagged
    image; those first, then by influence over the gallery. About 150 bytes of memory an id.

    ``mains``: what stands beside images flagged one-creator.
    """
    import pyarrow.compute as pc

    beside = set(mains.values())
    for image in image_columns(out, ["flags", "top_id", "copy_of"]):
        if image["flags"]:
            beside |= {image["copy_of"], image["top_id"]}
    influence = dict.fromkeys(beside - {""}, 0.0)
    last = ("", 0)
    for batch in batches(out / ATTRIBUTIONS, ["image", "rank", "training_id", "influence"]):
        for line in batch.filter(pc.less_equal(batch.column("rank"), most)).to_pylist():
            if (line["image"], line["rank"]) != last:  # equal images have one picture
                last = (line["image"], line["rank"])
                name = line["training_id"]
                influence[name] = influence.get(name, 0.0) + line["influence"]
    order = sorted(influence, key=lambda name: (name not in beside, -influence[name], name))
    return [(name, name in beside) for name in order]


def read_shares(out: Path, most: int) -> list[dict[str, Any]]:
    """Fields in order, each with its largest ``most`` known values, and unknown and remaining.

    ``others`` are the known values that are left out, ``others_share`` their sum.
    """
    fields: dict[str, dict[str, Any]] = {}
    for batch in batches(out / CREATORS, []):
        for line in batch.to_pylist():
            name = line.pop("field")
            one = fields.setdefault(
                name, {"field": name, "values": [], "known": 0, "others": 0, "others_share": 0.0}
            )
            if line["kind"] == "known":
                one["known"] += 1
                if one["known"] > most:
                    one["others"] += 1
                    one["others_share"] += line["share"]
                    continue
            one["values"].append(line)
    return list(fields.values())


def read_rejects(out: Path, most: int) -> tuple[list[dict[str, Any]], int]:
    """The first rejected images, and how many there are."""
    named: list[dict[str, Any]] = []
    count = 0
    for batch in batches(out / REJECTS, []):
        count += batch.num_rows
        named += batch.slice(0, max(most - len(named), 0)).to_pylist()
    return named, count


def _wanted_lines(
    out: Path, most: int, beside: Mapping[str, tuple[str, str]]
) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.compute as pc

    keys = pa.array(list(beside), pa.string())
    columns = [pa.array(each, pa.string()) for each in zip(*beside.values(), strict=True)]
    for batch in batches(out / ATTRIBUTIONS, []):
        wanted = pc.less_equal(batch.column("rank"), most)
        place = pc.index_in(batch.column("image"), value_set=keys)
        for ids in columns:
            same = pc.equal(batch.column("training_id"), ids.take(place))
            wanted = pc.or_(wanted, pc.fill_null(same, False))
        yield from batch.filter(wanted).to_pylist()


def batches(path: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Batches of a table; all of its columns where none are named.

    Raises:
        RunError: it is missing or damaged.
    """
    import pyarrow.parquet as pq

    with _readable(path), pq.ParquetFile(path) as file:
        yield from file.iter_batches(_BATCH, columns=columns or None, use_threads=False)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except FileNotFoundError as exc:
        raise RunError(f"{str(path.parent)!r} is no finished audit: it has no {path.name}") from exc
    except (OSError, pa.ArrowInvalid) as exc:
        raise RunError(f"cannot read {str(path)!r}: {' '.join(str(exc).split())}") from exc
