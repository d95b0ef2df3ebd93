"""Two audits compared: what differs in what they are of, and how far shares moved.

Intervals are of the paired bootstrap: the images that both have are resampled together, so that
what makes an image hard or easy for both does not widen the interval of the difference.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from heapq import nsmallest
from math import fsum
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from ingest.errors import RunError, UsageError
from search.audit.diff_images import CompareImages, Image
from search.audit.diff_words import differences
from search.audit.finished import line_fields, read_summary
from search.audit.manifest import check_file, read_manifest
from search.audit.payload_fields import name_in_tables
from search.audit.resampling import SEED, Resampled
from search.audit.tables import ATTRIBUTIONS, CREATORS, IMAGES, REJECTS, SUMMARY

__all__ = ["AuditDiff", "Moved", "Mover", "diff"]

_ENOUGH = 6  # images
_TABLES = (ATTRIBUTIONS, IMAGES, CREATORS, REJECTS, SUMMARY)
_UNIT = 1 << 62  # shares are summed as whole numbers of 1 / this

Value: TypeAlias = tuple[str, str]
"""Kind (known, unknown, remaining) and name."""


@dataclass(frozen=True)
class Moved:
    """How far the share of one value moved, over the images that both audits have.

    Attributes:
        kind: known, unknown or remaining.
        value: '' unless kind is known.
        before, after: mean shares in the first and the second audit.
        change: after - before.
        low, high: its 95 % interval, paired over images; None with fewer than 2 images.
        sure: 0 lies outside of the interval, of 6 images or more. Of fewer, all lie on one side of
            the truth by chance once in 2^(n - 1), and then so does every resample.
    """

    kind: str
    value: str
    before: float
    after: float
    change: float
    low: float | None
    high: float | None
    sure: bool


@dataclass(frozen=True)
class Mover:
    """An image whose influence moved.

    Attributes:
        image: its key.
        distance: total variation distance of its shares by source, 0..1; what remains is one
            source more.
        before, after: keys of the top training images, '' without one.
    """

    image: str
    distance: float
    before: str
    after: str


@dataclass(frozen=True)
class AuditDiff:
    """What came of comparing.

    Attributes:
        words: what differs in gallery, model, collection and settings, a sentence each.
        field: that shares are compared by.
        common: images that both audits have, by key and file.
        changed: keys that both have, with another file; they are not compared.
        only_a, only_b: images that one alone has.
        named_a, named_b: the first of them.
        moved: values, the largest change first.
        mean_distance: over the common images.
        movers: common images, the largest distance first.
    """

    words: tuple[str, ...]
    field: str
    common: int
    changed: int
    only_a: int
    only_b: int
    named_a: tuple[str, ...]
    named_b: tuple[str, ...]
    moved: tuple[Moved, ...]
    mean_distance: float
    movers: tuple[Mover, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def diff(a: Path, b: Path, *, by: str = "creator", top: int = 20) -> AuditDiff:
    """Compare two audits; `a` is taken as before, `b` as after.

    Args:
        a, b: their folders.
        by: field whose shares are compared, whether the audits summed by it or not.
        top: so many of the images that moved most.

    Raises:
        UsageError: a field that shares cannot be summed by, or `top` below 0.
        RunError: one is no finished audit, or its tables are not those of its manifest.
    """
    by = name_in_tables(by)
    if top < 0:
        raise UsageError(f"--top must be at least 0, not {top}")
    for out in (a, b):
        manifest = read_manifest(out)
        for name in _TABLES:
            if wrong := check_file(out, name, manifest.files[name]):
                raise RunError(
                    f"{out} cannot be compared: {wrong}; see `attrib audit verify {out}`"
                )
    fields = [line_fields(out) for out in (a, b)]
    for out, told in zip((a, b), fields, strict=True):
        if by not in told:
            both = [field for field in fields[0] if field in fields[1]]
            raise UsageError(
                f"shares of {out} cannot be summed by {by!r}, those of both only by "
                f"{', '.join(both)}: `attrib audit --by FIELD` keeps another one"
            )
    words = differences(read_summary(a), read_summary(b))
    summed = _Summed(top)
    with CompareImages(a, b, by) as images:
        for pairs in images.common():
            summed.add(pairs)
        return AuditDiff(
            words=tuple(words),
            field=by,
            common=summed.count,
            changed=images.changed,
            only_a=images.only_a,
            only_b=images.only_b,
            named_a=images.named_a,
            named_b=images.named_b,
            moved=summed.moved(),
            mean_distance=summed.mean_distance(),
            movers=tuple(summed.movers),
        )


class _Summed:
    """Sums over common images, fed in order; exact, as in `search.audit.shares`.

    Attributes:
        count: images.
        movers: the ones that moved most.
    """

    def __init__(self, top: int) -> None:
        self.count = 0
        self.movers: list[Mover] = []
        self._top = top
        self._codes: dict[Value, int] = {}
        self._totals: list[list[int]] = []  # before and after, by code
        self._distance = 0
        self._resampled = Resampled(SEED)

    def add(self, images: list[tuple[str, Image, Image]]) -> None:
        """Some images by their keys, before and after."""
        changes: list[tuple[int, int, float]] = []  # code, place, change
        for place, (key, before, after) in enumerate(images):
            for value in sorted(before.values.keys() | after.values.keys()):
                code = self._codes.setdefault(value, len(self._codes))
                if code == len(self._totals):
                    self._totals.append([0, 0])
                then, now = before.values.get(value, 0.0), after.values.get(value, 0.0)
                self._totals[code][0] += round(then * _UNIT)
                self._totals[code][1] += round(now * _UNIT)
                if then != now:
                    changes.append((code, place, now - then))
            distance = _distance(before, after)
            self._distance += round(distance * _UNIT)
            self.movers.append(Mover(key, distance, before.top, after.top))
        self.movers = nsmallest(
            self._top, self.movers, key=lambda mover: (-mover.distance, mover.image)
        )
        self.count += len(images)
        table = np.array(changes, np.float64).reshape(-1, 3)
        codes, places = table[:, 0].astype(np.int64), table[:, 1].astype(np.int64)
        self._resampled.add(codes, places, table[:, 2], len(images))

    def mean_distance(self) -> float:
        """Over all images; 0 without any."""
        return self._distance / (_UNIT * self.count) if self.count else 0.0

    def moved(self) -> tuple[Moved, ...]:
        """Every value that either audit has; the largest change first, then by kind and name."""
        intervals = self._resampled.intervals(len(self._codes)).tolist()
        whole = _UNIT * self.count
        found = []
        for (kind, value), code in self._codes.items():
            (before, after), (low, high) = self._totals[code], intervals[code]
            change = (after - before) / whole
            known = self.count > 1
            found.append(
                Moved(
                    kind=kind,
                    value=value,
                    before=before / whole,
                    after=after / whole,
                    change=change,
                    low=min(low, change) if known else None,
                    high=max(high, change) if known else None,
                    sure=self.count >= _ENOUGH and (low > 0 or high < 0),
                )
            )
        return tuple(sorted(found, key=lambda one: (-abs(one.change), one.kind, one.value)))


def _distance(before: Image, after: Image) -> float:
    """Total variation distance of two distributions over sources, 0..1."""
    sources = before.sources.keys() | after.sources.keys()
    moved = fsum(
        abs(after.sources.get(source, 0.0) - before.sources.get(source, 0.0)) for source in sources
    )
    return min(moved / 2, 1.0)
