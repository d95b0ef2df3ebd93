"""Whether a line of images.parquet follows from its lines of attributions, and from the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import exp, fsum, log
from typing import Any, get_args

from search.answer import Method
from search.audit.flags import Thresholds, image_flags
from search.audit.verify_values import ROUNDING, same_value

__all__ = ["Repeated", "wrong_with_image"]

_ORDER = 1e-12  # influence that falls with the rank, but for rounding
_MOST_SIMILAR = 1 + 1e-3  # cosines of rounded features


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
    if not all(abs(line["similarity"]) <= _MOST_SIMILAR for line in lines):
        return "a similarity is not in -1..1"
    total = fsum((*influences, image["remaining"]))
    if not abs(total - 1) <= ROUNDING:
        return f"its influence and what remains sum to {total:.12g}, not to 1"
    by_rank: dict[int, list[Mapping[str, Any]]] = {}
    for line in lines:
        by_rank.setdefault(line["rank"], []).append(line)
    if list(by_rank) != list(range(1, len(by_rank) + 1)):
        return "its ranks are not 1, 2, 3, ..."
    sums = [fsum(line["influence"] for line in of_rank) for of_rank in by_rank.values()]
    if any(later > sooner + _ORDER for sooner, later in pairwise(sums)):
        return "its ranks are not in order of influence"
    if len({line["training_id"] for line in lines}) < len(lines):
        return "a training image is there twice"
    if image["sources"] != len(sums):
        return f"it tells of {image['sources']} sources and has {len(sums)}"
    entropy = -fsum(share * log(share) for share in (*sums, image["remaining"]) if share > 0)
    if not same_value(image["entropy"], entropy) or not same_value(
        image["effective_sources"], exp(entropy)
    ):
        return f"its entropy is {image['entropy']:.12g}, and its lines give {entropy:.12g}"
    wrong = (
        _wrong_top(image, by_rank.get(1, []), sums)
        or _wrong_main(image, lines)
        or _wrong_method(image, lines)
    )
    if wrong or thresholds is None:
        return wrong
    if wrong := _wrong_copy(image, lines, thresholds.near_copy):
        return wrong
    if image["flags"] != image_flags(image, thresholds):
        return "its flags are not those of its numbers and the thresholds"
    return ""


class Repeated:
    """Duplicates, as far as the tables tell: fed the lines of images.parquet in order.

    Memory: some 200 bytes an image.
    """

    def __init__(self) -> None:
        self._first_of: dict[str, str] = {}
        self._firsts: set[str] = set()
        self._others: set[str] = set()

    def wrong(self, image: Mapping[str, Any]) -> str:
        """Why the next image cannot be what it is said to be; '' where it can."""
        name, sha256, first = image["image"], image["sha256"], image["duplicate_of"]
        same = self._first_of.setdefault(sha256, first or name)
        fault = ""
        if name in self._firsts or name in self._others:
            fault = "it is there twice"
        elif first and first not in self._firsts:
            fault = f"it is called a duplicate of {first}, which is no earlier image, or one itself"
        elif same != (first or name):
            fault = f"its file is that of {same}, which it is not called a duplicate of"
        (self._others if first else self._firsts).add(name)
        return fault


def _wrong_top(
    image: Mapping[str, Any], top: Sequence[Mapping[str, Any]], sums: Sequence[float]
) -> str:
    if not top:
        return "" if not image["top_id"] and not image["top_influence"] else "it has no top source"
    same = (
        image["top_id"] == top[0]["training_id"]
        and image["top_key"] == top[0]["training_key"]
        and image["top_creator"] == next(filter(None, (line["creator"] for line in top)), "")
        and same_value(image["top_influence"], sums[0])
        and same_value(image["top_similarity"], top[0]["similarity"])
    )
    return "" if same else "its top source is not that of rank 1"


def _wrong_main(image: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> str:
    by_creator: dict[str, list[float]] = {}
    for line in lines:
        if line["creator"]:
            by_creator.setdefault(line["creator"], []).append(line["influence"])
    summed = {creator: fsum(parts) for creator, parts in by_creator.items()}
    share = summed.get(image["main_creator"], 0.0)
    same = same_value(share, max(summed.values(), default=0.0)) and same_value(
        image["main_creator_share"], share
    )
    return "" if same else "its main creator is not the one with the largest share"


def _wrong_method(image: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> str:
    """Method, intervals and support."""
    method, support = image["method"], image["support"]
    if method not in get_args(Method) or any(line["method"] != method for line in lines):
        return "its method is none, or not that of its lines"
    remaining = (image["remaining_low"], image["remaining"], image["remaining_high"])
    shares = [(line["influence_low"], line["influence"], line["influence_high"]) for line in lines]
    if method == "estimated":
        if not all(
            -ROUNDING <= low <= share + ROUNDING and share - ROUNDING <= high <= 1 + ROUNDING
            for low, share, high in (*shares, remaining)
        ):
            return "an interval does not hold its influence"
    elif any(not low == share == high for low, share, high in (*shares, remaining)):
        return f"its method is {method}, and an influence has an interval"
    if support is not None and support < len(lines):
        return f"its support is {support:,}, and it has {len(lines):,} lines"
    if support is None and method == "complete":
        return "its method is complete, and its support is not known"
    return ""


def _wrong_copy(
    image: Mapping[str, Any], lines: Sequence[Mapping[str, Any]], least: float | None
) -> str:
    copied, score = image["copy_of"], image["copy_score"]
    if copied and all(line["training_id"] != copied for line in lines):
        return "the training image that it copies is not among its lines"
    if least is not None and (score is not None and score >= least) != bool(copied):
        told = "none" if score is None else f"{score:.4g}"
        called = "it is called" if copied else "it is not called"
        return f"its copy_score is {told}, {called} a near-copy, and near-copies are from {least:g}"
    return ""
