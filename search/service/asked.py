"""One query on its way through the engine: what is wanted, what is asked, what was found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from search.answer import Attribution
from search.service.query_picture import QueryPicture

__all__ = ["Asked", "Filter", "Found", "QueryImage", "Wanted"]

Filter: TypeAlias = tuple[tuple[str, tuple[str, ...]], ...]
"""Fields and their values, as `search.index.Where`, to be compared."""


@dataclass(frozen=True)
class Wanted:
    """What an answer is to contain."""

    k: int = 50
    mass: float | None = None
    where: Filter = ()
    without: Filter = ()
    group_by: str = ""
    exact: bool = False


@dataclass(frozen=True)
class Asked:
    """One query that is ready for the index. features: (dim,)."""

    features: NDArray[np.float32]
    name: str
    wanted: Wanted


@dataclass(frozen=True)
class Found:
    """The answer to one query, and what it was found in.

    Attributes:
        attribution: the answer.
        collection: name of the collection.
        contents: see `search.service.contents`.
    """

    attribution: Attribution
    collection: str
    contents: str


@dataclass(frozen=True)
class QueryImage:
    """A generated image after decoding.

    Attributes:
        pixels: uint8 (crop, crop, 3), as the backbone takes it.
        digest: SHA-256 of its file.
        picture: to look at behind a link.
    """

    pixels: NDArray[np.uint8]
    digest: bytes
    picture: QueryPicture
