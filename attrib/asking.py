"""What is asked of several images at once, checked the same way wherever they are asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ingest.errors import EmptyQueryError
from search.checks import check_mass

if TYPE_CHECKING:
    from attrib.opened import Queryable

__all__ = ["checked_names"]


def checked_names(
    images: Sequence[Queryable], names: Sequence[str] | None, k: int, mass: float | None
) -> Sequence[str]:
    """(images,) names for the answers: those given, else paths, else numbers.

    Raises:
        EmptyQueryError: no image, or k < 1.
        UsageError: a mass that is no share.
    """
    if not images:
        raise EmptyQueryError("no image given")
    if k < 1:
        raise EmptyQueryError(f"k must be at least 1, not {k}")
    check_mass(mass)
    if names is not None:
        return names
    return [
        str(image) if isinstance(image, str | Path) else f"image {i}"
        for i, image in enumerate(images)
    ]
