"""The embedded index: Qdrant Edge in a folder, nothing to be started."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any
from uuid import UUID

import numpy as np

from ingest.errors import (
    DataFolderBusyError,
    DataFolderError,
    IndexFailedError,
    UsageError,
)
from search.checks import (
    check_features,
    check_fields,
    check_points,
    check_positive,
    pack_ids,
    payloads_json,
    unpack_ids,
)
from search.chosen import EVERYTHING, Chosen, check_chosen
from search.edge_channel import Channel, ProcessBusyError
from search.edge_settings import EdgeSettings, read_settings, write_settings
from search.index import Features, Hits, IndexInfo, Payload, Sample, Where
from search.packed_ids import PackedIds

__all__ = ["EdgeIndex", "EdgeSettings"]

_UPSERT_POINTS = 1000  # points a message
_START_S = 60.0
_LOAD_S = 900.0  # replaying a long write-ahead log, on a slow disk
_ID_BYTES = 16


class EdgeIndex:
    """An index in a folder, held by a process of its own; implements `search.index.Index`.

    Made by `create` or `open`; a context manager. Only one process at a time can have a folder
    open, for reading too. Safe to use from several threads, which take turns; a copy in a forked
    process refuses to work. `upsert` returns before the points are in: `flush` waits for them and
    raises what went wrong. All other calls see every upsert before them.
    """

    def __init__(self, folder: Path, dim: int, settings: EdgeSettings, channel: Channel) -> None:
        self._folder = folder
        self._dim = dim
        self._settings = settings
        self._channel = channel
        self._closed = False
        self._points: int | None = None

    @classmethod
    def create(
        cls, folder: str | os.PathLike[str], dim: int, settings: EdgeSettings | None = None
    ) -> EdgeIndex:
        """Make a new index of features of length `dim` in `folder`, and open it.

        The folder must not exist or be empty; it appears complete or not at all. Raises
        DataFolderError where it cannot be made.
        """
        if not 1 <= dim <= 65_536:
            raise UsageError(f"features must have 1 to 65536 numbers, not {dim}")
        settings = settings or EdgeSettings()
        folder = Path(folder).absolute()
        new = folder.with_name(f".{folder.name}.new-{os.getpid()}")
        try:
            if folder.is_dir() and any(folder.iterdir()):
                raise DataFolderError(f"{folder} is not empty; choose another folder for the index")
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir(parents=True)
        except OSError as exc:
            raise _unusable(folder, exc) from exc
        channel = Channel(folder)
        try:
            channel.call("hello", timeout_s=_START_S)
            channel.call("create", str(new), dim, settings)
            write_settings(new, dim, settings)
            new.replace(folder)
            return cls._opened(folder, dim, settings, channel, wait_s=0.0)
        except BaseException as exc:
            channel.close()
            shutil.rmtree(new, ignore_errors=True)
            if isinstance(exc, OSError):
                raise _unusable(folder, exc) from exc
            raise

    @classmethod
    def open(cls, folder: str | os.PathLike[str], *, wait_s: float = 2.0) -> EdgeIndex:
        """Open the index in `folder`.

        `wait_s`: how long to wait for a process that has it open, as one that is just ending has.
        Raises DataFolderBusyError where it is still open then, DataFolderError where there is no
        index or it is of a newer format.
        """
        folder = Path(folder).absolute()
        dim, settings = read_settings(folder)
        channel = Channel(folder)
        try:
            channel.call("hello", timeout_s=_START_S)
            return cls._opened(folder, dim, settings, channel, wait_s)
        except BaseException:
            channel.close()
            raise

    @classmethod
    def _opened(
        cls, folder: Path, dim: int, settings: EdgeSettings, channel: Channel, wait_s: float
    ) -> EdgeIndex:
        try:
            channel.call("open", str(folder), dim, settings, wait_s, timeout_s=_LOAD_S + wait_s)
        except ProcessBusyError as exc:
            raise DataFolderBusyError(
                f"the index in {folder} is in use by another process; "
                "wait for it to end, or stop it"
            ) from exc
        return cls(folder, dim, settings, channel)

    @property
    def dim(self) -> int:
        """Length of a feature."""
        return self._dim

    @property
    def folder(self) -> Path:
        """Where the index lies."""
        return self._folder

    @property
    def settings(self) -> EdgeSettings:
        """The settings that it was created with."""
        return self._settings

    @property
    def process_id(self) -> int:
        """Id of the process that holds the shard."""
        return self._channel.pid

    def upsert(self, ids: Sequence[UUID], vectors: Features, payloads: Sequence[Payload]) -> None:
        """Put points in, replacing those of the same id; see `Index.upsert`.

        Raises UsageError, and changes nothing, where ids repeat, lengths differ, a vector is not
        finite or not of norm 1, or a payload is not JSON.
        """
        packed = pack_ids(ids)
        rows = check_points(ids, vectors, payloads, self._dim)
        parts = []
        for start in range(0, len(ids), _UPSERT_POINTS):
            stop = min(start + _UPSERT_POINTS, len(ids))
            parts.append((start, stop, payloads_json(payloads[start:stop])))
        self._points = None
        for start, stop, content in parts:
            self._channel.post(
                "upsert",
                packed[start * _ID_BYTES : stop * _ID_BYTES],
                rows[start:stop].tobytes(),
                content,
            )

    def search(
        self,
        queries: Features,
        limit: int,
        *,
        where: Where | None = None,
        without: Where | None = None,
        exact: bool = False,
    ) -> list[Hits]:
        """The `limit` nearest points of each query, (queries, dim); see `Index.search`.

        Of points exactly as similar as the last one, those of the lowest ids are returned.
        """
        check_positive("limit", limit)
        chosen = check_chosen(where, without)
        rows = check_features(queries, self._dim, "queries")
        found = self._channel.call("search", rows.tobytes(), limit, chosen, exact)
        return [
            Hits(PackedIds(ids), np.frombuffer(similarities, dtype=np.float32))
            for ids, similarities in found
        ]

    def fetch(
        self, ids: Sequence[UUID], *, fields: Sequence[str] | None = None
    ) -> list[Payload | None]:
        """Payloads in the order of `ids`, None where there is no such point."""
        chosen = None if fields is None else list(fields)
        payloads: list[Payload | None] = json.loads(
            self._channel.call("fetch", pack_ids(ids), chosen)
        )
        return payloads

    def vectors(self, ids: Sequence[UUID]) -> Features:
        """(ids, dim) in the order of `ids`; an unknown id raises IndexFailedError."""
        content, missing = self._channel.call("vectors", pack_ids(ids))
        if missing:
            raise IndexFailedError(f"there is no point {UUID(bytes=missing)} in the index")
        return self._rows(content)

    def count(self, where: Where | None = None, *, without: Where | None = None) -> int:
        """How many points match, and do not match `without`, exactly."""
        if chosen := check_chosen(where, without):
            matching: int = self._channel.call("count", chosen)
            return matching
        if (
            self._points is None or self._closed
        ):  # the folder is this process's own: nobody else changes it
            self._points = int(self._channel.call("count", EVERYTHING))
        return self._points

    def facet(self, field: str, *, limit: int = 1000) -> dict[str, int]:
        """How many points each value of an indexed field has, most frequent first."""
        check_fields([field])
        check_positive("limit", limit)
        return dict(self._channel.call("facet", field, limit))

    def scroll(
        self,
        where: Where | None = None,
        *,
        without: Where | None = None,
        batch: int = 1000,
        start: UUID | None = None,
    ) -> Iterator[list[UUID]]:
        """Ids that match, and do not match `without`, in batches, ascending, from `start` on."""
        check_positive("batch", batch)
        chosen = check_chosen(where, without)
        return self._pages(chosen, batch, b"" if start is None else start.bytes)

    def delete(self, ids: Sequence[UUID]) -> None:
        """Take points out; unknown ids are no error."""
        if len(ids):
            self._points = None
            self._channel.call("delete", pack_ids(ids))

    def sample(self) -> Sample:
        """The fixed uniform sample, at most `settings.sample_size` points."""
        ids, content = self._channel.call("sample")
        return Sample(unpack_ids(ids), self._rows(content))

    def build(self, progress: Callable[[float], None] | None = None) -> None:
        """Bring graphs, quantization and sample up to date; minutes for a million points.

        `progress` is called with the seconds so far, about four times a second. Other calls wait.
        """
        self._channel.settle()
        self._channel.call("build", waiting=progress)

    def flush(self) -> None:
        """Wait until everything so far is durable; raises the first failure among the upserts."""
        self._channel.settle()
        self._channel.call("flush")

    def info(self) -> IndexInfo:
        """State and settings; `details` has bytes on disk and in memory, segments, sample size."""
        state: dict[str, Any] = self._channel.call("info")
        settings = self._settings
        return IndexInfo(
            backend="edge",
            points=state.pop("points"),
            indexed=state.pop("indexed"),
            dim=self._dim,
            quantization=settings.quantization,
            ef=state.pop("ef"),
            details={
                **state,
                "m": settings.m,
                "ef_construct": settings.ef_construct,
                "oversampling": settings.candidates_per_hit,
                "datatype": settings.datatype,
                "folder": str(self._folder),
            },
        )

    def close(self) -> None:
        """Flush, end the process and let go of the folder. Calling it again does nothing."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._channel.usable:
                self.flush()
        finally:
            self._channel.close()

    def __enter__(self) -> EdgeIndex:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except IndexFailedError:
            if error is None:  # else the first error is the one to be told
                raise

    def _pages(self, chosen: Chosen, batch: int, after: bytes) -> Iterator[list[UUID]]:
        while True:
            ids, after = self._channel.call("scroll", chosen, after, batch)
            if ids:
                yield unpack_ids(ids)
            if not after:
                return

    def _rows(self, content: bytes) -> Features:
        return np.frombuffer(content, dtype=np.float32).reshape(-1, self._dim)


def _unusable(folder: Path, exc: OSError) -> DataFolderError:
    return DataFolderError(f"cannot make an index in {folder}: {exc.strerror or exc}")
