"""How wide the graph is searched is measured on the collection, and kept."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import numpy as np

from search.edge import EdgeIndex, EdgeSettings
from search.edge_tuning import Tuning, read_tuning, tune, write_tuning
from search.index import Features

TRUTH = [{b"a", b"b", b"c", b"d"}, {b"e", b"f", b"g", b"h"}]


def test_the_first_width_that_suffices_is_kept() -> None:
    asked = []

    def found(ef: int) -> list[set[bytes]]:
        asked.append(ef)
        return TRUTH if ef >= 400 else [{b"a"}, {b"e", b"x"}]

    assert tune(100, 5000, TRUTH, found) == Tuning(400, 1.0, 5000)
    assert asked == [100, 200, 400]


def test_where_none_suffices_the_largest_is_kept_with_its_recall() -> None:
    found = tune(128, 9, TRUTH, lambda ef: [{b"a", b"b", b"c"}, {b"e", b"f", b"g"}])
    assert found == Tuning(4096, 0.75, 9)


def test_it_is_measured_again_where_the_collection_changed() -> None:
    tuning = Tuning(128, 1.0, 1000)
    assert tuning.holds_for(1100)
    assert tuning.holds_for(900)
    assert not tuning.holds_for(1101)
    assert not tuning.holds_for(899)


def test_a_damaged_file_is_no_tuning(tmp_path: Path) -> None:
    assert read_tuning(tmp_path) is None
    write_tuning(tmp_path, Tuning(256, 0.999, 7))
    assert read_tuning(tmp_path) == Tuning(256, 0.999, 7)
    (tmp_path / "tuning.json").write_text("{")
    assert read_tuning(tmp_path) is None


def test_evenly_spread_features_are_searched_wider(tmp_path: Path) -> None:
    seed = 7
    print("seed", seed)
    rng = np.random.default_rng(seed)
    spread = rng.normal(size=(32, 256))  # evenly over 32 of the 256 dimensions

    def draw(count: int) -> Features:
        drawn = rng.normal(size=(count, 32)) @ spread
        return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)

    vectors = draw(24_000)
    ids = [UUID(int=i + 1) for i in range(len(vectors))]
    settings = EdgeSettings(m=8, ef_construct=32, ef=16)
    with EdgeIndex.create(tmp_path / "index", 256, settings) as index:
        index.upsert(ids, vectors, [{"key": str(i)} for i in range(len(ids))])
        assert index.info().ef == 16
        index.build()
        info = index.info()
        assert info.ef > 16
        assert info.details["recall"] >= 0.99
        queries = draw(40)
        truth = index.search(queries, 50, exact=True)
        found = index.search(queries, 50)
        recall = np.mean(
            [len(set(a.ids) & set(b.ids)) / 50 for a, b in zip(truth, found, strict=True)]
        )
        assert recall >= 0.99
    with EdgeIndex.open(tmp_path / "index") as again:
        assert again.info().ef == info.ef
