"""Programs of these tests by name, and Redis with workers."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

for _name in ("slow_backbone", "distributed_program", "processes", "made_tars"):
    if _name not in sys.modules:
        _spec = importlib.util.spec_from_file_location(
            _name, Path(__file__).with_name(f"{_name}.py")
        )
        assert _spec is not None
        assert _spec.loader is not None
        _module = importlib.util.module_from_spec(_spec)
        sys.modules[_name] = _module
        _spec.loader.exec_module(_module)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Any]:
    from processes import Redis

    server = Redis(tmp_path / "redis")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def workers(redis: Any, tmp_path: Path) -> Iterator[Any]:
    from processes import Workers

    some = Workers(redis, tmp_path / "workers.log")
    yield some
    print(some.stop())


@pytest.fixture
def qdrant() -> Iterator[str]:
    """URL of the stand-in for a Qdrant server, in a process of its own."""
    path = Path(__file__).parents[1] / "search" / "qdrant_stand_in.py"
    with subprocess.Popen(
        [sys.executable, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        rest, grpc = server.stdout.readline().split()
        yield f"qdrant://127.0.0.1:{rest}?grpc_port={grpc}"
        server.kill()
