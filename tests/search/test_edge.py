"""The embedded index: its folder, its process, and what happens when things die."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from programs import script

from ingest.errors import DataFolderBusyError, DataFolderError, IndexFailedError, UsageError
from search.edge import EdgeIndex, EdgeSettings

DIM = 16


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "index"


# -- the folder


def test_open_where_there_is_nothing(folder: Path) -> None:
    with pytest.raises(DataFolderError) as error:
        EdgeIndex.open(folder)
    assert str(error.value) == f"{folder} holds no index (there is no index.json in it)"
    assert not folder.exists()


def test_create_where_something_is(folder: Path) -> None:
    folder.mkdir()
    (folder / "holiday.txt").write_text("keep me")
    with pytest.raises(DataFolderError) as error:
        EdgeIndex.create(folder, DIM)
    assert str(error.value) == f"{folder} is not empty; choose another folder for the index"
    assert [file.name for file in folder.iterdir()] == ["holiday.txt"]
    assert [file.name for file in folder.parent.iterdir()] == ["index"]


def test_create_under_a_file(folder: Path) -> None:
    folder.write_text("a file")
    with pytest.raises(DataFolderError) as error:
        EdgeIndex.create(folder / "below", DIM)
    assert str(error.value) == f"cannot make an index in {folder / 'below'}: Not a directory"


def test_settings_and_format(folder: Path) -> None:
    settings = EdgeSettings(m=8, ef=99, quantization="int8", datatype="float16", sample_size=5)
    with EdgeIndex.create(folder, DIM, settings):
        pass
    with EdgeIndex.open(folder) as index:
        assert (index.dim, index.settings, index.folder) == (DIM, settings, folder)
        info = index.info()
        assert (info.backend, info.quantization, info.ef) == ("edge", "int8", 99)
        assert info.details["m"] == 8
        assert info.details["disk_bytes"] > 0
        if sys.platform == "linux":
            assert info.details["rss_bytes"] >= info.details["rss_anon_bytes"] > 1_000_000
    file = folder / "index.json"
    whole = file.read_text()
    for content, message in {
        whole.replace('"format": 1', '"format": 2'): f"{folder} was written by a newer attrib "
        "(index format 2; this one reads 1); upgrade attrib",
        whole[:40]: f"{file} is damaged (Unterminated string",
        "[]": f"{file} is damaged (it names no format version); put it back from a backup",
        whole.replace('"ef"', '"fe"'): f"{file} is damaged (it names an unknown setting 'fe'); "
        "put it back from a backup",
        whole.replace('"m": 8', '"m": "8"'): f"{file} is damaged ('<' not supported",
        whole.replace('"dim": 16', '"dim": 0'): f"{file} is damaged (dim or settings are missing)",
    }.items():
        file.write_text(content)
        with pytest.raises(DataFolderError) as error:
            EdgeIndex.open(folder)
        assert str(error.value).startswith(message)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"m": 0}, "m must be at least 1, not 0"),
        ({"search_threads": -1}, "search_threads must not be negative, not -1"),
        ({"oversampling": 0.5}, "oversampling must lie in 1..100, not 0.5"),
        ({"datatype": "int4"}, "no datatype 'int4'; choose float32 or float16"),
        (
            {"quantization": "gzip"},
            "no quantization 'gzip'; choose one of none, int8, turbo4, turbo2, turbo1, binary",
        ),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        EdgeSettings(**settings)
    assert str(error.value) == message


def test_a_damaged_shard_is_one_line(folder: Path) -> None:
    EdgeIndex.create(folder, DIM).close()
    for file in (folder / "shard").rglob("segment.json"):
        file.write_text("{")
    with pytest.raises(IndexFailedError) as error:
        EdgeIndex.open(folder)
    assert str(error.value).startswith("the index failed to open: ")
    assert "\n" not in str(error.value)


def test_only_one_process_has_it_open(folder: Path) -> None:
    with EdgeIndex.create(folder, DIM) as index:
        for wait_s in (0.0, 0.3):
            with pytest.raises(DataFolderBusyError) as error:
                EdgeIndex.open(folder, wait_s=wait_s)
        assert str(error.value) == (
            f"the index in {folder} is in use by another process; wait for it to end, or stop it"
        )
        assert index.count() == 0


def test_opening_waits_for_one_that_is_closing(folder: Path) -> None:
    program = script(
        """
        import sys, time
        from search.edge import EdgeIndex
        with EdgeIndex.create(sys.argv[1], 16):
            print("made", flush=True)
            time.sleep(0.5)
        """,
        folder,
    )
    with program:
        assert program.stdout is not None
        assert program.stdout.readline() == "made\n"
        with EdgeIndex.open(folder, wait_s=20) as index:
            assert index.count() == 0


# -- the sample's file


def test_the_file_of_the_sample_is_there_only_while_it_is_true(
    folder: Path, make_points: Any
) -> None:
    points = make_points(12, 200, DIM)
    file = folder / "sample.npz"
    with EdgeIndex.create(folder, DIM, EdgeSettings(sample_size=20)) as index:
        index.upsert(points.ids[:100], points.vectors[:100], points.payloads[:100])
        index.flush()
        assert file.exists()
        index.delete(points.ids[:1])
        assert not file.exists()
        index.flush()
        index.upsert(points.ids, points.vectors, points.payloads)
        expected = list(index.sample().ids)
    for damage in (b"", file.read_bytes()[:200], None):
        if damage is None:
            file.unlink()
        else:
            file.write_bytes(damage)
        with EdgeIndex.open(folder) as index:
            assert list(index.sample().ids) == expected
            index.build()
        assert file.exists()


# -- quantization


@pytest.mark.parametrize("kind", ["int8", "turbo4", "turbo2", "turbo1", "binary"])
def test_quantized_search_is_exact_in_what_it_returns(
    folder: Path, make_points: Any, kind: Any
) -> None:
    # 256 numbers: short codes need as many. The limit is below the share that is scanned anyway.
    dim, n = 256, 5100
    points = make_points(13, n, dim, clusters=100)
    queries = points.vectors[:15] + 0.3 * points.vectors[15:30]
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    settings = EdgeSettings(quantization=kind, index_above=1000, m=8, ef_construct=32)
    with EdgeIndex.create(folder, dim, settings) as index:
        points.put_into(index)
        index.build()
        assert index.info().indexed == n
        row_of = {uuid: row for row, uuid in enumerate(points.ids)}
        best = -np.sort(-(queries @ points.vectors.T), axis=1)[:, 49]
        recall = []
        for query, hits, least in zip(queries, index.search(queries, 50), best, strict=True):
            true = points.vectors[[row_of[uuid] for uuid in hits.ids]] @ query
            np.testing.assert_allclose(hits.similarities, true, atol=1e-5)
            assert len(hits.ids) == 50
            recall.append(np.mean(true >= least - 1e-5))
        print(kind, np.mean(recall))
        assert np.mean(recall) >= 0.99


def test_json_of_the_settings_is_for_people_too(folder: Path) -> None:
    EdgeIndex.create(folder, DIM).close()
    content = json.loads((folder / "index.json").read_text())
    assert content["format"] == 1
    assert content["settings"]["quantization"] == "none"
