"""The collection and its model at work: decoding, embedding and searching for many requests.

Decoding has threads of its own, the model one thread and the index one: what concurrent requests
have ready is embedded and searched in batches. Nothing here runs in the event loop.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, TypeAlias, TypeVar
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from embed.model import AttributionModel
from embed.shard_files import exists
from embed.shards import read_thumbnails, shard_paths
from ingest.decode import decode
from ingest.errors import AttribError, DataFolderBusyError, UsageError
from search.attribution import Attributor
from search.collection import Collection
from search.index import Payload, Where
from search.removal import take_down
from search.service.asked import Asked, Filter, Found, QueryImage, Wanted
from search.service.batching import Batcher
from search.service.clocked import Clock, clocked
from search.service.contents import contents_of
from search.service.kept import Kept
from search.service.metrics import Metrics
from search.service.problems import Problem
from search.service.query_picture import QueryPicture
from search.service.settings import ServiceSettings
from search.service.turns import Turns

__all__ = ["Engine"]

T = TypeVar("T")

_THUMBNAIL_CACHE_BYTES = 32 * 1024 * 1024

_Question: TypeAlias = tuple[Asked, Callable[[Found], Any]]


class Engine:
    """Answers queries of one data folder.

    Args:
        root: the data folder.
        settings: of the service.
        metrics: where the stages are noted.
        model: refuse to serve with another model than this.
    """

    def __init__(
        self,
        root: Path,
        settings: ServiceSettings,
        metrics: Metrics,
        model: AttributionModel | None = None,
    ) -> None:
        self._root = root
        self._settings = settings
        self._metrics = metrics
        self._wanted = model
        self._loaded: Collection | None = None
        self._attributor: Attributor | None = None
        self._clock = Clock()
        self._decoding = 0  # images that the model may soon have; changed in the event loop alone
        # Takedowns and searches take turns: an answer must not lose a training image half-way.
        self._index_turn = threading.Lock()
        self._mark = (0, 0)
        self._contents = ""
        self._pixels = Turns(settings.max_pixels_in_flight)
        self._thumbnails: Kept[bytes] = Kept(_THUMBNAIL_CACHE_BYTES)
        self._with_thumbnails: dict[tuple[str, int], bool] = {}
        self._threads = ThreadPoolExecutor(max(2, os.cpu_count() or 1), "attrib-decode")
        self._model_thread: Batcher[NDArray[np.uint8], NDArray[np.float32]] = Batcher(
            "attrib-model",
            self._embed,
            largest=settings.embed_batch,
            wait_s=settings.embed_wait_s,
            coming=lambda: self._decoding > 0,
        )
        self._index_thread: Batcher[_Question, Any] = Batcher(
            "attrib-index", self._answers, largest=settings.search_batch, wait_s=0
        )
        self.ready = False
        metrics.gauge("attrib_ready", "1 once model and index are warm.", lambda: self.ready)
        for stage, thread in (("embed", self._model_thread), ("search", self._index_thread)):
            metrics.gauge(
                f"attrib_{stage}_queue_depth",
                f"Queries that wait for the {stage} stage.",
                lambda thread=thread: thread.depth,  # type: ignore[misc]
            )

    # -- opening and closing -------------------------------------------------------------------

    def load(self) -> None:
        """Open the folder, load the model, and answer one query to warm both.

        Raises:
            AttribError: as `Collection.open` and `Collection.embedder`.
        """
        collection = Collection.open(self._root, model=self._wanted, shared=True)
        if collection.folder.shared:
            self._mark = _mark(collection)
        self._contents = contents_of(collection)
        self._loaded = collection
        model = collection.model
        self._attributor = Attributor(
            clocked(collection.index, self._clock), model.name, model.fingerprint, model.calibrator
        )
        crop = model.backbone.preprocessing.crop
        grey = np.full((crop, crop, 3), 127, np.uint8)
        # In the thread that will use it: how many threads an operator has is a thread's own affair.
        first = self._model_thread.submit(grey).result()
        for warm in [self._model_thread.submit(grey) for _ in range(self._settings.embed_batch)]:
            warm.result()
        if collection.index.count():
            self._attributor.attribute(first[None], ["warm-up"])
        self.ready = True

    def close(self) -> None:
        """Finish what was accepted, and let go of the data folder."""
        self.ready = False
        self._threads.shutdown()
        self._model_thread.close()
        self._index_thread.close()
        if self._loaded is not None:
            self._loaded.close()

    @property
    def collection(self) -> Collection:
        """What is served.

        Raises:
            Problem: it is not ready yet.
        """
        if self._loaded is None or not self.ready:
            detail = "the model and the index are being loaded; ask again in a moment"
            raise Problem(503, "not-ready", detail, headers={"Retry-After": "2"})
        return self._loaded

    async def run(self, work: Callable[..., T], *args: object) -> T:
        """Do something that takes time, or reads files, beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)

    # -- answering -----------------------------------------------------------------------------

    async def read(self, data: bytes) -> QueryImage:
        """Decode and preprocess.

        Raises:
            ImageError: not an image that can be used.
        """
        self._decoding += 1
        try:
            return await self.run(self._read, data)
        finally:
            self._decoding -= 1

    def _read(self, data: bytes) -> QueryImage:
        limits = self._settings.limits
        began = time.perf_counter()
        with ExitStack() as held:
            image = decode(
                data, limits, before=lambda count: held.enter_context(self._pixels.taken(count))
            ).image
            pixels = self.collection.model.backbone.preprocessing.apply(image)
            self._metrics.stage_seconds.labels("decode").observe(time.perf_counter() - began)
            picture = QueryPicture.of(data, image, limits)
        return QueryImage(pixels, hashlib.sha256(data).digest(), picture)

    async def features(self, image: QueryImage) -> NDArray[np.float32]:
        """(dim,) `synth` features."""
        return await self._model_thread.result(image.pixels)

    async def answer(self, asked: Asked, write: Callable[[Found], T]) -> T:
        """What `write` makes of the attribution of one query.

        It is called where the attribution was made: what is still at hand there costs one more
        change of threads anywhere else.

        Raises:
            AttribError: as `Attributor.attribute`.
        """
        made: T | Exception = await self._index_thread.result((asked, write))
        if isinstance(made, Exception):
            raise made
        return made

    def _embed(self, pixels: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        assert self._loaded is not None  # noqa: S101 (no request is accepted before)
        began = time.perf_counter()
        features = self._loaded.features_of_pixels(np.stack(pixels))
        self._metrics.stage_seconds.labels("embed").observe(time.perf_counter() - began)
        self._metrics.batch_size.labels("embed").observe(len(pixels))
        return features

    def _answers(self, questions: Sequence[_Question]) -> Iterator[object]:
        """Searched together, and written one by one: who was first does not wait for the last."""
        found = self._search([asked for asked, _ in questions])
        for (_, write), answer in zip(questions, found, strict=True):
            try:
                yield answer if isinstance(answer, Exception) else write(answer)
            except Exception as exc:
                yield exc

    def _search(self, queries: Sequence[Asked]) -> list[Found | Exception]:
        """Those that want the same are searched together; what one did wrong is its own answer."""
        answers: dict[int, Found | Exception] = {}
        alike: dict[Wanted, list[int]] = {}
        for place, query in enumerate(queries):
            alike.setdefault(query.wanted, []).append(place)
        for wanted, places in alike.items():
            found: list[Found | Exception] = []
            try:
                found += self._attribute(wanted, [queries[place] for place in places])
            except Exception as exc:
                alone = len(places) == 1
                found += [exc] if alone else [self._search([queries[i]])[0] for i in places]
            answers.update(zip(places, found, strict=True))
        return [answers[place] for place in range(len(queries))]

    def _attribute(self, wanted: Wanted, queries: Sequence[Asked]) -> list[Found]:
        assert self._attributor is not None  # noqa: S101 (no request is accepted before)
        features = np.stack([query.features for query in queries])
        with self._index_turn:
            self._clock.taken()
            began = time.perf_counter()
            answers = self._attributor.attribute(
                features,
                [query.name for query in queries],
                k=wanted.k,
                mass=wanted.mass,
                where=_plain(wanted.where),
                without=_plain(wanted.without),
                group_by=wanted.group_by or None,
                exact=wanted.exact,
            )
            contents = self._contents  # of now: the next takedown waits for its turn
            taken, searching = time.perf_counter() - began, self._clock.taken()
        self._metrics.stage_seconds.labels("search").observe(searching)
        self._metrics.stage_seconds.labels("calibrate").observe(max(taken - searching, 0))
        self._metrics.batch_size.labels("search").observe(len(queries))
        for answer in answers:
            self._metrics.answers.labels(answer.method).inc()
            if answer.support is not None:
                self._metrics.support.observe(answer.support)
        return [Found(answer, self.collection.name, contents) for answer in answers]

    # -- training images -----------------------------------------------------------------------

    def payload(self, point: UUID) -> Payload | None:
        """What is known of a training image; None where there is none of that id."""
        return self.collection.index.fetch([point])[0]

    def has_thumbnail(self, dataset: str, shard: int | None) -> bool:
        """Whether thumbnails were kept with the shard that a training image is in."""
        if shard is None:
            return False
        known = self._with_thumbnails.get((dataset, shard))
        if known is None:
            folder = self.collection.folder.features(dataset)
            known = bool(exists(shard_paths(folder, shard)[2]))
            self._with_thumbnails[dataset, shard] = known
        return known

    def thumbnail(self, point: UUID) -> bytes | None:
        """The image file of a training image's thumbnail; None where there is none."""
        if (kept := self._thumbnails.get(str(point))) is not None:
            return kept
        since = self._thumbnails.generation
        payload = self.payload(point)
        if payload is None or payload.get("shard") is None:
            return None
        folder = self.collection.folder.features(str(payload["dataset"]))
        with suppress(FileNotFoundError):  # a takedown is just writing the shard anew
            found = read_thumbnails(folder, int(payload["shard"]), [str(payload["key"])])
            if (data := found.get(str(payload["key"]))) is not None:
                self._thumbnails.put(str(point), data, len(data), since=since)
                return data
        return None

    def facts(self) -> dict[str, Any]:
        """What is served; without the place of the data folder, which is the operator's affair."""
        with self._index_turn:
            facts = {**self.collection.facts(), "contents": self._contents}
        del facts["data"]
        facts["index"].pop("folder", None)
        return facts

    def matching(self, keys: Sequence[str], where: Where) -> int:
        """How many training images `delete` would take down."""
        index = self.collection.index
        count = index.count({"key": list(keys)}) if keys else 0
        if where:
            count += index.count(where)
            named = where.get("key")
            both = list(keys) if named is None else sorted(set(keys) & set(named))
            if keys and both:
                count -= index.count({**where, "key": both})
        return count

    def delete(self, keys: Sequence[str], where: Where) -> int:
        """Take training images down for good; returns how many.

        Raises:
            UsageError: neither keys nor a filter.
            RunError: the folder or the index fails.
        """
        if not keys and not where:
            raise UsageError("say what to delete: keys or where")
        try:
            if not self.collection.folder.shared:
                with self._index_turn:
                    try:
                        return take_down(self.collection, keys=keys, where=where or None)
                    finally:
                        self._contents = contents_of(self.collection)
            with Collection.open(self._root) as owned:  # for this one act the folder must be ours
                return take_down(owned, keys=keys, where=where or None)
        except DataFolderBusyError as exc:
            detail = "the data folder is being written to, by an ingest say: ask again after it"
            headers = {"Retry-After": "60"}
            raise Problem(503, "folder-busy", detail, headers=headers) from exc
        finally:
            self._thumbnails.clear()
            with suppress(AttribError):  # it is looked at again soon
                self.notice()

    def notice(self) -> bool:
        """See what others wrote to a shared folder; whether images were taken down there."""
        if self._loaded is None or not self._loaded.folder.shared:
            return False
        before, mark = self._mark, _mark(self._loaded)
        if before != mark:
            self._contents = contents_of(self._loaded)
            self._mark = mark
            self._thumbnails.clear()
            self._with_thumbnails.clear()
        return before[0] != mark[0]


def _mark(collection: Collection) -> tuple[int, int]:
    """Tombstones, and the next shard's number: they tell whether anything was written."""
    return collection.ledger.tombstones(), collection.ledger.next_shard(reserved=False)


def _plain(condition: Filter) -> Where:
    return {field: list(values) for field, values in condition}
