"""A store in memory that forgets what was not asked for longest."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

__all__ = ["Kept"]

V = TypeVar("V")


class Kept(Generic[V]):
    """Values by name, up to a total size. Safe to use from many threads.

    Attributes:
        generation: how often everything was forgotten.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[str, tuple[V, int]] = OrderedDict()
        self._mutex = threading.Lock()
        self.bytes = 0
        self.generation = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, name: str) -> V | None:
        """The value, which counts as asked for now; None where it is not (any more) here."""
        with self._mutex:
            entry = self._entries.get(name)
            if entry is None:
                return None
            self._entries.move_to_end(name)
            return entry[0]

    def put(self, name: str, value: V, size: int, *, since: int | None = None) -> None:
        """Keep a value that takes `size` bytes; one larger than everything allowed is not kept.

        `since`: the generation that the value was begun in. It is not kept where everything was
        forgotten meanwhile: the value may be one of those that had to go.
        """
        with self._mutex:
            if since is not None and since != self.generation:
                return
            if (old := self._entries.pop(name, None)) is not None:
                self.bytes -= old[1]
            if size > self._max_bytes:
                return
            self._entries[name] = (value, size)
            self.bytes += size
            while self.bytes > self._max_bytes:
                _, (_, gone) = self._entries.popitem(last=False)
                self.bytes -= gone

    def clear(self) -> None:
        """Forget everything, and what is being made of it now."""
        with self._mutex:
            self.generation += 1
            self._entries.clear()
            self.bytes = 0
