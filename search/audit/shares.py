"""Shares: of one generated image, and summed over a gallery by creator, licence or any such field.

Names are taken as they stand: `A. Smith` and `a. smith` are two creators. Whoever knows better
corrects the collection, not the audit.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from math import exp, fsum, log
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ingest.errors import RunError, UsageError
from search.answer import Attribution, Row
from search.audit.main_creator import main_creator
from search.audit.payload_fields import FIELDS, column_of
from search.audit.resampling import Resampled
from search.audit.tables import creators_schema
from search.rows import RecordRows

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["FIELDS", "Shares", "image_statistics", "lines_of"]

_UNKNOWN, _REMAINING = 0, 1
_PENDING = 1 << 18  # lines whose records are sorted into the others together
_UNIT = 1 << 62
"""Shares are summed as whole numbers of 1 / this: exactly, in whatever order."""


def image_statistics(answer: Attribution) -> dict[str, Any]:
    """Columns of images.parquet that follow from the rows of one answer.

    ``sources``, ``entropy`` (nats; rows and the remaining influence), ``effective_sources``
    (its exponential), ``top_id``, ``top_key``, ``top_creator`` (the first known one among equal
    records), ``top_influence``, ``top_similarity`` (None without rows), ``main_creator`` and
    ``main_creator_share`` (the known creator with the largest share; ties by name).
    """
    shares = [*_influences(answer.rows), answer.remaining]
    entropy = max(-fsum([share * log(share) for share in shares if share > 0]), 0.0)
    top = answer.rows[0] if answer.rows else None
    main, main_share = main_creator(answer.rows)
    return {
        "sources": len(answer.rows),
        "entropy": entropy,
        "effective_sources": exp(entropy),
        "top_id": top.owners[0].id if top else "",
        "top_key": top.owners[0].key if top else "",
        "top_creator": next(filter(None, top.creators), "") if top else "",
        "top_influence": top.influence if top else 0.0,
        "top_similarity": top.similarity if top else None,
        "main_creator": main,
        "main_creator_share": main_share,
    }


def _influences(rows: Sequence[Row]) -> list[float]:
    if isinstance(rows, RecordRows):
        shares: list[float] = rows.influences.tolist()
        return shares
    return [row.influence for row in rows]


def lines_of(image_key: str, answer: Attribution) -> list[dict[str, Any]]:
    """Lines of attributions.parquet of one generated image, a line a training record.

    Equal records share their image's influence, and its interval, evenly. The lines and the
    answer's remaining influence sum to 1 within 1e-9.
    """
    return [
        line for row in answer.rows for line in _lines_of_row(image_key, row, str(answer.method))
    ]


def _lines_of_row(image_key: str, row: Row, method: str) -> list[dict[str, Any]]:
    records = len(row.owners)
    return [
        {
            "image": image_key,
            "rank": row.rank,
            "training_id": owner.id,
            "training_key": owner.key,
            "dataset": owner.dataset,
            "creator": owner.creator,
            "licence": owner.licence,
            "url": owner.url,
            "path": owner.path,
            "caption": owner.caption,
            "sha256": row.sha256,
            "similarity": row.similarity,
            "influence": row.influence / records,
            "influence_low": row.interval[0] / records,
            "influence_high": row.interval[1] / records,
            "method": method,
        }
        for owner in row.owners
    ]


class Shares:
    """Shares over the gallery, by some fields; fed part by part, in order of the gallery.

    The bytes of `table` do not depend on how the gallery is cut into parts. Memory: see
    `search.audit.resampling`, and 8 bytes a field and 8 more for each training record that occurs.

    Args:
        fields: those of `FIELDS`, and any other that the lines have a column for, see
            `search.audit.payload_fields`.
        seed: of the bootstrap.

    Raises:
        UsageError: a field that is named twice.
    """

    def __init__(self, fields: Sequence[str], seed: int) -> None:
        if len(set(fields)) < len(fields):
            raise UsageError(f"the same field twice: {', '.join(fields)}")
        self._fields = {field: _Field(seed) for field in fields}
        self._records = np.zeros((0, 1 + len(fields)), np.int64)  # id's hash, codes by field
        self._pending: list[NDArray[np.int64]] = []

    def add(self, attributions: pa.Table, images: pa.Table) -> None:
        """The next images, whole, with their lines.

        Args:
            attributions: by `attributions_schema`, lines of these images alone.
            images: by `images_schema`.

        Raises:
            RunError: a line of an image that is not among `images`; no column of a field.
        """
        for field in self._fields:
            if column_of(field) not in attributions.column_names:
                raise RunError(f"the attributions do not tell the {field!r} of training images")
        keys = {key: place for place, key in enumerate(images.column("image").to_pylist())}
        names, name_of = _coded(attributions.column("image"))
        try:
            place = np.array([keys[name] for name in names], np.int64)[name_of]
        except KeyError as exc:
            raise RunError(f"attributions of an image that is not listed: {exc.args[0]}") from exc
        remaining = _whole(images.column("remaining"))
        influence = _whole(attributions.column("influence"))
        first = attributions.column("rank").to_numpy() == 1
        codes = []
        for field, summed in self._fields.items():
            code = summed.codes(attributions.column(column_of(field)))
            summed.add(code, place, influence, first, remaining)
            codes.append(code)
        if len(place):
            records = np.column_stack([_hashes(attributions.column("training_id")), *codes])
            self._pending.append(records)
            if sum(map(len, self._pending)) > max(_PENDING, len(self._records)):
                self._merge()

    def _merge(self) -> None:
        self._records = _distinct(np.concatenate([self._records, *self._pending]))
        self._pending.clear()

    def table(self) -> pa.Table:
        """By `creators_schema`; ties in order of kind and value. Empty without images."""
        import pyarrow as pa

        self._merge()
        lines: list[dict[str, Any]] = []
        for number, (field, summed) in enumerate(self._fields.items(), start=1):
            records = _distinct(self._records[:, [0, number]])[:, 1]
            lines += summed.lines(field, np.bincount(records))
        return pa.Table.from_pylist(lines, schema=creators_schema())


class _Field:
    """Sums by one field. Code 0 is unknown, 1 the remaining influence, then come the values."""

    def __init__(self, seed: int) -> None:
        self._code = {"": _UNKNOWN}
        self._totals = [0, 0]
        self._images = [0, 0]
        self._top_of = [0, 0]
        self._gallery = 0
        self._resampled = Resampled(seed)

    def codes(self, column: pa.ChunkedArray) -> NDArray[np.int64]:
        """(lines,) codes of values."""
        values, value_of = _coded(column)
        found = []
        for value in values:
            code = self._code.get(value)
            if code is None:
                code = self._code[value] = len(self._totals)
                for counts in (self._totals, self._images, self._top_of):
                    counts.append(0)
            found.append(code)
        return np.array(found, np.int64)[value_of]

    def add(
        self,
        codes: NDArray[np.int64],
        place: NDArray[np.int64],
        influence: NDArray[np.int64],
        first: NDArray[np.bool_],
        remaining: NDArray[np.int64],
    ) -> None:
        """`codes`, `place`, `influence`, `first`: (lines,); `remaining`: (images,)."""
        count, values = len(remaining), len(self._totals)
        pairs = np.concatenate(
            [place * values + codes, np.arange(count) * values + _REMAINING]
        )  # (lines + images,)
        found, inverse = np.unique(pairs, return_inverse=True)
        sums = np.zeros(len(found), np.int64)
        np.add.at(sums, inverse, np.concatenate([influence, remaining]))
        found, sums = found[sums > 0], sums[sums > 0]
        images, with_share = np.divmod(found, values)
        for code, total in zip(with_share.tolist(), sums.tolist(), strict=True):
            self._totals[code] += total
            self._images[code] += 1
        for pair in np.unique(pairs[: len(place)][first]).tolist():
            self._top_of[pair % values] += 1
        self._resampled.add(with_share, images, sums / float(_UNIT), count)
        self._gallery += count

    def lines(self, field: str, records: NDArray[np.int64]) -> list[dict[str, Any]]:
        """`records`: training records by code, as far as there are any."""
        if not self._gallery:
            return []
        names = ["", ""] + [value for value in self._code if value]
        intervals = self._resampled.intervals(len(names)).tolist()
        kinds = ["unknown", "remaining", *["known"] * (len(names) - 2)]
        order = sorted(
            range(len(names)), key=lambda code: (-self._totals[code], kinds[code], names[code])
        )
        found = []
        for code in order:
            share = self._totals[code] / (_UNIT * self._gallery)
            low, high = intervals[code]
            found.append(
                {
                    "field": field,
                    "kind": kinds[code],
                    "value": names[code],
                    "share": share,
                    "share_low": None if np.isnan(low) else min(low, share),
                    "share_high": None if np.isnan(high) else max(high, share),
                    "images": self._images[code],
                    "top_of": self._top_of[code],
                    "training_images": int(records[code]) if code < len(records) else 0,
                }
            )
        return found


def _whole(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """(lines,) shares in units."""
    shares: NDArray[np.float64] = column.to_numpy()
    return np.rint(shares * float(_UNIT)).astype(np.int64)


def _hashes(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """(lines,) 64 bits of the SHA-256 of each id: of 10 million, two are alike once in 370,000."""
    names, name_of = _coded(column)
    digests = (sha256(name.encode()).digest() for name in names)
    found = np.frombuffer(b"".join(digest[:8] for digest in digests), "<i8").astype(np.int64)
    return found[name_of]


def _coded(column: pa.ChunkedArray) -> tuple[list[str], NDArray[np.int64]]:
    """The different texts of a column, '' for null, and (lines,) which of them each line has."""
    import pyarrow as pa

    whole = column.combine_chunks()
    coded = (whole.fill_null("") if whole.null_count else whole).dictionary_encode()
    places = coded.indices.to_numpy().astype(np.int64)
    # Of a table that was filtered, a dictionary holds texts that no line has.
    occurs = np.bincount(places, minlength=len(coded.dictionary)) > 0
    texts = coded.dictionary.filter(pa.array(occurs)).to_pylist()
    return texts, (np.cumsum(occurs) - 1)[places]


def _distinct(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """(rows, columns) each different row once, sorted."""
    rows = rows[np.lexsort(rows.T)]
    new = np.ones(len(rows), np.bool_)
    new[1:] = (rows[1:] != rows[:-1]).any(axis=1)
    return rows[new]
