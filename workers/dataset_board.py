"""What a dataset's build and the workers that make its models tell each other through Redis.

    attrib-dataset                  the queue of tasks (Celery's): one model each
    attrib:wanted:<plan>:<number>   as of `workers.board`, where `number` is the model's
    attrib:beat:<plan>:<number>     likewise; its stage also says how a try ended

All of it may be lost at any time: a model is made once its record is in the dataset's folder.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from workers.board import Beat, Board

__all__ = ["MODEL_QUEUE", "MODEL_TASK", "DatasetBoard", "End", "ending", "ending_of"]

MODEL_QUEUE = "attrib-dataset"
MODEL_TASK = "attrib.dataset.model"

End: TypeAlias = Literal["done", "failed", "refused"]
_ENDS: tuple[End, ...] = ("done", "failed", "refused")


class DatasetBoard(Board):
    """A connection to Redis, as of `workers.board`."""

    def queued(self) -> int:
        """How many tasks wait in the queue."""
        return int(self._ask(self._redis.llen, MODEL_QUEUE))


def ending(how: End, why: str = "") -> str:
    """The stage of a last sign of life."""
    return f"{how}: {' '.join(why.split())}"


def ending_of(beat: Beat) -> tuple[End | None, str]:
    """How a try ended, and why; None for one that goes on."""
    how, _, why = beat.stage.partition(": ")
    return next((end for end in _ENDS if end == how), None), why
