"""How wide the graph must be searched on this collection, measured when it is built.

How many candidates give a recall depends on the collection: clustered features are found with 128,
features spread evenly over many dimensions need thousands. So `build` asks for the neighbours of
some stored points exactly and through the graph, and keeps the first width that finds enough.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["NEIGHBOURS", "QUERIES", "Tuning", "read_tuning", "tune", "write_tuning"]

QUERIES = 48
"""Stored points whose neighbours are asked for: the first of the uniform sample."""

NEIGHBOURS = 50

_WANTED = 0.998
"""Above the 0.99 that is promised: a generated image is less like any stored point than those are
like each other, and its recall lower."""

_LARGEST = 4096
_CHANGED = 0.1  # share of points that may come or go before it is measured again

_FILE = "tuning.json"


@dataclass(frozen=True)
class Tuning:
    """What was measured.

    Attributes:
        ef: candidates while the graph is searched.
        recall: share of the true `NEIGHBOURS` nearest that it finds with them.
        points: size of the collection when it was measured.
    """

    ef: int
    recall: float
    points: int

    def holds_for(self, points: int) -> bool:
        """Whether the collection is still about the one that was measured."""
        return abs(points - self.points) <= _CHANGED * self.points


def tune(
    floor: int,
    points: int,
    truth: Sequence[set[bytes]],
    found: Callable[[int], Sequence[set[bytes]]],
) -> Tuning:
    """The least ef (`floor` times a power of two) whose recall suffices, or the largest tried.

    `truth`: ids of each query's nearest, compared exactly; `found(ef)`: the same through the graph.
    """
    ef = floor
    while True:
        hits = sum(len(t & f) for t, f in zip(truth, found(ef), strict=True))
        recall = hits / max(1, sum(len(t) for t in truth))
        if recall >= _WANTED or ef * 2 > _LARGEST:
            return Tuning(ef, round(recall, 4), points)
        ef *= 2


def read_tuning(folder: Path) -> Tuning | None:
    """What was measured last; None where nothing was, or the file does not say."""
    try:
        values = json.loads((folder / _FILE).read_text("utf-8"))
        return Tuning(int(values["ef"]), float(values["recall"]), int(values["points"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_tuning(folder: Path, tuning: Tuning) -> None:
    """Keep it, atomically."""
    temporary = folder / f".{_FILE}.part"
    temporary.write_text(json.dumps(asdict(tuning)) + "\n", "utf-8")
    temporary.replace(folder / _FILE)
