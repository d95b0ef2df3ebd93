"""The process that holds a Qdrant Edge shard: `python -m search.edge_process FD PARENT`.

It reads (number, operation, arguments) from its end of a socket pair and answers (number, outcome,
value). Whatever ends the parent, a kill included, ends this process too, after a flush.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from search.edge_shard import ShardBusyError, ShardOperations

__all__ = ["main"]

_IDLE_S = 2.0


def main() -> None:
    """Serve one shard until the parent closes its end or is gone."""
    # Ctrl-C goes to every process of the terminal; the parent decides when this one stops.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = Connection(int(sys.argv[1]))
    parent = int(sys.argv[2])
    shard: ShardOperations | None = None
    try:
        while (request := _next(connection, parent)) is not None:
            number, operation, arguments = request
            try:
                answer: tuple[int, str, Any]
                if operation == "hello":
                    answer = (number, "ok", None)
                elif operation == "open":
                    folder, dim, settings, wait_s = arguments
                    shard = ShardOperations(Path(folder), dim, settings, wait_s)
                    answer = (number, "ok", None)
                elif operation == "create":
                    folder, dim, settings = arguments
                    answer = (number, "ok", ShardOperations.create(Path(folder), dim, settings))
                else:
                    answer = (number, "ok", getattr(shard, operation)(*arguments))
            except ShardBusyError:
                answer = (number, "busy", "")
            except BaseException as exc:  # a Rust panic is no Exception
                answer = (number, "failed", f"{exc}" or type(exc).__name__)
            connection.send_bytes(pickle.dumps(answer, protocol=5))
    except OSError:
        pass  # the parent went while being answered
    finally:
        if shard is not None:
            shard.close()


def _next(connection: Connection, parent: int) -> tuple[int, str, tuple[Any, ...]] | None:
    """The next request; None when there will be none."""
    # A worker forked from the parent keeps the other end open after the parent's death, so the end
    # of the stream alone is not to be waited for.
    while not connection.poll(_IDLE_S):
        if os.getppid() != parent:
            return None
    try:
        request: tuple[int, str, tuple[Any, ...]] = pickle.loads(connection.recv_bytes())
    except EOFError:
        return None
    return request


if __name__ == "__main__":
    main()
