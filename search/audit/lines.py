"""The lines of a batch of answers in the table of attributions.

The texts of training images are many times the same: here they are dictionaries and numbers, as
they are taken from `search.records.Records` and as Parquet keeps them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from search.answer import Attribution
from search.audit.shares import lines_of
from search.audit.tables import attributions_schema
from search.records import COLUMNS, Records
from search.rows import RecordRows

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["lines_schema", "lines_table"]


@cache
def lines_schema(further: tuple[str, ...] = ()) -> pa.Schema:
    """That of the table of attributions, with dictionaries for its texts; see there."""
    import pyarrow as pa

    text = pa.dictionary(pa.int32(), pa.string())
    fields = attributions_schema(further)
    return pa.schema([(f.name, text if f.type == pa.string() else f.type) for f in fields])


def lines_table(keys: Sequence[str], answers: Sequence[Attribution]) -> tuple[pa.Table, list[int]]:
    """The lines, by `lines_schema`, and how many each answer has.

    Args:
        keys: (answers,) of the generated images.
        answers: those whose rows are `RecordRows` are taken as arrays, if all are.
    """
    import pyarrow as pa

    rows = [answer.rows for answer in answers if isinstance(answer.rows, RecordRows)]
    if rows and len(rows) == len(answers) and len({id(one.records) for one in rows}) == 1:
        methods = [str(answer.method) for answer in answers]
        return _of_arrays(keys, rows, methods), [len(one.numbers) for one in rows]
    lines = [lines_of(key, answer) for key, answer in zip(keys, answers, strict=True)]
    table = pa.Table.from_pylist(
        [line for some in lines for line in some], schema=attributions_schema()
    )
    return table.cast(lines_schema()), [len(some) for some in lines]


def _of_arrays(keys: Sequence[str], rows: Sequence[RecordRows], methods: Sequence[str]) -> pa.Table:
    import pyarrow as pa

    numbers = np.concatenate([one.numbers for one in rows])  # (lines,)
    records = np.concatenate([one.counts for one in rows])  # (rows,) of each row
    of_row = np.repeat(np.arange(len(records)), records)
    of_image = np.repeat(np.arange(len(rows)), [len(one.numbers) for one in rows])
    ranks = np.concatenate([np.arange(1, len(one) + 1, dtype=np.int32) for one in rows])

    def shared(name: str) -> NDArray[np.float64]:
        """Equal records share evenly."""
        of_rows = np.concatenate([getattr(one, name) for one in rows])
        shares: NDArray[np.float64] = (of_rows / records)[of_row]
        return shares

    columns: dict[str, Any] = {
        "image": _texts(of_image, keys),
        "rank": ranks[of_row],
        "similarity": np.concatenate([one.similarities for one in rows])[of_row],
        "influence": shared("influences"),
        "influence_low": shared("lows"),
        "influence_high": shared("highs"),
        "method": _texts(*_coded(of_image, methods)),
        **{name: _column(rows[0].records, name, numbers) for name in COLUMNS},
    }
    schema = lines_schema()
    return pa.table([columns[name] for name in schema.names], schema=schema)


def _column(records: Records, name: str, numbers: NDArray[np.int64]) -> pa.DictionaryArray:
    return _texts(records.codes(name)[numbers], records.values(name))


def _coded(
    places: NDArray[np.int64], texts: Sequence[str]
) -> tuple[NDArray[np.int64], Sequence[str]]:
    """The same, each different text once: a dictionary holds none twice."""
    values = list(dict.fromkeys(texts))
    return np.array([values.index(text) for text in texts], np.int64)[places], values


def _texts(codes: NDArray[np.int64], values: Sequence[str]) -> pa.DictionaryArray:
    """Of `values`, all different, only those that occur."""
    import pyarrow as pa

    occurs = np.zeros(len(values), np.bool_)
    occurs[codes] = True
    used = np.flatnonzero(occurs).tolist()
    place = np.cumsum(occurs, dtype=np.int32) - 1
    dictionary = pa.array([values[code] for code in used], pa.string())
    return pa.DictionaryArray.from_arrays(pa.array(place[codes], pa.int32()), dictionary)
