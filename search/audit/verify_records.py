"""Whether the collection says of the training images what an audit says of them.

Whoever is paid is named in the table of attributions. Each different record there is looked up by
its id: nothing has to be embedded for that.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from ingest.errors import RunError
from search.audit.check import Check
from search.audit.finished import line_fields
from search.audit.payload_fields import FIELDS, column_of, further_columns, value_text
from search.audit.tables import ATTRIBUTIONS
from search.audit.verify_values import short
from search.records import COLUMNS, OWNER_FIELDS, key_of, text_of

if TYPE_CHECKING:
    import pyarrow as pa

    from search.index import Index, Payload

__all__ = ["ALTERED", "check_records", "other_record"]

ALTERED = "altered, or corrected in the collection since"

_FIELDS = ["key", *OWNER_FIELDS, "sha256"]
_LINES = 1 << 16
_AT_ONCE = 1000
_NAMED = 20  # records that are named


def other_record(told: Mapping[str, Any], now: Mapping[str, str]) -> str:
    """How a training record of an audit differs from the collection's; '' where it does not.

    Args:
        told: a line of attributions.parquet.
        now: the same columns, and more of them, as the collection gives them.
    """
    for name in (*COLUMNS, *map(column_of, further_columns(now))):
        if name == "path" and "" in (told[name], now[name]):
            continue  # a service tells absolute ones to few
        if told[name] != now[name]:
            (column,) = further_columns([name]) or (name.replace("_", " "),)
            return (
                f"the collection names {short(now[name])} as {column} of {now['training_key']}, "
                f"the audit {short(told[name])}"
            )
    return ""


def check_records(out: Path, index: Index, changed: str) -> Check:
    """Look up every training record that an audit names. Memory: 8 bytes a record.

    Args:
        out: the audit's folder.
        index: of the collection.
        changed: why records that are not there prove nothing; '' where all should be there.

    Raises:
        RunError: the index fails, or the table is damaged.
    """
    count, other, gone = 0, 0, 0
    lines: list[str] = []
    further = line_fields(out)[len(FIELDS) :]
    for records in _distinct(out, further):
        payloads = _fetched(index, records, None if further else _FIELDS)
        for told, payload in zip(records, payloads, strict=True):
            count += 1
            if payload is None:
                gone += 1
                fault = f"{told['training_key']} ({told['training_id']}) is not in the collection"
            else:
                fault = other_record(told, _columns(str(told["training_id"]), payload, further))
                other += bool(fault)
            if fault and len(lines) < _NAMED:
                lines.append(fault)
    more = other + gone - len(lines)
    named = (*lines, *([f"and {more:,} more"] if more else []))
    if other or (gone and not changed):
        words = f"of {count:,} training records {other:,} are others in the collection ({ALTERED})"
        if gone:
            words += f"; {gone:,} are not in it"
        return Check("records", "fails", words, named)
    if gone:
        words = f"of {count:,} training records {gone:,} are not in the collection: {changed}"
        return Check("records", "not checked", words, named)
    words = f"{count:,} training records are in the collection as the audit names them"
    return Check("records", "holds", words)


def _fetched(
    index: Index, records: list[dict[str, Any]], fields: Sequence[str] | None
) -> list[Payload | None]:
    ids = [_uuid(told["training_id"]) for told in records]
    found = iter(index.fetch([one for one in ids if one is not None], fields=fields))
    return [None if one is None else next(found) for one in ids]


def _columns(point_id: str, payload: Payload, further: Sequence[str]) -> dict[str, str]:
    return {
        "training_id": point_id,
        "training_key": key_of(point_id, payload),
        **{name: text_of(payload, name) for name in (*OWNER_FIELDS, "sha256")},
        **{column_of(name): value_text(payload.get(name)) for name in further},
    }


def _uuid(text: object) -> UUID | None:
    """The id of a point; None where that is not how one is written."""
    try:
        found = UUID(str(text))
    except ValueError:
        return None
    return found if str(found) == text else None


def _distinct(out: Path, further: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
    """The different training records of a table of attributions, some at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    key = os.urandom(16)  # so that nobody can make one record pass for another
    seen = np.empty(0, np.uint64)
    waiting: list[dict[str, Any]] = []
    columns = [*COLUMNS, *map(column_of, further)]
    try:
        with pq.ParquetFile(out / ATTRIBUTIONS, read_dictionary=columns) as file:
            for batch in file.iter_batches(_LINES, columns=columns):
                records = batch.take(_firsts(batch)).to_pylist()
                hashes = np.array([_hash(record, key) for record in records], np.uint64)
                new = np.flatnonzero(~np.isin(hashes, seen, assume_unique=True))
                seen = np.union1d(seen, hashes[new])
                waiting += [records[place] for place in new.tolist()]
                while len(waiting) >= _AT_ONCE:
                    yield waiting[:_AT_ONCE]
                    del waiting[:_AT_ONCE]
    except (OSError, pa.ArrowException) as exc:
        first = str(exc).partition("\n")[0]
        raise RunError(f"{out / ATTRIBUTIONS} is damaged: {first}") from exc
    if waiting:
        yield waiting


def _firsts(batch: pa.RecordBatch) -> NDArray[np.int64]:
    """Places of the first line of each different record."""
    code = np.zeros(batch.num_rows, np.int64)
    for column in batch.columns:
        codes = column.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        # Numbered anew after each column, so that the product stays small.
        _, code = np.unique(code * (len(column.dictionary) + 1) + codes, return_inverse=True)
    _, first = np.unique(code, return_index=True)
    return np.sort(first)


def _hash(record: Mapping[str, Any], key: bytes) -> int:
    text = repr(list(record.values())).encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=8, key=key).digest(), "big")
