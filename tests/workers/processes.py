"""Redis and workers as real processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import redis
import slow_backbone as backbone

ROOT = Path(__file__).parents[2]

_SUPERVISE = """
import json, sys
from workers.supervisor import WorkerSettings, run_worker
settings = json.loads(sys.argv[1])
run_worker(WorkerSettings(**settings), lambda line: print(line, flush=True))
"""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def wait_for(true: Callable[[], object], timeout_s: float = 30.0) -> None:
    until = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)


@dataclass
class Redis:
    """A server of its own on this machine; what it held is gone when it is started again."""

    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        found = shutil.which("redis-server")
        assert found, "no redis-server here: scripts/setup installs it"
        self.folder.mkdir(parents=True, exist_ok=True)
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        self.process = subprocess.Popen(
            [found, *options, "--save", "", "--appendonly", "no"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
        )
        wait_for(self.answers)

    def answers(self) -> bool:
        try:
            return bool(self.client().ping())
        except redis.RedisError:
            return False

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, socket_timeout=5)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@dataclass
class Workers:
    """Supervisors with one process each."""

    redis: Redis
    log: Path
    processes: list[subprocess.Popen[str]] = field(default_factory=list)
    started: int = 0

    def start(
        self,
        count: int = 1,
        *,
        program: Sequence[str] | None = None,
        environment: dict[str, str] | None = None,
        **settings: object,
    ) -> None:
        for _ in range(count):
            text = json.dumps(
                {
                    "redis": self.redis.url,
                    "threads": 1,
                    "program": list(program or backbone.program()),
                    "name": f"worker-{self.started}",
                    **settings,
                }
            )
            self.started += 1
            with self.log.open("a") as log:
                self.processes.append(
                    subprocess.Popen(
                        [sys.executable, "-c", _SUPERVISE, text],
                        cwd=ROOT,
                        env={**os.environ, **(environment or {})},
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        text=True,
                    )
                )

    def said(self) -> str:
        """All that the workers said so far."""
        return self.log.read_text() if self.log.exists() else ""

    def children(self) -> list[int]:
        """The processes that embed."""
        found: list[int] = []
        for supervisor in self.processes:
            listed = Path(f"/proc/{supervisor.pid}/task/{supervisor.pid}/children")
            try:
                found.extend(int(pid) for pid in listed.read_text().split())
            except OSError:
                continue
        return found

    def has_shard(self, pid: int) -> bool:
        """Whether that process is at a shard."""
        try:
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            return Path(json.loads(arguments[-2])["note"]).exists()
        except (OSError, ValueError, LookupError):  # it is only being started
            return False

    def stop(self) -> str:
        """End them; what they said."""
        for pid in self.children():
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                continue
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes.clear()
        return self.said()
