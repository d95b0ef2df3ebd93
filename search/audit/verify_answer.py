"""How an answer that an audit tells of differs from the answer of today."""

from __future__ import annotations

from collections.abc import Mapping
from math import fsum
from typing import TYPE_CHECKING, Any

from search.answer import Attribution
from search.audit.shares import lines_of
from search.audit.verify_records import ALTERED, other_record
from search.audit.verify_values import short
from search.support import Limits

if TYPE_CHECKING:
    from search.audit.verify_tables import Sampled

__all__ = ["SAMPLE_TOLERANCE", "SIMILARITY_TOLERANCE", "distance", "other_answer"]

SAMPLE_TOLERANCE = 0.01
"""Influence that may have moved, of 1. The same image at another place of a batch, or on another
machine, has features that differ by their rounding (half precision); see docs/audit-proof.md."""

SIMILARITY_TOLERANCE = 0.01
"""By which a similarity may differ, for the same reason."""

_SUPPORT_TOLERANCE = 0.05  # of the support: how many similarities are just above the cut-off
_SUPPORT_FEW = 2


def distance(then: Sampled, now: Attribution) -> float:
    """Total variation distance of two attributions of an image: the influence that moved, 0..1."""
    return _moved(then, lines_of("", now), "influence", then.image["remaining"] - now.remaining)


def other_answer(then: Sampled, now: Attribution) -> str:
    """How an answer differs otherwise than by the influence that moved; '' where it does not."""
    lines = lines_of("", now)
    by_id = {line["training_id"]: line for line in lines}
    for told in then.lines:
        line = by_id.get(told["training_id"])
        if line is None:
            continue  # influence that moved
        if fault := other_record(told, line):
            return f"{fault} ({ALTERED})"
        if not abs(told["similarity"] - line["similarity"]) <= SIMILARITY_TOLERANCE:
            return (
                f"its similarity to {line['training_key']} is {line['similarity']:.4f}, and "
                f"{told['similarity']:.4f} in the audit"
            )
    return _other_method(then.image, now) or _other_intervals(then, now, lines)


def _other_method(image: Mapping[str, Any], now: Attribution) -> str:
    """Method and support. Whether a support can still be fetched whole may be a matter of one
    training image, and of what a server allows at that time."""
    supports = [size for size in (image["support"], now.support) if size is not None]
    on_the_edge = any(size >= (1 - _SUPPORT_TOLERANCE) * Limits.support for size in supports)
    if image["method"] != now.method:
        if image["note"] or now.note or (on_the_edge and now.method != "exact"):
            return ""
        return f"its method is {now.method}, and {image['method']} in the audit"
    if len(supports) == 1 and not on_the_edge:
        now_told, then_told = (_told(size) for size in (now.support, image["support"]))
        return f"its support is {now_told}, and {then_told} in the audit"
    if len(supports) == 2:
        one, other = supports
        if abs(one - other) > max(_SUPPORT_TOLERANCE * other, _SUPPORT_FEW):
            return f"its support is {other:,}, and {one:,} in the audit"
    if image["note"] != now.note:
        return f"its note is {short(now.note)}, and {short(image['note'])} in the audit"
    return ""


def _other_intervals(then: Sampled, now: Attribution, lines: list[dict[str, Any]]) -> str:
    if then.image["method"] != now.method:
        return ""
    low, high = now.remaining_interval
    for name, end in (("low", low), ("high", high)):
        column = f"influence_{name}"
        allowed = SAMPLE_TOLERANCE * max(1.0, fsum(line[column] for line in lines))
        if not _moved(then, lines, column, then.image[f"remaining_{name}"] - end) <= allowed:
            return f"the {name} ends of its intervals are others in the audit"
    return ""


def _moved(then: Sampled, lines: list[dict[str, Any]], column: str, remaining: float) -> float:
    changes: dict[str, float] = {"": remaining}
    for line in then.lines:
        changes[line["training_id"]] = line[column]
    for line in lines:
        name = line["training_id"]
        changes[name] = changes.get(name, 0.0) - line[column]
    return fsum(abs(change) for change in changes.values()) / 2


def _told(support: int | None) -> str:
    return "not known" if support is None else f"{support:,}"
