"""Rows of an answer: made at once from payloads, or only as far as they are looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from search.answer import Interval, Owner, Row
from search.calibration import Normaliser
from search.fold import Fold, PayloadReader
from search.fold_arrays import Folded
from search.index import Payload
from search.records import OWNER_FIELDS, Records, key_of, text_of
from search.support import Support

__all__ = ["RecordRows", "rows_of", "share_of"]


def rows_of(
    source: Support, folds: Sequence[Fold], reader: PayloadReader, total: Normaliser
) -> tuple[Row, ...]:
    """One `Row` a fold; what of their payloads was not read yet is read."""
    payloads = reader.read([place for fold in folds for place in fold.places])
    return tuple(
        _row(
            rank,
            float(source.similarities[fold.places[0]]),
            fold.weight / total.value,
            share_of(fold.weight, total),
            [(str(source.ids[place]), payloads[place]) for place in fold.places],
        )
        for rank, fold in enumerate(folds, start=1)
    )


def share_of(weight: float, total: Normaliser) -> Interval:
    """95 % interval of weight / Z, within 0..1."""
    return min(weight / total.high, 1.0), min(weight / total.low, 1.0)


@dataclass(frozen=True, eq=False)
class RecordRows(Sequence[Row]):
    """Rows as arrays; a `Row` is made when it is looked at. Equal to the same rows in a tuple.

    Attributes:
        records: what the numbers are of.
        numbers: (lines,) of the training records, those of the first row first.
        counts: (rows,) records of each row, at least 1.
        similarities: (rows,) as `Row.similarity`.
        influences: (rows,) as `Row.influence`.
        lows, highs: (rows,) as `Row.interval`.
    """

    records: Records
    numbers: NDArray[np.int64]
    counts: NDArray[np.int64]
    similarities: NDArray[np.float64]
    influences: NDArray[np.float64]
    lows: NDArray[np.float64]
    highs: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        records: Records,
        numbers: NDArray[np.int64],
        similarities: NDArray[np.float32],
        folded: Folded,
        total: Normaliser,
    ) -> RecordRows:
        """`numbers`, `similarities`: (hits,) of the support that was folded."""
        first = folded.places[folded.starts[:-1]]
        return cls(
            records=records,
            numbers=numbers[folded.places],
            counts=np.diff(folded.starts),
            similarities=similarities[first].astype(np.float64),
            influences=folded.weights / total.value,
            lows=np.minimum(folded.weights / total.high, 1.0),
            highs=np.minimum(folded.weights / total.low, 1.0),
        )

    def __len__(self) -> int:
        return len(self.counts)

    @overload
    def __getitem__(self, place: int) -> Row: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[Row, ...]: ...

    def __getitem__(self, place: int | slice) -> Row | tuple[Row, ...]:
        if isinstance(place, slice):
            return tuple(self._made(one) for one in range(*place.indices(len(self))))
        return self._made(range(len(self))[place])

    def __iter__(self) -> Iterator[Row]:
        return map(self._made, range(len(self)))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, tuple | RecordRows):
            return tuple(self) == tuple(other)
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]  # as a row's, which has a payload

    def _made(self, place: int) -> Row:
        stop = int(self.counts[: place + 1].sum())
        numbers = self.numbers[stop - int(self.counts[place]) : stop].tolist()
        return _row(
            place + 1,
            float(self.similarities[place]),
            float(self.influences[place]),
            (float(self.lows[place]), float(self.highs[place])),
            [(self.records.ids[number], self.records.payloads[number]) for number in numbers],
        )


def _row(
    rank: int,
    similarity: float,
    influence: float,
    interval: Interval,
    records: Sequence[tuple[str, Payload]],
) -> Row:
    """`records`: (id, payload) of each."""
    first = records[0][1]
    return Row(
        rank=rank,
        similarity=similarity,
        influence=influence,
        interval=interval,
        owners=tuple(_owner(*record) for record in records),
        sha256=text_of(first, "sha256"),
        width=int(first.get("width") or 0),
        height=int(first.get("height") or 0),
        payload=first,
    )


def _owner(point_id: str, payload: Payload) -> Owner:
    told = [text_of(payload, name) for name in OWNER_FIELDS]
    return Owner(point_id, key_of(point_id, payload), *told)
