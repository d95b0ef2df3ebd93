"""What a worker does with a shard that comes out of the queue."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from embed.model import AttributionModel
from ingest.errors import (
    AttribError,
    ModelError,
    ModelMismatchError,
    UsageError,
    WeightsError,
    WorkersError,
)
from ingest.source import UrlListSource
from search.folder import writing
from search.pipeline import DecodePool, IngestSettings, Pipeline
from search.writer import Batch, Failure, Message, Writer
from workers.board import Board
from workers.heartbeat import Heartbeat
from workers.metrics import Metrics
from workers.model_copy import same_weights, unpack_model
from workers.order import Order, read_order
from workers.results import Failed, is_ours, write_failure
from workers.stage import NotWantedError, StageSink

__all__ = ["LoadBackbone", "LoadedBackbone", "RefusedError", "ShardRunner"]

_MODEL_WAIT_S = 60.0


class LoadedBackbone(Protocol):
    """What a worker needs of a backbone; `embed.embedder.Embedder` is one."""

    device: str
    weights_hash: str

    def embed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(images, dim) base features of (images, height, width, 3) pixels."""
        ...


LoadBackbone = Callable[[AttributionModel], LoadedBackbone]


class RefusedError(Exception):
    """This worker cannot do any work of this kind: it has other weights, sees other folders."""


class ShardRunner:
    """Does one shard after another, with the model loaded once.

    Args:
        board: connection to Redis.
        heartbeat: of this process.
        name: of this worker.
        load: gives the backbone of a model, ready to embed.
        threads: readers and decoders.
        metrics: what is measured.
        note: file that says which shard this process has, for those who come after it.
    """

    def __init__(
        self,
        board: Board,
        heartbeat: Heartbeat,
        name: str,
        load: LoadBackbone,
        threads: int,
        metrics: Metrics,
        note: Path,
    ) -> None:
        self._board = board
        self._heartbeat = heartbeat
        self._name = name
        self._load = load
        self._threads = threads
        self._metrics = metrics
        self._note = note
        self._model: tuple[str, AttributionModel, LoadedBackbone] | None = None
        self._embedding_s = 0.0

    def run(self, values: dict[str, Any]) -> None:
        """Do a shard. What goes wrong with it is reported beside its features.

        Raises:
            RefusedError: it is not the shard that is at fault, but this worker.
        """
        try:
            order = read_order(values)
        except UsageError as exc:
            raise RefusedError(str(exc)) from exc
        except ValueError as exc:
            raise RefusedError(f"cannot read a task: {exc}") from exc
        if not self._is_wanted(order):
            return
        self._take_note(order)
        with self._heartbeat.shard(order):
            try:
                self._do(order)
            except NotWantedError:
                pass
            except RefusedError:
                raise
            except AttribError as exc:
                self._report(order, str(exc))
            except Exception as exc:
                self._report(order, f"unexpected {type(exc).__name__}: {exc}")
        self._note.unlink(missing_ok=True)

    def _is_wanted(self, order: Order) -> bool:
        try:
            return self._board.wanted(order.plan, [order.spec.number]) == [order.send]
        except WorkersError:
            return False  # the coordinator will send it again

    def _check(self, order: Order) -> None:
        """Before anything that others see: is the shard still ours?"""
        if self._heartbeat.lost:
            raise NotWantedError
        with suppress(WorkersError):  # Redis is away: the work counts
            wanted = self._board.wanted(order.plan, [order.spec.number])[0]
            if wanted is not None and wanted != order.send:
                raise NotWantedError

    def _do(self, order: Order) -> None:
        began = time.monotonic()
        if not is_ours(order.features, order.plan):
            raise RefusedError(
                f"{order.features} is not the folder that the ingest writes to, as seen from here; "
                "mount the data folder under the same path, or keep features in a store with "
                "`attrib ingest --features-to s3://BUCKET/PREFIX`"
            )
        model, backbone = self._backbone_for(order)
        self._heartbeat.stage = "embedding"
        spec = order.spec
        settings = IngestSettings(
            batch_size=spec.batch_size, decode_threads=self._threads, limits=spec.limits
        )
        work = spec.work()
        tally = {"ok": 0, "rejected": 0}
        self._embedding_s = 0.0
        with self._index_of(order, model) as index, _closing(work.source):
            sink = StageSink(
                order,
                index,
                model.mappers,
                model.backbone.dim,
                self._name,
                lambda: self._check(order),
                self._timed,
            )
            with (
                writing(Path(str(order.features))),
                Writer(sink) as writer,
                DecodePool(settings.decode_threads) as pool,
            ):

                def put(message: Message) -> None:
                    if self._heartbeat.lost:
                        raise NotWantedError
                    if isinstance(message, Batch):
                        tally["ok"] += len(message.images)
                    elif isinstance(message, Failure):
                        tally["rejected"] += 1
                    writer.put(message)

                pipeline = Pipeline(
                    lambda: _Timed(backbone, self),
                    spec.dataset,
                    model.backbone.preprocessing,
                    settings,
                    pool,
                    put,
                    self._heartbeat.advance,
                )
                pipeline.run([(spec.number, work)])
        if sink.finished:
            seconds = time.monotonic() - began
            self._metrics.images(tally["ok"], tally["rejected"])
            self._metrics.done(seconds)
            self._metrics.spent("embed", self._embedding_s)
            self._metrics.spent("read", seconds - self._embedding_s)

    def _backbone_for(self, order: Order) -> tuple[AttributionModel, LoadedBackbone]:
        if self._model is None or self._model[0] != order.fingerprint:
            self._heartbeat.stage = "loading the model"
            try:
                model = unpack_model(self._published(order))
                if model.full_feature_fingerprint != order.fingerprint:
                    raise WorkersError(
                        f"the model {order.model} gives other features here than the index has: "
                        f"{model.feature_fingerprint}, not {order.fingerprint[:16]}"
                    )
                self._model = None  # two models may not fit the device
                backbone = self._load(model)
                same_weights(model, model.backbone, backbone.weights_hash)
            except (ModelError, WeightsError, UsageError, WorkersError) as exc:
                raise RefusedError(str(exc)) from exc
            self._model = (order.fingerprint, model, backbone)
            self._heartbeat.device = backbone.device
        return self._model[1], self._model[2]

    def _published(self, order: Order) -> str:
        """The coordinator puts it back where Redis was emptied."""
        until = time.monotonic() + _MODEL_WAIT_S
        while True:
            with suppress(WorkersError):
                if (packed := self._board.published(order.fingerprint)) is not None:
                    return packed
            if self._heartbeat.lost:
                raise NotWantedError
            if time.monotonic() > until:
                raise WorkersError(f"Redis has no model {order.fingerprint[:16]}; is it full?")
            time.sleep(0.2)

    @contextmanager
    def _index_of(self, order: Order, model: AttributionModel) -> Iterator[Any]:
        if order.index is None:
            yield None
            return
        from search.index_url import parse_index_url
        from search.server import ServerIndex

        url, collection = order.index
        try:
            index = ServerIndex.open(
                parse_index_url(url),
                collection,
                fingerprint=model.feature_fingerprint,
                dim=model.dim,
            )
        except ModelMismatchError as exc:
            raise RefusedError(str(exc)) from exc
        with closing(index):
            yield index

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self._metrics.spent(stage, time.monotonic() - began)

    def embedded(self, seconds: float) -> None:
        """So long a batch took to embed."""
        self._embedding_s += seconds

    def _report(self, order: Order, reason: str) -> None:
        failed = Failed(
            order.spec.number,
            order.plan,
            order.send,
            "failed",
            " ".join(reason.split()),
            self._name,
        )
        self._metrics.failed(last=order.last)
        with suppress(OSError, AttribError):  # the coordinator will miss its beats
            write_failure(order.features, failed)

    def _take_note(self, order: Order) -> None:
        self._note.write_text(
            json.dumps(
                {
                    "features": str(order.features),
                    "number": order.spec.number,
                    "plan": order.plan,
                    "send": order.send,
                    "last": order.last,
                    "source": order.spec.name,
                }
            ),
            "utf-8",
        )


class _Timed:
    def __init__(self, backbone: LoadedBackbone, runner: ShardRunner) -> None:
        self._backbone = backbone
        self._runner = runner

    def embed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        began = time.monotonic()
        features = self._backbone.embed(pixels)
        self._runner.embedded(time.monotonic() - began)
        return features


def _closing(source: object) -> Any:  # noqa: ANN401 (of either kind)
    return closing(source) if isinstance(source, UrlListSource) else nullcontext()
