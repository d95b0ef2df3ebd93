"""One thing that a verification looked at, and what it found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["Check", "State", "counted_images", "listed"]

State: TypeAlias = Literal["holds", "fails", "not checked"]

_NAMED = 3  # files or images that are named of many


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: files, signature, images, shares, summary, report, inputs, records, sample, payouts.
        state: `not checked` says nothing for or against the audit.
        words: what was checked or why not, and what was found, in a sentence.
        lines: what was found one by one, where that takes more than a sentence.
    """

    name: str
    state: State
    words: str
    lines: tuple[str, ...] = ()


def listed(names: Sequence[str], between: str = "; ") -> str:
    """The first few, and how many more there are."""
    more = len(names) - _NAMED
    return between.join(names[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def counted_images(count: int) -> str:
    """``1 image``, ``2,000 images``."""
    return f"{count:,} images" if count != 1 else "1 image"
