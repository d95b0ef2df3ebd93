"""Anything may die at any time: the end is that of an unbroken run, nothing lost, nothing doubled.

`ATTRIB_TEST_CHAOS=3` makes it three times as long, and `ATTRIB_TEST_SEED` takes another seed.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import distributed_program as program
import slow_backbone as backbone
from made_tars import make_tars, state
from processes import ROOT, Redis, Workers, wait_for

_TIMES = float(os.environ.get("ATTRIB_TEST_CHAOS", "1"))
_SEED = int(os.environ.get("ATTRIB_TEST_SEED", "20231004"))
_LEASE_S = 1.5


@dataclass
class Chaos:
    """An ingest with three workers, and ways to break it."""

    data: Path
    source: Path
    redis: Redis
    workers: Workers
    rng: random.Random
    pause_s: float
    coordinator: subprocess.Popen[str] | None = None
    stopped: dict[int, float] = field(default_factory=dict)
    done: Counter[str] = field(default_factory=Counter)

    def start(self) -> None:
        self.workers.start(3, program=backbone.program(pause_s=self.pause_s))
        self.coordinate()

    def coordinate(self) -> None:
        self.coordinator = subprocess.Popen(
            [
                sys.executable,
                str(Path(program.__file__ or "")),
                str(self.data),
                self.redis.url,
                str(_LEASE_S),
                "100",
                "100",
                str(self.source),
            ],
            cwd=Path(__file__).parent,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    @property
    def ended(self) -> bool:
        return self.coordinator is not None and self.coordinator.poll() is not None

    def a_child(self) -> int | None:
        """A process that has a shard, if one gets to it soon."""
        until = time.monotonic() + 5
        while time.monotonic() < until and not self.ended:
            self.thaw()
            busy = [
                pid
                for pid in self.workers.children()
                if pid not in self.stopped and self.workers.has_shard(pid)
            ]
            if busy:
                self.done["on a shard"] += 1
                return self.rng.choice(busy)
            time.sleep(0.05)
        return None

    def kill_process(self) -> None:
        if (pid := self.a_child()) is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def kill_machine(self) -> None:
        """A supervisor with its process; another machine takes its place."""
        one = self.rng.choice(self.workers.processes)
        one.kill()
        one.wait()
        self.workers.processes.remove(one)
        self.workers.start(1, program=backbone.program(pause_s=self.pause_s))

    def kill_redis(self) -> None:
        self.redis.kill()
        time.sleep(self.rng.uniform(0, 0.5))
        self.redis.start()

    def kill_coordinator(self) -> None:
        assert self.coordinator is not None
        if self.coordinator.poll() is None:
            self.coordinator.kill()
            self.coordinator.communicate()
            self.coordinate()

    def flush(self) -> None:
        self.redis.client().flushall()

    def freeze(self) -> None:
        """Longer than the lease: the shard goes to another worker, and then this one wakes up."""
        if (pid := self.a_child()) is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                self.stopped[pid] = time.monotonic() + 2 * _LEASE_S + self.rng.uniform(0, 1)

    def thaw(self, *, everyone: bool = False) -> None:
        for pid, until in list(self.stopped.items()):
            if everyone or time.monotonic() > until:
                del self.stopped[pid]
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def strike(self, kinds: list[str]) -> None:
        kind = self.rng.choice(kinds)
        act: Callable[[], None] = getattr(self, kind)
        act()
        self.done[kind] += 1

    def finish(self, timeout_s: float) -> str:
        self.thaw(everyone=True)
        assert self.coordinator is not None
        said = self.coordinator.communicate(timeout=timeout_s)[0]
        assert self.coordinator.returncode == 0, said
        return said

    def give_up(self) -> None:
        self.thaw(everyone=True)
        if self.coordinator is not None and self.coordinator.poll() is None:
            self.coordinator.kill()
            self.coordinator.communicate()


def _wanted(tmp_path: Path, source: Path) -> Any:
    program.here(tmp_path / "unbroken", [str(source)])
    return state(tmp_path / "unbroken")


def test_thirty_kills_change_nothing(tmp_path: Path, redis: Redis, workers: Workers) -> None:
    shards = round(50 * _TIMES)
    source = make_tars(tmp_path / "tars", shards, 100, bad=1)
    wanted = _wanted(tmp_path, source)
    assert len(wanted["points"]) == 100 * shards
    print("seed", _SEED)
    rng = random.Random(_SEED)
    chaos = Chaos(tmp_path / "data", source, redis, workers, rng, pause_s=0.12)
    try:
        chaos.start()
        kinds = ["kill_process"] * 8 + ["kill_machine", "kill_redis", "kill_coordinator"] * 3
        kinds += ["freeze"] * 6
        for _ in range(round(30 * _TIMES)):
            until = time.monotonic() + rng.uniform(0.1, 0.8)
            while time.monotonic() < until:
                chaos.thaw()
                time.sleep(0.02)
            assert not chaos.ended, chaos.coordinator.communicate()[0] if chaos.coordinator else ""
            chaos.strike(kinds)
        print(dict(chaos.done), chaos.finish(120))
    finally:
        chaos.give_up()
    assert min(chaos.done[kind] for kind in set(kinds)) >= 1
    assert chaos.done["on a shard"] >= 8 * _TIMES
    found = state(tmp_path / "data")
    assert found["rejects"] == wanted["rejects"]
    assert found["points"] == wanted["points"]
    assert found["shards"] == wanted["shards"]


def test_redis_flushed_in_the_middle(tmp_path: Path, redis: Redis, workers: Workers) -> None:
    source = make_tars(tmp_path / "tars", 12, 60, bad=1)
    wanted = _wanted(tmp_path, source)
    chaos = Chaos(tmp_path / "data", source, redis, workers, random.Random(1), pause_s=0.1)
    try:
        chaos.start()
        features = tmp_path / "data" / "features" / "set" / "img_emb"
        for shards in (1, 5):
            wait_for(lambda: len(list(features.glob("*.npy"))) >= shards)  # noqa: B023
            assert not chaos.ended
            chaos.flush()
        chaos.finish(60)
    finally:
        chaos.give_up()
    assert state(tmp_path / "data") == wanted
