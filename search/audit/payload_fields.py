"""Fields of the training images' payloads that the tables have no column for: what `--by` names.

A sidecar's `agency`, say. They are columns of their own in attributions.parquet, so that whoever
sums by them later (verification, payouts, comparisons) needs nothing but the tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from ingest.errors import UsageError
from search.index import Payload

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "FIELDS",
    "NO_FIELDS",
    "Known",
    "PayloadFields",
    "PayloadsOf",
    "check_known",
    "column_of",
    "further_columns",
    "further_fields",
    "known_fields",
    "name_in_tables",
    "value_text",
]

FIELDS = (
    "creator",
    "licence",
    "dataset",
    "url",
    "path",
    "caption",
    "sha256",
    "training_key",
    "training_id",
)
"""What shares can always be summed by: columns of attributions.parquet that tell of a training
image."""

_PREFIX = "payload."
_NAMED = 20  # fields that are named where one is not known

PayloadsOf: TypeAlias = Callable[[Sequence[str]], Sequence[Payload | None]]
"""From ids of training images to their payloads, None where one is gone."""


def name_in_tables(field: str) -> str:
    """A field under the name that the tables have it by: the index calls `training_key` `key`."""
    return "training_key" if field == "key" else field


def column_of(field: str) -> str:
    """The column of attributions.parquet that has a field."""
    return field if field in FIELDS else _PREFIX + field


def further_fields(fields: Iterable[str]) -> tuple[str, ...]:
    """Those that need a column of their own."""
    return tuple(field for field in fields if field not in FIELDS)


def further_columns(names: Iterable[str]) -> tuple[str, ...]:
    """Of columns of attributions.parquet, the fields that have one of their own."""
    return tuple(name.removeprefix(_PREFIX) for name in names if name.startswith(_PREFIX))


def value_text(value: object) -> str:
    """A payload's value as text, '' where there is none; as groups of a query have it."""
    return "" if value is None else str(value)


@dataclass(frozen=True)
class PayloadFields:
    """Adds columns to lines of the table of attributions.

    Attributes:
        names: of the fields.
        payloads: where they are read.
    """

    names: tuple[str, ...]
    payloads: PayloadsOf

    def added(self, lines: pa.Table) -> pa.Table:
        """`lines` (by `search.audit.lines.lines_schema`) with a column for each field."""
        import pyarrow as pa

        if not self.names:
            return lines
        whole = lines.column("training_id").combine_chunks()
        ids: list[str] = whole.dictionary.to_pylist()
        payloads = self.payloads(ids)
        of_line = whole.indices.to_numpy(zero_copy_only=False)  # (lines,) places in ids
        for name in self.names:
            texts = [value_text((payload or {}).get(name)) for payload in payloads]
            values = {text: place for place, text in enumerate(dict.fromkeys(texts))}
            codes = np.array([values[text] for text in texts], np.int32)[of_line]
            column = pa.DictionaryArray.from_arrays(
                pa.array(codes, pa.int32()), pa.array(list(values), pa.string())
            )
            lines = lines.append_column(column_of(name), column)
        return lines


def _none(ids: Sequence[str]) -> Sequence[Payload | None]:
    return [None] * len(ids)


NO_FIELDS = PayloadFields((), _none)


@dataclass(frozen=True)
class Known:
    """What is known of the fields of a collection.

    Attributes:
        missing: those asked for that no training image has a value of.
        others: fields that training images do have; () where that cannot be told.
        looked_at: so many training images were looked at; None where all were.
    """

    missing: tuple[str, ...]
    others: tuple[str, ...] = ()
    looked_at: int | None = None


def known_fields(names: Sequence[str], batches: Iterable[Sequence[Payload | None]]) -> Known:
    """Go through payloads until each field was found; what the first batch has is told."""
    missing, others = set(names), set[str]()
    for number, batch in enumerate(batches):
        for payload in batch:
            missing -= {name for name in missing if value_text((payload or {}).get(name))}
            if number == 0:
                others |= {name for name, value in (payload or {}).items() if value_text(value)}
        if not missing:
            break
    return Known(tuple(name for name in names if name in missing), tuple(sorted(others)))


def check_known(fields: Sequence[str], known: Callable[[Sequence[str]], Known]) -> None:
    """Refuse fields that there is nothing to sum by.

    Raises:
        UsageError: no training image has one of them.
    """
    wanted = further_fields(fields)
    if not wanted:
        return
    found = known(wanted)
    if not found.missing:
        return
    who = "no training image has"
    if found.looked_at is not None:
        who = f"none of the {found.looked_at:,} training images of an answer has"
    names = " or ".join(map(repr, found.missing))
    told = ", ".join(found.others[:_NAMED])
    there = f": there are {told}" if told else ""
    raise UsageError(f"cannot sum by {names}: {who} such a field{there}")
