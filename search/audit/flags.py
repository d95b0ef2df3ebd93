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
        duplicate: most bits of 256 in which the looks of two images differ.
    """

    near_copy: float | None = None
    look_from: float | None = None
    one_source: float = 0.5
    one_creator: float = 0.5
    nothing_close: float | None = None
    duplicate: float = 10


FLAGS: Mapping[str, Flag] = {
    flag.name: flag
    for flag in (
        Flag("near-copy", "Near-copy", "Repeats a training image.", "score", ""),
        Flag("one-source", "One source", "One training image carries half or more.", "0.5", ""),
        Flag("one-creator", "One creator", "One creator carries half or more.", "0.5", ""),
        Flag("nothing-close", "Nothing close", "No training image is similar.", "similarity", ""),
        Flag("duplicate", "Duplicate", "An earlier image looks alike.", "10 bits", ""),
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
    if thresholds.nothing_close is not None and row["top_similarity"] < thresholds.nothing_close:
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
        given[names[name]] = number
    return replace(base or Thresholds(), **given)
