"""Answers where a server's strict mode forbids what they would best be made from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from embed.calibrator import Calibrator
from search.answer import Attribution
from search.attribution import Attributor
from search.index_url import parse_index_url
from search.server import ServerIndex
from search.server_settings import ServerSettings

DIM, N = 16, 400
FLAT = Calibrator(tau=0.5, b=0.0)
CUT = Calibrator(tau=0.02, b=-0.3)


@pytest.fixture
def filled(qdrant: Any) -> Iterator[ServerIndex]:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(N, DIM)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    ids = [UUID(bytes=rng.bytes(16)) for _ in range(N)]
    settings = ServerSettings(sample_size=128, datatype="float32")
    with ServerIndex.create(parse_index_url(qdrant.url(grpc=False)), "c", DIM, settings) as index:
        index.upsert(ids, rows, [{"key": str(i), "creator": f"c{i % 3}"} for i in range(N)])
        yield index


def query() -> Any:
    row = np.random.default_rng(7).normal(size=(1, DIM)).astype(np.float32)
    return row / np.linalg.norm(row)


def ask(index: ServerIndex, calibrator: Calibrator, **options: Any) -> Attribution:
    # Opened anew, as the limits of strict mode are read then.
    with ServerIndex.open(index._calls.url, "c") as again:  # type: ignore[arg-type]
        attributor = Attributor(again, "m", "f", calibrator, head=64)
        return attributor.attribute(query(), ["q"], k=5, **options)[0]


def refused(index: ServerIndex, what: str) -> str:
    return f"because the Qdrant server at {index._calls.url.server} refuses to search: {what}"  # type: ignore[union-attr]


def test_exact_refused_is_estimated_and_says_so(filled: ServerIndex, qdrant: Any) -> None:
    truth = ask(filled, FLAT, exact=True)
    assert (truth.method, truth.note) == ("exact", "")
    qdrant.engine.strict("c", search_allow_exact=False)
    for exact in (True, False):  # so small a collection is compared whole without being told
        answer = ask(filled, FLAT, exact=exact)
        assert [row.key for row in answer.rows] == [row.key for row in truth.rows]
        if answer.note:
            assert answer.method == "estimated"
            what = "Bad request: Exact search disabled. Help: Set exact=false."
            assert answer.note == f"estimated, {refused(filled, what)}"
            low, high = answer.rows[0].interval
            assert low <= truth.rows[0].influence <= high
            assert low < high
        assert bool(answer.note) or not exact
        assert answer.to_dict()["note"] == answer.note


def test_a_large_request_refused_is_estimated(filled: ServerIndex, qdrant: Any) -> None:
    truth = ask(filled, FLAT)
    assert (truth.method, truth.note) == ("exact", "")
    qdrant.engine.strict("c", max_query_limit=50)
    answer = ask(filled, FLAT)
    assert answer.method == "estimated"
    assert answer.note.startswith(f"estimated, {refused(filled, 'Bad request: Limit exceeded ')}")
    assert [row.key for row in answer.rows] == [row.key for row in truth.rows]
    low, high = answer.rows[0].interval
    assert low <= truth.rows[0].influence <= high


def test_a_small_support_stays_complete(filled: ServerIndex, qdrant: Any) -> None:
    truth = ask(filled, CUT, exact=True)
    assert (truth.method, truth.note) == ("exact", "")
    assert truth.support is not None
    assert truth.support < 64
    qdrant.engine.strict("c", search_allow_exact=False)
    answer = ask(filled, CUT, exact=True)
    assert answer.method == "complete"
    assert answer.note.startswith("complete, because ")
    assert answer.support == truth.support
    assert [row.influence for row in answer.rows] == pytest.approx(
        [row.influence for row in truth.rows], abs=1e-6
    )


def test_a_filter_and_groups(filled: ServerIndex, qdrant: Any) -> None:
    where = {"creator": ["c1"]}
    truth = ask(filled, FLAT, where=where, group_by="creator")
    qdrant.engine.strict("c", search_allow_exact=False, max_query_limit=30)
    answer = ask(filled, FLAT, where=where, group_by="creator")
    assert answer.method == "estimated"
    assert [row.key for row in answer.rows] == [row.key for row in truth.rows]
    assert [group.value for group in answer.groups] == ["c1"]
    assert answer.note
