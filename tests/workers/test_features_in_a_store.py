"""Workers that share no disk with the data folder: sources and features are in an S3 store."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import distributed_program as program
import pytest
import slow_backbone as backbone
from made_tars import make_tar, make_tars, png, state
from processes import Redis, Workers, wait_for

from search.feature_place import keep_features_at
from workers.board import Board

_STORES = Path(__file__).parents[1] / "storage" / "stores.py"


@pytest.fixture
def bucket() -> Iterator[Any]:
    spec = importlib.util.spec_from_file_location("stores", _STORES)
    assert spec is not None
    assert spec.loader is not None
    stores = sys.modules.get("stores") or importlib.util.module_from_spec(spec)
    if "stores" not in sys.modules:
        sys.modules["stores"] = stores
        spec.loader.exec_module(stores)
    with stores.s3_server() as endpoint, stores.bucket_at(endpoint) as made:
        yield made


def test_a_store_takes_the_place_of_a_common_disk(
    tmp_path: Path, redis: Redis, workers: Workers, bucket: Any
) -> None:
    """Even where a worker is killed meanwhile, and where two tars have equal keys."""
    tars = make_tars(tmp_path / "tars", 4, 20, bad=1)
    make_tar(tars / "again" / "00003.tar", {f"{i:04d}": png(5000 + i) for i in range(22)})
    source = bucket.put(tars, "tars")
    program.here(tmp_path / "here", [source, f"{source}/again"])
    keep_features_at(tmp_path / "there", bucket.url("features"))
    workers.start(2, program=backbone.program(pause_s=0.3))

    def strike() -> None:
        board = Board(redis.url)
        wait_for(lambda: any(worker.shard for worker in board.workers()))
        os.kill(workers.children()[0], signal.SIGKILL)

    helper = threading.Thread(target=strike)
    helper.start()
    report = program.with_workers(
        tmp_path / "there", redis.url, [source, f"{source}/again"], lease_s=2
    )
    helper.join()
    assert report.dead == []
    assert state(tmp_path / "there") == state(tmp_path / "here")
    assert len(state(tmp_path / "there")["points"]) == 82
    assert not any("/done" in name for name in bucket.files.find(bucket.name))
