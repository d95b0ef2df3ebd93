"""Whether the tables of an audit agree with each other, and with its summary."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import exp, fsum, isclose, log
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.audit.finished import image_batches, read_creators, read_table
from search.audit.flags import Thresholds, image_flags
from search.audit.resampling import SEED
from search.audit.shares import FIELDS, Shares
from search.audit.summary import Totals
from search.audit.tables import REJECTS

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["TOLERANCE", "Sampled", "TableFaults", "check_tables", "wrong_with_image"]

TOLERANCE = 1e-9
"""How far sums may be from what they should be."""

_OF_LINES = ("rank", "training_id", "training_key", "creator", "similarity", "influence")
_ORDER = 1e-12  # influence that falls with the rank, but for rounding


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
        sample: the images asked for.
    """

    images: int
    wrong_images: int
    image: str
    shares: str
    summary: str
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
    foreign = [field for field in fields if field not in FIELDS]
    shares = None if foreign or not fields else Shares(fields, SEED)
    totals = Totals()
    thresholds = _thresholds(summary)
    wanted = set(places)
    seen: set[str] = set()
    sample: list[Sampled] = []
    wrong, first, count = 0, "", 0
    for batch in image_batches(out, lines=[*_OF_LINES, *(() if foreign else fields)]):
        if shares is not None:
            shares.add(batch.lines, batch.images)
        totals.add(batch.lines, batch.images)
        of_image: dict[str, list[Mapping[str, Any]]] = {}
        for line in batch.lines.to_pylist():
            of_image.setdefault(line["image"], []).append(line)
        for image in batch.images.to_pylist():
            lines = of_image.get(image["image"], [])
            try:
                fault = wrong_with_image(image, lines, thresholds)
            except (TypeError, ValueError):
                fault = "a number is missing, or is none"
            if image["image"] in seen:
                fault = "it is there twice"
            seen.add(image["image"])
            if fault:
                wrong += 1
                first = first or f"{image['image']}: {fault}"
            if count in wanted:
                sample.append(Sampled(image, lines))
            count += 1
    totals.reject(read_table(out, REJECTS))
    return TableFaults(
        images=count,
        wrong_images=wrong,
        image=first,
        shares=(
            f"it has shares by {foreign[0]!r}, which nothing can be summed by"
            if foreign
            else _wrong_shares(creators, shares.table() if shares is not None else None, count)
        ),
        summary=_wrong_summary(summary, totals, count),
        sample=tuple(sample),
    )


def wrong_with_image(
    image: Mapping[str, Any],
    lines: Sequence[Mapping[str, Any]],
    thresholds: Thresholds | None = None,
) -> str:
    """Why a line of images.parquet does not follow from its lines of attributions; '' if it does.

    Args:
        image: the line.
        lines: in order of rank.
        thresholds: of the flags; they are not looked at without.
    """
    influences = [line["influence"] for line in lines]
    if not all(0 <= share <= 1 for share in (*influences, image["remaining"])):
        return "an influence is not in 0..1"
    total = fsum((*influences, image["remaining"]))
    if not abs(total - 1) <= TOLERANCE:
        return f"its influence and what remains sum to {total:.12g}, not to 1"
    by_rank: dict[int, list[Mapping[str, Any]]] = {}
    for line in lines:
        by_rank.setdefault(line["rank"], []).append(line)
    if list(by_rank) != list(range(1, len(by_rank) + 1)):
        return "its ranks are not 1, 2, 3, ..."
    sums = [fsum(line["influence"] for line in of_rank) for of_rank in by_rank.values()]
    if any(later > sooner + _ORDER for sooner, later in pairwise(sums)):
        return "its ranks are not in order of influence"
    if image["sources"] != len(sums):
        return f"it tells of {image['sources']} sources and has {len(sums)}"
    entropy = -fsum(share * log(share) for share in (*sums, image["remaining"]) if share > 0)
    if not _same(image["entropy"], entropy) or not _same(image["effective_sources"], exp(entropy)):
        return f"its entropy is {image['entropy']:.12g}, and its lines give {entropy:.12g}"
    if wrong := _wrong_top(image, by_rank.get(1, []), sums) or _wrong_main(image, lines):
        return wrong
    if thresholds is not None and image["flags"] != image_flags(image, thresholds):
        return "its flags are not those of its numbers and the thresholds"
    return ""


def _wrong_top(
    image: Mapping[str, Any], top: Sequence[Mapping[str, Any]], sums: Sequence[float]
) -> str:
    if not top:
        return "" if not image["top_id"] and not image["top_influence"] else "it has no top source"
    same = (
        image["top_id"] in [line["training_id"] for line in top]
        and image["top_key"] in [line["training_key"] for line in top]
        and image["top_creator"] in [line["creator"] for line in top]
        and _same(image["top_influence"], sums[0])
        and _same(image["top_similarity"], top[0]["similarity"])
    )
    return "" if same else "its top source is not that of rank 1"


def _wrong_main(image: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> str:
    by_creator: dict[str, list[float]] = {}
    for line in lines:
        if line["creator"]:
            by_creator.setdefault(line["creator"], []).append(line["influence"])
    summed = {creator: fsum(parts) for creator, parts in by_creator.items()}
    share = summed.get(image["main_creator"], 0.0)
    same = _same(share, max(summed.values(), default=0.0)) and _same(
        image["main_creator_share"], share
    )
    return "" if same else "its main creator is not the one with the largest share"


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
            if not _same(kept[column], line[column]):
                return (
                    f"{column} of {named!r} ({line['field']}) is {kept[column]}, and the "
                    f"attributions give {line[column]}"
                )
    return ""


def _wrong_summary(summary: Mapping[str, Any], totals: Totals, images: int) -> str:
    gallery, told = summary.get("gallery"), summary.get("totals")
    if not isinstance(gallery, Mapping) or not isinstance(told, Mapping):
        return "it has no totals"
    rejected = sum(totals.rejected.values())
    if gallery.get("rejected") != rejected:
        return f"it tells of {gallery.get('rejected')} rejects, and the table has {rejected:,}"
    if not images:
        return "" if told.get("images") == 0 else "it tells of images, and the tables have none"
    for name, value in totals.record().items():
        if not _same(told.get(name), value):
            return f"its {name} is {told.get(name)}, and the tables give {value}"
    return ""


def _thresholds(summary: Mapping[str, Any]) -> Thresholds | None:
    """Those of the audit; None where they are none that this attrib knows."""
    settings = summary.get("settings")
    given = settings.get("thresholds") if isinstance(settings, Mapping) else None
    try:
        return Thresholds(**given) if isinstance(given, Mapping) else None
    except TypeError:
        return None


def _same(one: object, other: object) -> bool:
    """Equal, numbers but for rounding."""
    if isinstance(one, float) and isinstance(other, int | float):
        return isclose(one, other, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return one == other
