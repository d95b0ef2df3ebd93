"""What `--without` leaves out of an audit: counted before the work, so that no slip goes unseen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from ingest.errors import NothingLeftError, UsageError
from search.chosen import filter_in_words
from search.index import Where

__all__ = ["LeftOut", "count_left_out"]


@dataclass(frozen=True)
class Condition:
    """One ``field=value``. images: training images of which it holds."""

    field: str
    value: str
    images: int


@dataclass(frozen=True)
class LeftOut:
    """What is left out.

    Attributes:
        images: training images that are.
        remaining: those that are not.
        conditions: one by one. Those of one field are alternatives, and of several fields all must
            hold, so the images of them all may be more than are left out.
    """

    images: int
    remaining: int
    conditions: tuple[Condition, ...]

    def record(self) -> dict[str, Any]:
        """As JSON values, for the summary."""
        return {**asdict(self), "conditions": [asdict(one) for one in self.conditions]}


def count_left_out(
    without: Where, matching: Callable[[Where], int], population: int
) -> LeftOut | None:
    """What a filter leaves out of a collection; None where there is no filter.

    Args:
        without: of the audit's settings.
        matching: counts the training images that match a filter.
        population: training images in the collection.

    Raises:
        UsageError: a condition that no training image meets, or all together that none does.
        NothingLeftError: all training images would be left out.
    """
    if not without:
        return None
    conditions = tuple(
        Condition(field, value, matching({field: [value]}))
        for field, values in sorted(without.items())
        for value in sorted(set(values))
    )
    if unmet := [f"{one.field}={one.value}" for one in conditions if not one.images]:
        raise UsageError(
            f"no training image has {' or '.join(unmet)}: nothing would be left out; names are "
            "taken as they stand in the collection"
        )
    # Of one condition, or of alternatives that exclude each other, this is the sum of the above;
    # but a field may have several values, and fields are met together.
    images = conditions[0].images if len(conditions) == 1 else matching(without)
    if not images:
        raise UsageError(
            f"no training image has {filter_in_words(without)} at once: nothing would be left out"
        )
    if images >= population:
        raise NothingLeftError(
            f"all {population:,} training images match {filter_in_words(without)}: without them "
            "none is left to attribute to"
        )
    return LeftOut(images, population - images, conditions)
