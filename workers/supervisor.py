"""`attrib worker`: starts a process for each device, and starts it again when it dies.

It never touches a device or an image itself, so whatever kills those that do leaves it alive to say
which shard they had.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingest.errors import AttribError, WorkersError
from ingest.storage import location
from workers.board import Board
from workers.child import REDIS_VARIABLE, REFUSED, ChildConfig
from workers.results import Failed, Why, write_failure

if TYPE_CHECKING:
    from embed.embedder import Precision
    from workers.metrics import Metrics

__all__ = ["WorkerSettings", "run_worker"]

_PROGRAM = (sys.executable, "-m", "workers.child")
_POLL_S = 0.1
_HEALTHY_S = 10.0
_MAX_BACKOFF_S = 30.0


@dataclass(frozen=True)
class WorkerSettings:
    """What a worker is to use.

    Attributes:
        redis: address of Redis.
        devices: a process for each; (None,) is the first GPU, or else the CPU.
        count: processes for each device.
        precision: of the backbone.
        threads: readers and decoders of each process; the cores shared out, when None.
        metrics_port: port of the metrics, None for none.
        metrics_address: that they are served at.
        name: of the worker; the host's and a number, when None.
        program: what is started for each device.
    """

    redis: str
    devices: Sequence[str | None] = (None,)
    count: int = 1
    precision: Precision = "auto"
    threads: int | None = None
    metrics_port: int | None = None
    metrics_address: str = ""
    name: str | None = None
    program: Sequence[str] = _PROGRAM


@dataclass
class _Process:
    config: ChildConfig
    label: str
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    again_at: float = 0.0
    failures: int = 0
    refused: bool = False


@dataclass
class _Signals:
    """How often the person asked to stop."""

    asked: int = 0
    woken: threading.Event = field(default_factory=threading.Event)

    def ask(self, *_: object) -> None:
        self.asked += 1
        self.woken.set()


def run_worker(settings: WorkerSettings, say: Callable[[str], None]) -> None:
    """Work until stopped: by one signal after the shards in hand, by a second at once.

    `say`: takes lines for people.

    Raises:
        WorkersError: Redis does not answer at the start, or no process can do the work.
        UsageError: the metrics' port is taken.
    """
    board = Board(settings.redis)
    board.ping()
    with ExitStack() as opened:
        opened.callback(board.close)
        scratch = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="attrib-worker-")))
        processes = _plan(settings, scratch)
        metrics = None
        if settings.metrics_port is not None:
            metrics = opened.enter_context(_metrics(settings, scratch, processes))
        signals = opened.enter_context(_listening())
        opened.callback(_kill, processes)
        count = f"{len(processes)} process{'' if len(processes) == 1 else 'es'}"
        say(f"{count} at work for Redis at {board.address}")
        _watch(processes, settings, signals, metrics, board, say)


def _plan(settings: WorkerSettings, scratch: Path) -> list[_Process]:
    total = len(settings.devices) * settings.count
    threads = settings.threads or max(1, (os.cpu_count() or 1) // total)
    base = settings.name or f"{socket.gethostname()}-{os.getpid()}"
    processes: list[_Process] = []
    for device in settings.devices:
        for i in range(settings.count):
            label = device or "auto"
            name = (
                base if total == 1 else f"{base}/{label}" + (f"/{i}" if settings.count > 1 else "")
            )
            note = scratch / f"note-{len(processes)}.json"
            config = ChildConfig(
                settings.redis, name, device, settings.precision, threads, str(note)
            )
            processes.append(_Process(config, label))
    return processes


def _watch(
    processes: list[_Process],
    settings: WorkerSettings,
    signals: _Signals,
    metrics: Metrics | None,
    board: Board,
    say: Callable[[str], None],
) -> None:
    told = 0
    while True:
        if signals.asked > told:
            told = signals.asked
            if told == 1:
                say("stopping after the shards in hand; once more to stop at once")
            for one in processes:
                if one.process is not None and one.process.poll() is None:
                    one.process.send_signal(signal.SIGTERM if told == 1 else signal.SIGKILL)
        for one in processes:
            _look_after(one, settings, bool(told), told > 1, metrics, board, say)
        if told and all(one.process is None for one in processes):
            return
        if all(one.refused for one in processes):
            raise WorkersError("no process of this worker can do the work it is sent; see above")
        signals.woken.wait(_POLL_S)
        signals.woken.clear()


def _look_after(
    one: _Process,
    settings: WorkerSettings,
    stopping: bool,
    at_once: bool,
    metrics: Metrics | None,
    board: Board,
    say: Callable[[str], None],
) -> None:
    now = time.monotonic()
    if one.process is None:
        if not stopping and not one.refused and now >= one.again_at:
            one.process = _start(one, settings)
            one.started = now
        return
    code = one.process.poll()
    if code is None:
        return
    if one.process.stdin is not None:
        one.process.stdin.close()
    one.process = None
    one.refused = code == REFUSED
    if one.refused:
        Path(one.config.note).unlink(missing_ok=True)
        return
    had = _report(one, "stopped" if at_once else "died", _cause(code), metrics)
    if stopping:
        return
    with suppress(AttribError):
        board.leave(one.config.name)
    one.failures = 0 if now - one.started > _HEALTHY_S else one.failures + 1
    pause = min(_MAX_BACKOFF_S, 0.5 * 2 ** (one.failures - 1)) if one.failures else 0.0
    one.again_at = now + pause
    say(f"{one.config.name} {_cause(code)}{f' at {had}' if had else ''}; starting it again")


def _start(one: _Process, settings: WorkerSettings) -> subprocess.Popen[bytes]:
    # Of a group of its own: Ctrl-C comes to the supervisor alone, which stops it in order.
    return subprocess.Popen(
        [*settings.program, one.config.dumps()],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,  # Celery's words at its end
        start_new_session=True,
        env={**os.environ, REDIS_VARIABLE: one.config.redis},
    )


def _report(one: _Process, why: Why, cause: str, metrics: Metrics | None) -> str:
    """Say of the shard that a process had when it ended what became of it; its source, or ''."""
    note = Path(one.config.note)
    try:
        had: dict[str, Any] = json.loads(note.read_text("utf-8"))
        failed = Failed(
            had["number"],
            had["plan"],
            had["send"],
            why,
            f"the process that embedded it {cause}",
            one.config.name,
        )
        write_failure(location(had["features"]), failed)
        if metrics is not None and why == "died":
            metrics.failed(last=had["last"])
        return str(had["source"])
    except (OSError, ValueError, KeyError, TypeError, AttribError):
        return ""  # it had none; or the coordinator will miss its beats
    finally:
        note.unlink(missing_ok=True)


def _cause(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    with suppress(ValueError):
        return f"was killed by {signal.Signals(-code).name}"
    return f"was killed by signal {-code}"


def _kill(processes: list[_Process]) -> None:
    for one in processes:
        if one.process is not None:
            with suppress(OSError):
                one.process.kill()
            one.process.wait()


@contextmanager
def _listening() -> Iterator[_Signals]:
    """Signals are asked for where they can be: in the main thread."""
    signals = _Signals()
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    before = {
        number: signal.signal(number, signals.ask) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _metrics(
    settings: WorkerSettings, scratch: Path, processes: list[_Process]
) -> Iterator[Metrics]:
    from workers.metrics import FOLDER_VARIABLE

    folder = scratch / "metrics"
    folder.mkdir()
    os.environ[FOLDER_VARIABLE] = str(folder)  # before prometheus_client is imported, here as there
    from workers.metrics import Metrics, serve

    def alive() -> dict[str, int]:
        up: dict[str, int] = {}
        for one in processes:
            lives = one.process is not None and one.process.poll() is None
            up[one.label] = up.get(one.label, 0) + int(lives)
        return up

    port = settings.metrics_port or 0
    metrics = Metrics()
    with serve(port, settings.metrics_address or "0.0.0.0", alive):
        yield metrics
