"""A collection that is being built from feature shards, out of sight, beside the one in use.

collections/.building-<name>/model, index   as they will be
collections/.building-<name>/done.sqlite    the ledger that the index agrees with
collections/.building-<name>/next.sqlite    the ledger that it is being brought up to
collections/.building-<name>/state.json     what is being built; written when the rest is there

Bringing the index from one ledger to another is idempotent, and `next` becomes `done` by a rename
after it, so that a build that was killed goes on at the shard where it stopped.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from embed.model import AttributionModel
from embed.shards import ImageRow, read_shard
from ingest.errors import DataFolderBusyError, DataFolderError, RunError
from ingest.ledger import Ledger
from ingest.ledger_copy import LedgerChange
from ingest.record import point_id
from ingest.storage import Location
from search.folder import DataFolder, writing
from search.index_place import (
    IndexSettings,
    OpenIndex,
    ServerPlace,
    create_index,
    open_index,
    remove_index,
)
from search.server_settings import ServerSettings

__all__ = ["Building"]

_BATCH = 4096  # rows mapped and put in at once
_FLUSH_ROWS = 50_000  # what is done again at most after a kill
_MARK = "reindexed"
_TRIES = 40
_PAUSE_S = 0.05


class Building:
    """Use `begin`, then `take_over` and `catch_up` any number of times, then `close`.

    Attributes:
        path: its folder.
        model: the attribution model that it is built with.
        index: its index.
    """

    def __init__(
        self, folder: DataFolder, path: Path, model: AttributionModel, index: OpenIndex
    ) -> None:
        self.path = path
        self.model = model
        self.index = index
        self._folder = folder
        self._done = path / "done.sqlite"
        self._next = path / "next.sqlite"

    @classmethod
    def begin(
        cls,
        folder: DataFolder,
        name: str,
        model: AttributionModel,
        settings: IndexSettings,
        place: ServerPlace | None,
    ) -> Building:
        """Go on with what a broken run left of the same build, or begin.

        `place`: on a server, of the collection that this one is to take over from; None: the index
        is made in the folder.

        Raises:
            DataFolderError: the disk refuses.
            IndexFailedError: the index fails.
        """
        path = folder.collection(f".building-{name}")
        state = {
            "name": model.name,
            "fingerprint": model.full_fingerprint,
            "settings": asdict(settings),
            "server": place.url.server if place else "",
        }
        if _read_state(path) == state:
            try:
                index = open_index(path, model=model)
                return cls(folder, path, model, index)
            except DataFolderBusyError:
                raise
            except RunError:
                pass  # damaged: it is only a copy of what the shards say
        remove_index(path)
        with writing(folder.root):
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir(parents=True)
            model.save(path / "model")
        new = None
        if place is not None and isinstance(settings, ServerSettings):
            new = place.successor(name, settings)
        index = create_index(path, model, settings, new)
        with writing(folder.root):
            part = path / ".state.json.part"
            part.write_text(json.dumps(state), "utf-8")
            part.replace(path / "state.json")
        return cls(folder, path, model, index)

    def close(self) -> None:
        """Let go of the index. Calling it again does nothing."""
        self.index.close()

    def lag(self, ledger: Path) -> int:
        """How many images the index is behind that ledger."""
        with LedgerChange(self._before, ledger) as change:
            return change.count()

    def pending(self) -> int:
        """How many images the index is behind the state taken over last."""
        return self.lag(self._next) if self._next.exists() else 0

    def take_over(self, ledger: Ledger) -> int:
        """Note the ledger's state as the next to catch up with; returns by how many images."""
        if not self._next.exists():  # else a broken run's state is caught up with first
            ledger.copy_to(self._next)
        return self.lag(self._next)

    def catch_up(self, advance: Callable[[int], None]) -> int:
        """Make the index hold what the state taken over last says; returns images put in.

        Needs no lock on the data folder: where shards change meanwhile, the next state tells.

        Raises:
            DataFolderError: a feature shard is damaged.
            IndexFailedError: the index fails.
        """
        if not self._next.exists():
            return 0
        mapped = unsaved = 0
        marks = Ledger(self._next)
        try:
            reached = marks.mark(_MARK)
            above = -1 if reached is None else int(reached)
            with LedgerChange(self._before, self._next) as change:
                self._delete(change)
                for shard, dataset, keys in change.came(above):
                    mapped += self._put(shard, dataset, set(keys))
                    unsaved += len(keys)
                    advance(len(keys))
                    if unsaved >= _FLUSH_ROWS:
                        self.index.flush()
                        marks.set_mark(_MARK, str(shard))
                        unsaved = 0
            self.index.flush()
            marks.set_mark(_MARK, None)
        finally:
            marks.close()
        self._next.replace(self._done)
        return mapped

    @property
    def _before(self) -> Path | None:
        return self._done if self._done.exists() else None

    def _delete(self, change: LedgerChange) -> None:
        gone: list[UUID] = []
        for dataset, key in change.went():
            gone.append(point_id(dataset, key))
            if len(gone) == _BATCH:
                self.index.delete(gone)
                gone = []
        self.index.delete(gone)

    def _put(self, shard: int, dataset: str, keys: set[str]) -> int:
        features, rows = _read(self._folder.features(dataset), shard)
        wanted = [i for i, row in enumerate(rows) if row.key in keys]
        for start in range(0, len(wanted), _BATCH):
            part = wanted[start : start + _BATCH]
            self.index.upsert(
                [point_id(dataset, rows[i].key) for i in part],
                self.model.mappers.real(np.asarray(features[part], np.float32)),
                [rows[i].payload(shard) for i in part],
            )
        return len(wanted)


def _read(folder: Location, number: int) -> tuple[NDArray[np.float16], list[ImageRow]]:
    """A shard that another process may just be taking rows out of, one file after the other."""
    problem: Exception | None = None
    for _ in range(_TRIES):
        try:
            return read_shard(folder, number)
        except (OSError, ValueError) as exc:
            problem = exc
        time.sleep(_PAUSE_S)
    raise DataFolderError(
        f"feature shard {number} in {folder} cannot be read: {problem}; put it back from a backup, "
        "or ingest its images again with --force"
    ) from problem


def _read_state(path: Path) -> object:
    try:
        return json.loads((path / "state.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
