"""The process that embeds: a Celery worker with one device, started and watched by a supervisor.

    ATTRIB_REDIS=... python -m workers.child CONFIG

It is started anew, never forked: CUDA does not survive a fork.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workers.app import TASK, make_app
from workers.board import QUEUE, Board
from workers.heartbeat import Heartbeat
from workers.metrics import Metrics
from workers.task import LoadBackbone, LoadedBackbone, RefusedError, ShardRunner

if TYPE_CHECKING:
    from celery import Celery

    from embed.embedder import Precision
    from embed.model import AttributionModel

__all__ = ["REDIS_VARIABLE", "REFUSED", "ChildConfig", "consume", "end_with_parent", "main"]

REDIS_VARIABLE = "ATTRIB_REDIS"

REFUSED = 78
"""Exit code of a process that cannot do the work it is sent, and says why on stderr."""


@dataclass(frozen=True)
class ChildConfig:
    """What a supervisor tells the process.

    Attributes:
        redis: address, with its password.
        name: of the worker.
        device: to embed on; None for the first GPU, or else the CPU.
        precision: of the backbone.
        threads: readers and decoders, and parts of a batch that a CPU embeds at once.
        note: file that says which shard is in hand.
    """

    redis: str
    name: str
    device: str | None
    precision: Precision
    threads: int
    note: str

    def dumps(self) -> str:
        """As text, without the address of Redis, whose password no list of processes may show."""
        return json.dumps({**asdict(self), "redis": ""})

    @classmethod
    def loads(cls, text: str) -> ChildConfig:
        """The inverse of `dumps`; the address is in the environment."""
        return cls(**{**json.loads(text), "redis": os.environ[REDIS_VARIABLE]})


def main(config: ChildConfig, load: LoadBackbone | None = None) -> None:
    """Work until told to stop. `load`: gives the backbone of a model, ready to embed."""
    end_with_parent()
    board = Board(config.redis)
    heartbeat = Heartbeat(board, config.name)
    runner = ShardRunner(
        board,
        heartbeat,
        config.name,
        load or _loader(config),
        config.threads,
        Metrics(),
        Path(config.note),
    )
    app = make_app(config.redis)

    @app.task(name=TASK)
    def shard(values: dict[str, Any]) -> None:
        try:
            runner.run(values)
        except RefusedError as exc:
            # At once: the next task would be refused just the same.
            sys.stderr.write(f"attrib: {config.name}: {exc}\n")
            sys.stderr.flush()
            try:
                board.refuse(config.name, str(exc))
                heartbeat.stop()
            finally:
                os._exit(REFUSED)

    heartbeat.start()
    try:
        consume(app, config.name, QUEUE)
    finally:
        heartbeat.stop()
        board.close()


def consume(app: Celery, name: str, queue: str) -> None:
    """Do one task of a queue after another, until told to stop."""
    from celery.exceptions import SecurityWarning

    logging.getLogger("celery").setLevel(logging.CRITICAL)
    # Celery warns of root since pickles from a queue could be code: we take JSON alone.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    app.Worker(
        hostname=name,
        pool_cls="solo",
        concurrency=1,
        queues=[queue],
        loglevel="CRITICAL",
        quiet=True,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    ).start()


def _loader(config: ChildConfig) -> LoadBackbone:
    def load(model: AttributionModel) -> LoadedBackbone:
        from embed.embedder import Embedder

        return Embedder(
            model.backbone,
            device=config.device,
            precision=config.precision,
            threads=config.threads,
        )

    return load


def end_with_parent() -> None:
    """When the supervisor is killed, the pipe that is our stdin closes."""

    def watch() -> None:
        while os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=watch, name="attrib-parent", daemon=True).start()


if __name__ == "__main__":
    main(ChildConfig.loads(sys.argv[1]))
