"""Lines, statistics and candidates from answers that are arrays: those from rows, bit by bit."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from brute_index import CALIBRATORS, BruteIndex, ask, fill, unit
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from search.answer import Attribution, Row
from search.attribution import Attributor
from search.audit.lines import lines_schema, lines_table
from search.audit.main_creator import main_creator
from search.audit.near_copy import NearCopy
from search.audit.parts import FINGERPRINT, LINES, PartsFolder, PartWriter
from search.audit.settings import AuditSettings
from search.audit.shares import image_statistics, lines_of
from search.audit.tables import attributions_schema, images_schema
from search.index import Payload
from search.records import Records
from search.rows import RecordRows


def answers(index: Any, queries: int, **asked: Any) -> list[Attribution]:
    """Of arrays, one a query."""
    one = Attributor(index, "m", "f", CALIBRATORS[1], records=Records(index))
    found = one.attribute(ask(queries), ["q"] * queries, **asked)
    assert all(isinstance(answer.rows, RecordRows) for answer in found)
    return found


def as_rows(answer: Attribution) -> Attribution:
    return replace(answer, rows=tuple(answer.rows))


@pytest.fixture(scope="module")
def index() -> BruteIndex:
    """300 records, some equal, some without a hash, of three creators and unknown ones."""
    made = BruteIndex()
    fill(made)
    return made


@pytest.mark.parametrize("asked", [{}, {"k": 1000, "mass": 0.9}, {"k": 1}])
def test_lines_are_those_of_the_rows(index: BruteIndex, asked: dict[str, Any]) -> None:
    found = answers(index, 6, **asked)
    # One answer was had another way: the column of methods is of each image, not of the batch.
    found[2] = replace(found[2], method="estimated")
    keys = [f"ключ {number}" for number in range(6)]
    table, counts = lines_table(keys, found)
    assert table.schema == lines_schema()
    expected = [lines_of(key, as_rows(answer)) for key, answer in zip(keys, found, strict=True)]
    assert counts == [len(lines) for lines in expected]
    plain = pa.Table.from_pylist(
        [line for lines in expected for line in lines], schema=attributions_schema()
    )
    assert table.cast(attributions_schema()).equals(plain)
    by_rows, same_counts = lines_table(keys, [as_rows(answer) for answer in found])
    assert by_rows.schema == lines_schema()
    assert by_rows.cast(attributions_schema()).equals(plain)
    mixed, _ = lines_table(keys, [as_rows(found[0]), *found[1:]])
    assert mixed.cast(attributions_schema()).equals(plain)
    assert same_counts == counts
    for name in table.schema.names:
        if pa.types.is_dictionary(table.schema.field(name).type):
            (chunk,) = table.column(name).chunks
            values = chunk.dictionary.to_pylist()
            assert len(set(values)) == len(values)
            assert set(values) == set(plain.column(name).to_pylist())


def test_a_batch_without_any_line() -> None:
    table, counts = lines_table([], [])
    assert table.schema == lines_schema()
    assert (table.num_rows, counts) == (0, [])


def test_lines_come_back_from_a_part(index: BruteIndex, tmp_path: Any) -> None:
    found = answers(index, 4, mass=0.8)
    keys = list("abcd")
    parts = PartsFolder(tmp_path / "parts")
    writer = PartWriter(parts, 0)
    expected = []
    for start in (0, 2):
        some, batch = keys[start : start + 2], found[start : start + 2]
        table, counts = lines_table(some, batch)
        rows = [dict.fromkeys(images_schema().names) for _ in some]
        for row, key, count in zip(rows, some, counts, strict=True):
            row.update({"image": key, FINGERPRINT: b"", LINES: count})
        writer.add(rows, table, [b""] * 2)
        expected.append(table)
    writer.finish()
    pieces = [piece.attributions for piece in parts.pieces()]
    assert [piece.schema for piece in pieces] == [lines_schema()] * 2
    for piece, table in zip(pieces, expected, strict=True):
        assert piece.cast(attributions_schema()).equals(table.cast(attributions_schema()))


@settings(max_examples=60, deadline=None)
@given(
    creators=st.lists(st.sampled_from(["", "A", "B", "C", "D", "E"]), min_size=1, max_size=40),
    copies=st.integers(1, 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_statistics_are_those_of_the_rows(creators: list[str], copies: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    index = BruteIndex()
    vectors = unit(random.normal(size=(len(creators), index.dim)))
    if seed % 3 == 0:
        vectors[:] = vectors[0]  # equal shares: creators tie
    payloads: list[Payload] = [
        {"key": str(place), "creator": creator, "sha256": f"hash {place // copies}"}
        for place, creator in enumerate(creators)
    ]
    ids = [uuid.UUID(bytes=random.bytes(16)) for _ in creators]
    index.upsert(ids, vectors, payloads)
    for answer in answers(index, 3, k=30):
        rows = as_rows(answer)
        assert image_statistics(answer) == image_statistics(rows)
        assert main_creator(answer.rows) == main_creator(rows.rows)


def test_no_creator_is_known() -> None:
    index = BruteIndex(2)
    index.upsert([uuid.UUID(int=1)], np.array([[1, 0]], np.float32), [{"key": "a"}])
    one = Attributor(index, "m", "f", CALIBRATORS[1], records=Records(index))  # type: ignore[arg-type]
    (answer,) = one.attribute(np.array([[1, 0]], np.float32), ["q"])
    assert main_creator(answer.rows) == ("", 0.0)
    assert main_creator(()) == ("", 0.0)


def looked_at(answer: Attribution, least: float | None) -> list[str]:
    """Ids of the training images whose pictures are asked for, in order."""
    asked: list[list[str]] = []

    def thumbnails(ids: Sequence[str]) -> list[bytes | None]:
        asked.append(list(ids))
        return [None] * len(ids)

    chosen = AuditSettings()
    chosen = replace(chosen, thresholds=replace(chosen.thresholds, look_from=least))
    NearCopy(chosen, thumbnails).check_many([Image.new("RGB", (8, 8))], [answer])
    return asked[0] if asked else []  # what comes after are their other records


def most_similar(rows: Sequence[Row], least: float | None) -> list[str]:
    """The ten most similar rows, the first come first among equals: by the shortest code."""
    near = [row for row in rows if least is None or row.similarity >= least]
    near.sort(key=lambda row: -row.similarity)
    return [row.owners[0].id for row in near[:10]]


def test_the_most_similar_are_looked_at(index: BruteIndex) -> None:
    """An image of many records is not first for being similar, and not looked at for that."""
    for answer in answers(index, 12, k=1000):
        rows = as_rows(answer)
        tenth = sorted(row.similarity for row in rows.rows)[-10]
        for least in (None, tenth, float(np.nextafter(tenth, 1)), 1.0):
            expected = most_similar(rows.rows, least)
            assert looked_at(answer, least) == expected
            assert looked_at(rows, least) == expected
        assert len(most_similar(rows.rows, tenth)) == 10
