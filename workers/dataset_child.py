"""The process that makes models of datasets: a Celery worker with one device.

    ATTRIB_REDIS=... python -m workers.dataset_child CONFIG

Started and watched by the supervisor of `workers.supervisor`, as `workers.child` is.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from workers.app import make_app
from workers.child import REFUSED, ChildConfig, consume, end_with_parent
from workers.dataset_board import MODEL_QUEUE, MODEL_TASK, DatasetBoard
from workers.dataset_task import ModelRunner
from workers.task import RefusedError

__all__ = ["main"]


def main(config: ChildConfig) -> None:
    """Work until told to stop."""
    import torch

    end_with_parent()
    torch.set_num_threads(config.threads)
    board = DatasetBoard(config.redis)
    runner = ModelRunner(board, config.name, config.device)
    app = make_app(config.redis)

    @app.task(name=MODEL_TASK)
    def model(values: dict[str, Any]) -> None:
        try:
            runner.run(values)
        except RefusedError as exc:
            # At once: the next task would be refused just the same.
            sys.stderr.write(f"attrib: {config.name}: {exc}\n")
            sys.stderr.flush()
            os._exit(REFUSED)

    try:
        consume(app, config.name, MODEL_QUEUE)
    finally:
        board.close()


if __name__ == "__main__":
    main(ChildConfig.loads(sys.argv[1]))
