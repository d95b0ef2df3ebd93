"""One pass over images: their base features into shards, from the first that is not whole.

img_emb/, metadata/, thumbnails/    shards (see `embed.shards`), without thumbnails
stats/00000.json                    written when the shard is whole, so that it counts
done.json                           written when all shards are
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from embed.shards import ImageRow, ShardWriter, shard_paths
from ingest.decode import DecodeLimits, decode
from ingest.errors import ImageError, SourceError
from ingest.item import Item, printable
from ingest.record import ImageRecord, Reject
from ingest.source import ItemSource, Source
from search.folder import writing

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from embed.backbones import Backbone
    from embed.preprocess import Preprocessing

__all__ = ["SHARD", "Embeds", "Extracted", "Progress", "Run"]

SHARD = 1024
"""Images a shard: what a kill can cost."""

_BATCH = 32


class Embeds(Protocol):
    """What is needed of a loaded backbone; `embed.embedder.Embedder` is one."""

    @property
    def weights_hash(self) -> str:
        """sha256 over its tensors."""
        ...

    def embed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(images, dim) base features of (images, crop, crop, 3) pixels."""
        ...


class Progress(Protocol):
    """What a caller can show while images are embedded; `search.ingestion.Progress` is one."""

    def start(self, pending: int | None) -> None:
        """So many images are to be done; None where that is not known beforehand."""
        ...

    def advance(self, images: int) -> None:
        """So many more images are done."""
        ...


@dataclass(frozen=True)
class Extracted:
    """Base features in the cache.

    Attributes:
        folder: of the shards, in the layout of clip-retrieval.
        dim: length of a base feature.
        shards: how many there are, numbered from 0; one may have no rows.
        images: how many images were named.
        rows: how many of them have features, in their order.
        rejects: (position, path, why) of the images that have none.
    """

    folder: Path
    dim: int
    shards: int
    images: int
    rows: int
    rejects: tuple[tuple[int, str, str], ...]

    def features(self) -> NDArray[np.float16]:
        """(rows, dim) base features, all in memory."""
        parts = [
            np.load(path, allow_pickle=False)
            for path in (shard_paths(self.folder, n)[0] for n in range(self.shards))
            if path.exists()
        ]
        return np.concatenate(parts) if parts else np.empty((0, self.dim), np.float16)


@dataclass(frozen=True, slots=True)
class _Ready:
    row: ImageRow
    pixels: NDArray[np.uint8]


_Outcome = _Ready | Reject


class Run:
    """Use `go` once, then `close`."""

    def __init__(
        self,
        folder: Path,
        backbone: Backbone,
        embedder: Callable[[], Embeds],
        skip_bad: bool,
        limits: DecodeLimits | None,
        progress: Progress | None,
    ) -> None:
        self._folder = folder
        self._dim = backbone.dim
        self._preprocessing = backbone.preprocessing
        self._embedder = embedder
        self._skip_bad = skip_bad
        self._limits = limits or DecodeLimits()
        self._progress = progress
        threads = os.cpu_count() or 1
        self._ahead = 2 * _BATCH + threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="attrib-decode")
        self._writer: ShardWriter | None = None

    def close(self) -> None:
        """Stop reading; leave nothing of a shard that is not whole."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        if self._writer is not None:
            self._writer.abandon()

    def go(self, sources: Sequence[Source], count: int | None) -> Extracted:
        """Extract what is not there yet. `count`: images of the sources, None where unknown."""
        stats: list[dict[str, Any]] = []
        while (known := self._known(len(stats))) is not None:
            stats.append(known)
            self._refuse(known["rejects"])
        done = self._read(self._folder / "done.json")
        if done is None or done.get("shards") != len(stats):
            before = len(stats) * SHARD
            if self._progress is not None:
                self._progress.start(None if count is None else max(0, count - before))
            outcomes = self._outcomes(sources, before)
            while chunk := list(islice(outcomes, 1)):
                stats.append(self._shard(len(stats), chunk[0], outcomes))
            self._write(self._folder / "done.json", {"shards": len(stats)})
        rejects = tuple(
            (int(position), str(path), str(why))
            for known in stats
            for position, path, why in known["rejects"]
        )
        return Extracted(
            folder=self._folder,
            dim=self._dim,
            shards=len(stats),
            images=sum(known["images"] for known in stats),
            rows=sum(known["rows"] for known in stats),
            rejects=rejects,
        )

    def _shard(self, number: int, first: _Outcome, rest: Iterator[_Outcome]) -> dict[str, Any]:
        with writing(self._folder):
            writer = self._writer = ShardWriter(self._folder, number, self._dim)
        rejects: list[tuple[int, str, str]] = []
        images = 0
        outcomes = _chained(first, islice(rest, SHARD - 1))
        while batch := list(islice(outcomes, _BATCH)):
            for position, outcome in enumerate(batch, number * SHARD + images):
                if isinstance(outcome, Reject):
                    why = str(ImageError(outcome.reason, outcome.detail))
                    rejects.append((position, outcome.path, why))
            self._refuse(rejects)
            ready = [outcome for outcome in batch if isinstance(outcome, _Ready)]
            if ready:
                features = self._embedder().embed(np.stack([image.pixels for image in ready]))
                with writing(self._folder):
                    writer.append(features, [image.row for image in ready], [b""] * len(ready))
            images += len(batch)
            if self._progress is not None:
                self._progress.advance(len(batch))
        with writing(self._folder):
            writer.finish()
        self._writer = None
        known = {"images": images, "rows": writer.rows, "rejects": rejects}
        self._write(self._stats(number), known)
        return known

    def _outcomes(self, sources: Sequence[Source], skip: int) -> Iterator[_Outcome]:
        """The images in order, each read and decoded before it is needed."""
        waiting: deque[Future[_Outcome]] = deque()
        for job in islice(_jobs(sources), skip, None):
            waiting.append(self._pool.submit(_prepare, job, self._preprocessing, self._limits))
            if len(waiting) > self._ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def _refuse(self, rejects: Sequence[Sequence[Any]]) -> None:
        if rejects and not self._skip_bad:
            _, path, why = rejects[0]
            raise SourceError(f"{path} cannot be used: {why}; mend it, or leave bad images out")

    # -- what is whole ------------------------------------------------------------------------

    def _stats(self, number: int) -> Path:
        return self._folder / "stats" / f"{number:05d}.json"

    def _known(self, number: int) -> dict[str, Any] | None:
        """What the stats say of a shard, None where it is not whole."""
        known = self._read(self._stats(number))
        if (
            known is None
            or not all(isinstance(known.get(name), int) for name in ("images", "rows"))
            or not isinstance(known.get("rejects"), list)
        ):
            return None
        features, metadata, _ = shard_paths(self._folder, number)
        if known["rows"]:
            try:
                shape = np.load(features, mmap_mode="r", allow_pickle=False).shape
            except (OSError, ValueError, EOFError):
                return None
            if shape != (known["rows"], self._dim) or not metadata.exists():
                return None
        return known

    def _read(self, path: Path) -> dict[str, Any] | None:
        try:
            values = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError):
            return None
        return values if isinstance(values, dict) else None

    def _write(self, path: Path, values: dict[str, Any]) -> None:
        with writing(self._folder):
            path.parent.mkdir(exist_ok=True)
            temporary = path.with_name(f".{path.name}.part")
            temporary.write_text(json.dumps(values, ensure_ascii=False) + "\n", "utf-8")
            temporary.replace(path)


_Job = tuple[ItemSource, Item] | ImageRecord | Reject


def _jobs(sources: Sequence[Source]) -> Iterator[_Job]:
    for source in sources:
        if isinstance(source, ItemSource):
            yield from ((source, item) for item in source.items())
        else:
            yield from source.records()


def _prepare(job: _Job, preprocessing: Preprocessing, limits: DecodeLimits) -> _Outcome:
    file: Path | None = None
    if isinstance(job, tuple):
        source, item = job
        file, job = item.path if isinstance(item.path, Path) else None, source.read(item)
    if isinstance(job, Reject):
        return job
    try:
        decoded = decode(job.data, limits)
    except ImageError as exc:
        return Reject(job.key, job.path, exc.reason, exc.detail)
    row = ImageRow(
        key=job.key,
        dataset="",
        path=printable(os.path.realpath(file)) if file is not None else job.path,
        url=job.url,
        caption=job.caption,
        creator=job.creator,
        licence=job.licence,
        width=decoded.width,
        height=decoded.height,
        sha256=hashlib.sha256(job.data).hexdigest(),
    )
    return _Ready(row, preprocessing.apply(decoded.image))


def _chained(first: _Outcome, rest: Iterable[_Outcome]) -> Iterator[_Outcome]:
    yield first
    yield from rest
