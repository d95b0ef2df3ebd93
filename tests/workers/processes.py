"""Redis and workers as real processes."""

from __future__ import annotations

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
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(
        self,
        count: int = 1,
        *,
        program: Sequence[str] | None = None,
        environment: dict[str, str] | None = None,
        **settings: object,
    ) -> None:
        import json

        for _ in range(count):
            text = json.dumps(
                {
                    "redis": self.redis.url,
                    "threads": 1,
                    "program": list(program or backbone.program()),
                    "name": f"worker-{len(self.processes)}",
                    **settings,
                }
            )
            self.processes.append(
                subprocess.Popen(
                    [sys.executable, "-c", _SUPERVISE, text],
                    cwd=ROOT,
                    env={**os.environ, **(environment or {})},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )

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

    def stop(self) -> str:
        """End them; what they said."""
        for pid in self.children():
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                continue
        said = ""
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                said += process.communicate(timeout=20)[0]
            except subprocess.TimeoutExpired:
                process.kill()
                said += process.communicate()[0]
        self.processes.clear()
        return said
