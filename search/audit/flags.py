"""The flags of an audit: what each one means, from which value on, and how often it errs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from math import isfinite
from typing import Any

from ingest.errors import UsageError

__all__ = ["FLAGS", "Flag", "Thresholds", "image_flags", "parse_thresholds"]


@dataclass(frozen=True)
class Flag:
    """What a flag means.

    Attributes:
        name: as in the table of images.
        title: for people.
        definition: in plain words.
        threshold: in plain words.
        error: the measured error rate, or why there is none.
        measured_by: the command that measures it; '' where nothing is to be measured.
    """

    name: str
    title: str
    definition: str
    threshold: str
    error: str
    measured_by: str = ""


@dataclass(frozen=True)
class Thresholds:
    """From which value on a flag is raised; `search.audit.derived` fills in what is None.

    Attributes:
        near_copy: least score of the pictures, 0..1; None for that of the way they are compared
            by, see `search.audit.near_copy.copy_threshold`.
        look_from: least similarity of a training image whose picture is looked at; None for all.
        one_source: least influence of one training image.
        one_creator: least influence of one known creator.
        nothing_close: similarity to the nearest training image below which nothing is close; None
            where it is not known: the flag is then not raised.
        duplicate: most bits of 256 in which the perceptual hashes of two images differ.
    """

    near_copy: float | None = None
    look_from: float | None = None
    one_source: float = 0.5
    one_creator: float = 0.5
    nothing_close: float | None = None
    duplicate: float = 32


_RANGES = {
    "near-copy": (0, 1),
    "look-from": (-1, 1),
    "one-source": (0, 1),
    "one-creator": (0, 1),
    "nothing-close": (-1, 1),
    "duplicate": (0, 256),
}

_MEASURED_BY = "python -m benchmarks.near_copy"

FLAGS: Mapping[str, Flag] = {
    flag.name: flag
    for flag in (
        Flag(
            "near-copy",
            "Near-copy",
            "Repeats one of the three training images most similar to it: the edges of the two "
            "pictures lie over each other, whole, mirrored or as a crop (with --copy-model: their "
            "features agree).",
            "score 0.73 (with --copy-model: the cosine measured for that backbone); only training "
            "images at least as similar as look-from are looked at",
            "on clip art: 0.09 % of 15,738 pairs that are no copies (95 %: 0.05 - 0.15 %; 0.15 % "
            "with the pairs that were set aside by eye); the score finds 90 to 100 % of copies by "
            "light edits, a whole audit 74 to 100 %, and 53 to 57 % of crops to 75 % of the sides. "
            "Another rate on other collections",
            _MEASURED_BY,
        ),
        Flag(
            "one-source",
            "One source",
            "One training image carries half of the influence or more.",
            "influence 0.5",
            "none: it is a definition; the influence itself is an estimate",
        ),
        Flag(
            "one-creator",
            "One creator",
            "One known creator's training images together carry half of the influence or more; "
            "also where it is one image of theirs.",
            "summed influence 0.5",
            "none: it is a definition; the influence itself is an estimate",
        ),
        Flag(
            "nothing-close",
            "Nothing close",
            "No training image is as similar as the nearest one is for 99 in 100 generated images "
            "whose source is in the collection: novel, or its source is elsewhere.",
            "similarity to the nearest training image, by model: efficientnet-lite0 0.42, "
            "efficientnet-lite0-clipart 0.215; not raised for other models unless it is given",
            "of 1,232 images of generators customized on images of the collection, "
            "efficientnet-lite0 calls 1.1 % so (95 %: 0.6 - 1.8 %), efficientnet-lite0-clipart "
            "0.6 % (0.2 - 1.2 %). It misses much: an image that is not flagged need not have its "
            "source in the collection",
            _MEASURED_BY,
        ),
        Flag(
            "duplicate",
            "Duplicate",
            "An earlier image of the gallery is the same file, or looks the same in the same frame "
            "and colours.",
            "32 of 256 bits of a perceptual hash, and 8 of 255 between the colours",
            "none of 28,680 pairs of different generated images (95 %: below 0.013 %); finds 98 to "
            "100 % of images saved again as JPEG or in another size",
            _MEASURED_BY,
        ),
    )
}


def image_flags(row: Mapping[str, Any], thresholds: Thresholds) -> list[str]:
    """The names of the flags of one line of the table of images, sorted.

    `duplicate_of` and `copy_of` must be filled in already.
    """
    raised = []
    if row["copy_of"]:
        raised.append("near-copy")
    if row["top_influence"] >= thresholds.one_source:
        raised.append("one-source")
    if row["main_creator"] and row["main_creator_share"] >= thresholds.one_creator:
        raised.append("one-creator")
    near, least = row["top_similarity"], thresholds.nothing_close
    if least is not None and near is not None and near < least:
        raised.append("nothing-close")
    if row["duplicate_of"]:
        raised.append("duplicate")
    return sorted(raised)


def parse_thresholds(texts: Iterable[str], base: Thresholds | None = None) -> Thresholds:
    """`base` with what ``["near-copy=0.9", ...]`` says.

    Raises:
        UsageError: no such flag, or no number.
    """
    names = {field.name.replace("_", "-"): field.name for field in fields(Thresholds)}
    given: dict[str, float] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if name not in names:
            raise UsageError(f"no threshold {name!r}: there are {', '.join(names)}")
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if not isfinite(number):
            raise UsageError(f"threshold {text!r} needs a number, as in {name}=0.9")
        low, high = _RANGES[name]
        if not low <= number <= high:
            raise UsageError(f"threshold {name} must be from {low} to {high}, not {number:g}")
        given[names[name]] = number
    return replace(base or Thresholds(), **given)
