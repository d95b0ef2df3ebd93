"""The flags of an audit: what each one means, from which value on, and how often it errs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from math import isfinite
from typing import Any

from ingest.errors import UsageError

__all__ = ["FLAGS", "Flag", "Thresholds", "flags_in_words", "image_flags", "parse_thresholds"]


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

FLAGS = ("near-copy", "one-source", "one-creator", "nothing-close", "duplicate")
"""The gravest first."""


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


# -- in words ----------------------------------------------------------------------------------
#
# A rate belongs to the threshold that it was measured at, and to nothing else: where another one is
# used, or another way to compare, the words say that it was not measured.

_MEASURED_BY = "python -m benchmarks.near_copy"
_NO_ESTIMATE = "none, as it is a definition; the influence itself is an estimate"
_NOT_MEASURED = "not measured at this threshold"

_NEAR_COPY_AT = 0.73
_NEAR_COPY_RATE = (
    "on clip art: 0.03 % of 52,530 pairs that are no copies (95 %: 0.02 - 0.05 %; 0.05 % with the "
    "pairs that were set aside by eye); a whole audit finds 90 to 100 % of copies by light edits, "
    "and 58 % of crops to 75 % of the sides. Another rate on other collections"
)
_COPY_MODEL_RATES = {
    "sscd-disc-mixup": (
        0.75,
        "not measured here; 90 % of what it calls a copy is one on DISC2021, by its authors' "
        "account",
    )
}
"""By backbone: the threshold, and what is known of it."""

_NOTHING_CLOSE_RATES = {
    "efficientnet-lite0": (0.42, "1.1 % so (95 %: 0.6 - 1.8 %)"),
    "efficientnet-lite0-clipart": (0.215, "0.6 % so (95 %: 0.2 - 1.2 %)"),
}
"""By model: the threshold, and how many images with a source this model calls."""

_DUPLICATE_AT = 32
_DUPLICATE_RATE = (
    "none of 28,680 pairs of different generated images (95 %: below 0.013 %); finds 98 to 100 % "
    "of images saved again as JPEG or in another size"
)


def flags_in_words(thresholds: Thresholds, model: str, copy_model: str = "") -> Mapping[str, Flag]:
    """What the flags of one audit mean, by name.

    Args:
        thresholds: those that it used, with everything filled in that could be known.
        model: name of its attribution model.
        copy_model: that near-copies were looked for with; '' for the edges.
    """
    told = (
        _near_copy(thresholds, copy_model),
        Flag(
            "one-source",
            "One source",
            f"One training image carries {_at_least(thresholds.one_source)}.",
            f"influence {_percent(thresholds.one_source)}",
            _NO_ESTIMATE,
        ),
        Flag(
            "one-creator",
            "One creator",
            "One known creator's training images together carry "
            f"{_at_least(thresholds.one_creator)}; also where it is one image of theirs.",
            f"summed influence {_percent(thresholds.one_creator)}",
            _NO_ESTIMATE,
        ),
        _nothing_close(thresholds.nothing_close, model),
        _duplicate(thresholds.duplicate),
    )
    return {flag.name: flag for flag in told}


def _near_copy(thresholds: Thresholds, copy_model: str) -> Flag:
    if copy_model:
        how = f"the features that {copy_model} gives the two pictures agree"
        measured_at, rate = _COPY_MODEL_RATES.get(copy_model, (None, ""))
    else:
        how = "the edges of the two pictures lie over each other, whole, mirrored or as a crop"
        measured_at, rate = _NEAR_COPY_AT, _NEAR_COPY_RATE
    least = measured_at if thresholds.near_copy is None else thresholds.near_copy
    value = "as given" if least is None else f"{least:g}"
    looked = (
        "all ten are looked at"
        if thresholds.look_from is None
        else f"those with a similarity of {thresholds.look_from:g} and more are looked at"
    )
    measured = rate and least == measured_at
    return Flag(
        "near-copy",
        "Near-copy",
        f"Repeats one of the ten training images most similar to it: {how}.",
        f"{f'cosine of {copy_model}' if copy_model else 'score'} {value}; {looked}",
        rate if measured else _NOT_MEASURED + (f" with {copy_model}" if copy_model else ""),
        _MEASURED_BY if measured and not copy_model else "",
    )


def _nothing_close(least: float | None, model: str) -> Flag:
    measured_at, rate = _NOTHING_CLOSE_RATES.get(model, (None, ""))
    if least is None:
        threshold = f"none is known for {model}, and none was given: the flag is not raised"
        meaning, error = "The training images are all far from it", "none, as it is not raised"
    elif least == measured_at:
        threshold = f"similarity to the nearest training image below {least:g}"
        meaning = (
            "No training image is as similar as the nearest one is for 99 in 100 generated images "
            "whose source is in the collection"
        )
        error = (
            "of 1,232 images of generators customized on images of the collection, "
            f"{model} calls {rate}. It misses much: an image that is not flagged need not have its "
            "source in the collection"
        )
    else:
        threshold = f"similarity to the nearest training image below {least:g}"
        meaning, error = f"No training image has a similarity of {least:g} or more", _NOT_MEASURED
    return Flag(
        "nothing-close",
        "Nothing close",
        f"{meaning}: novel, or its source is elsewhere.",
        threshold,
        error,
        _MEASURED_BY if least is not None and least == measured_at else "",
    )


def _duplicate(most: float) -> Flag:
    measured = most == _DUPLICATE_AT
    return Flag(
        "duplicate",
        "Duplicate",
        "An earlier image of the gallery is the same file, or looks the same in the same frame "
        "and colours.",
        f"at most {most:g} of 256 bits of a perceptual hash differ, and the colours by at most 8 "
        "of 255",
        _DUPLICATE_RATE if measured else _NOT_MEASURED,
        _MEASURED_BY if measured else "",
    )


def _percent(share: float) -> str:
    return f"{100 * share:g} %"


def _at_least(share: float) -> str:
    if share >= 1:
        return "all of the influence"
    return f"{'half' if share == 0.5 else _percent(share)} of the influence or more"
