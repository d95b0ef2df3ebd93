"""Whether the tables of an audit agree with each other, and with its summary."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingest.errors import UsageError
from search.audit.finished import image_batches, line_fields, read_creators, read_table
from search.audit.flags import Thresholds
from search.audit.near_copy import copy_threshold
from search.audit.payload_fields import column_of
from search.audit.resampling import SEED
from search.audit.shares import Shares
from search.audit.summary import Totals
from search.audit.tables import REJECTS
from search.audit.verify_image import Repeated, wrong_with_image
from search.audit.verify_summary import thresholds_of, wrong_summary
from search.audit.verify_values import same_value

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Sampled", "TableFaults", "check_tables"]

_OF_LINES = (
    *("image", "rank", "training_id", "training_key", "creator", "similarity"),
    *("influence", "influence_low", "influence_high", "method"),
)


@dataclass(frozen=True)
class Sampled:
    """An image of the sample, as the audit has it.

    Attributes:
        image: its line of images.parquet.
        lines: its lines of attributions.parquet.
    """

    image: Mapping[str, Any]
    lines: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class TableFaults:
    """What is wrong with the tables, in words; nothing, if all is well.

    Attributes:
        images: how many there are.
        wrong_images: images whose line does not follow from their attributions.
        image: what is wrong with the first of them.
        shares: what is wrong with creators.parquet, or ''.
        summary: what is wrong with summary.json, or ''.
        flags_known: the thresholds of the flags were known, and flags looked at.
        inputs_sha256: as the tables give it.
        sample: the images asked for.
    """

    images: int
    wrong_images: int
    image: str
    shares: str
    summary: str
    flags_known: bool
    inputs_sha256: str
    sample: tuple[Sampled, ...]


def check_tables(out: Path, summary: Mapping[str, Any], places: Collection[int]) -> TableFaults:
    """Read an audit from its first to its last image, in bounded memory.

    Args:
        out: its folder.
        summary: its summary.json.
        places: of the images wanted as the sample, 0-based.

    Raises:
        RunError: a table that is missing, damaged, or without order.
    """
    creators = read_creators(out)
    fields = list(dict.fromkeys(line["field"] for line in creators))
    known = line_fields(out)
    foreign = [field for field in fields if field not in known]
    shares = None if foreign or not fields else Shares(fields, SEED)
    totals = Totals()
    totals.reject(read_table(out, REJECTS))
    thresholds = _thresholds(summary)
    repeated = Repeated()
    wanted = set(places)
    sample: list[Sampled] = []
    wrong, first, count = 0, "", 0
    further = [] if foreign else [column_of(field) for field in fields]
    columns = list(dict.fromkeys([*_OF_LINES, *further]))
    for batch in image_batches(out, lines=None if wanted else columns):
        if shares is not None:
            shares.add(batch.lines, batch.images)
        totals.add(batch.lines, batch.images)
        of_image: dict[str, list[Mapping[str, Any]]] = {}
        for line in batch.lines.select(_OF_LINES).to_pylist():
            of_image.setdefault(line["image"], []).append(line)
        for image in batch.images.to_pylist():
            lines = of_image.get(image["image"], [])
            try:
                fault = wrong_with_image(image, lines, thresholds)
            except (TypeError, ValueError, OverflowError):
                fault = "a number is missing, or is none"
            fault = repeated.wrong(image) or fault
            if fault:
                wrong += 1
                first = first or f"{image['image']}: {fault}"
            if count in wanted:
                sample.append(Sampled(image, _lines_of(batch.lines, image["image"])))
            count += 1
    summed = shares.table() if shares is not None else None
    return TableFaults(
        images=count,
        wrong_images=wrong,
        image=first,
        shares=(
            f"it has shares by {foreign[0]!r}, which nothing can be summed by"
            if foreign
            else _wrong_shares(creators, summed, count)
        ),
        summary=wrong_summary(summary, totals, summed, count),
        flags_known=thresholds is not None,
        inputs_sha256=totals.inputs,
        sample=tuple(sample),
    )


def _lines_of(lines: pa.Table, image: str) -> list[Mapping[str, Any]]:
    import pyarrow.compute as pc

    own: list[Mapping[str, Any]] = lines.filter(pc.equal(lines.column("image"), image)).to_pylist()
    return own


def _thresholds(summary: Mapping[str, Any]) -> Thresholds | None:
    """Those of the audit, that of near-copies filled in where it is known."""
    known = thresholds_of(summary)
    if known is None or known.near_copy is not None:
        return known
    with suppress(UsageError):
        copy_model = summary["settings"].get("copy_model", "")
        return replace(known, near_copy=copy_threshold(str(copy_model)))
    return known


def _wrong_shares(
    creators: Sequence[Mapping[str, Any]], summed: pa.Table | None, images: int
) -> str:
    if summed is None:
        return "it has no shares" if images else ""
    found = {(line["field"], line["kind"], line["value"]): line for line in creators}
    expected = summed.to_pylist()
    if len(creators) != len(expected):
        return f"it has {len(creators):,} lines, and the attributions give {len(expected):,}"
    for line in expected:
        named = line["value"] or line["kind"]
        kept = found.get((line["field"], line["kind"], line["value"]))
        if kept is None:
            return f"it lacks {named!r} of {line['field']}"
        for column in ("share", "share_low", "share_high", "images", "top_of", "training_images"):
            if not same_value(kept[column], line[column]):
                return (
                    f"{column} of {named!r} ({line['field']}) is {kept[column]}, and the "
                    f"attributions give {line[column]}"
                )
    return ""
