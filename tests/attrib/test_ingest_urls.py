"""`attrib ingest laion.parquet`, as it is typed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

Run = Callable[..., Any]


@pytest.fixture
def laion(tmp_path: Path, web: Any) -> Path:
    web.image("/withheld", X_Robots_Tag="noai")
    paths = [*(f"/image/{i}" for i in range(4)), "/gone", "/withheld"]
    urls = [web.url(path, "127.0.0.1") for path in paths]
    path = tmp_path / "laion.parquet"
    pq.write_table(pa.table({"URL": urls, "TEXT": paths, "punsafe": [0.5] * 6}), path)
    return path


def test_a_laion_list(tmp_path: Path, web: Any, laion: Path, invoke: Run) -> None:
    data, kept = tmp_path / "data", tmp_path / "kept"
    options = ["--data", data, "--allow-private", "--no-calibrate"]
    done = invoke("ingest", laion, *options, "--keep-images", kept, "--contact", "me@x.example")
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        f"laion: 4 ingested, 2 rejected; {data} now holds 4 training images\n"
        "  1 rejected: dead link\n"
        "  1 rejected: opted out\n"
        f"  which ones: attrib rejects --data {data}\n"
    )
    assert all(agent.endswith("; +me@x.example)") for agent in web.agents)

    web.requests.clear()
    web.image("/gone")
    again = invoke("ingest", laion, *options, "--json")
    assert json.loads(again.stdout)["unchanged"] == 6
    assert web.requests == []
    retried = invoke("ingest", laion, *options, "--retry-failed", "--json")
    report = json.loads(retried.stdout)
    assert (report["ingested"], report["rejected"]) == (1, {"opted out": 1})
    assert sorted(web.paths()) == ["/gone", "/withheld"]
    given = invoke("ingest", laion, *options, "--retry-failed", "--ignore-opt-out", "--json")
    assert json.loads(given.stdout)["total"] == 6

    web.requests.clear()
    tars = invoke("ingest", kept, "--data", tmp_path / "again", "--no-calibrate", "--json")
    report = json.loads(tars.stdout)
    assert (report["ingested"], report["rejected"]) == (4, {})
    assert web.requests == []


def test_private_addresses_are_refused_unless_allowed(
    tmp_path: Path, web: Any, laion: Path, invoke: Run
) -> None:
    done = invoke("ingest", laion, "--data", tmp_path / "data", "--no-calibrate", "--json")
    report = json.loads(done.stdout)
    assert (report["ingested"], report["rejected"]) == (0, {"not a public address": 6})
    assert web.requests == []


@pytest.mark.parametrize(
    "option", [["--keep-images", "x"], ["--retry-failed"], ["--ignore-opt-out"]]
)
def test_options_of_downloads_do_not_go_with_features(
    tmp_path: Path, invoke: Run, option: list[str]
) -> None:
    done = invoke("ingest", "--features", "x.npy", "--data", tmp_path / "data", *option)
    assert done.returncode == 2
    assert done.stderr == (f"attrib: {option[0]} is for images and does not go with --features\n")
