"""Who answers an audit: a collection that is open here, or a service elsewhere."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Protocol
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from embed.shards import read_thumbnails
from search.answer import Attribution
from search.attribution import Attributor
from search.audit.derived import thresholds_for
from search.audit.filters import Filters
from search.audit.flags import Thresholds
from search.audit.gallery import Part
from search.audit.payload_fields import Known, known_fields
from search.audit.remembered import remembered
from search.audit.settings import AuditSettings
from search.audit.sink import PartsSink
from search.collection import Collection
from search.index import Payload, Where
from search.pipeline import DecodePool, Embeds, IngestSettings, Pipeline
from search.plan import Work
from search.records import Records
from search.writer import Writer

__all__ = ["Answers", "LocalAnswers"]


class Answers(Protocol):
    """What an audit needs of those who answer."""

    def facts(self) -> Mapping[str, Any]:
        """What there is, as `Collection.facts`."""
        ...

    def thresholds(self, settings: AuditSettings) -> Thresholds:
        """Those of the settings, with what only the collection tells."""
        ...

    def matching(self, where: Where) -> int:
        """How many training images match a filter.

        Raises:
            UsageError: a field that cannot be filtered by.
        """
        ...

    def known_fields(self, names: Sequence[str]) -> Known:
        """Which of some fields no training image has a value of."""
        ...

    def payloads(self, training_ids: Sequence[str]) -> Sequence[Payload | None]:
        """All that is known of training images, None where one is gone."""
        ...

    def take(
        self,
        parts: Iterable[Part],
        sink: PartsSink,
        settings: AuditSettings,
        advance: Callable[[int], None],
    ) -> None:
        """Read the parts and have them attributed; the sink gets what comes of it, in order.

        Raises:
            AttribError: a source cannot be read, the backbone or the index fails, ...
        """
        ...

    def thumbnails(self, training_ids: Sequence[str]) -> list[bytes | None]:
        """Image files of training images' thumbnails, None where there is none."""
        ...


class LocalAnswers:
    """An open collection.

    Args:
        collection: to be closed by the caller.
        backbone: called for the loaded backbone once there is something to embed.
    """

    def __init__(self, collection: Collection, backbone: Callable[[], Embeds]) -> None:
        self._collection = collection
        self._backbone = backbone
        model = collection.model
        self._index = remembered(collection.index)
        self._filters = Filters(collection.index)
        self._attributor = Attributor(
            self._index,
            model.name,
            model.fingerprint,
            model.calibrator,
            records=Records(self._index),
        )

    def facts(self) -> Mapping[str, Any]:
        """As `Answers.facts`."""
        return self._collection.facts()

    def thresholds(self, settings: AuditSettings) -> Thresholds:
        """As `Answers.thresholds`."""
        collection = self._collection
        return thresholds_for(
            collection.index, collection.model.name, settings.thresholds, settings.copy_model
        )

    def matching(self, where: Where) -> int:
        """As `Answers.matching`."""
        return self._filters.count(where)

    def known_fields(self, names: Sequence[str]) -> Known:
        """As `Answers.known_fields`. All payloads are read where no image has one of them."""
        index = self._collection.index  # whose payloads are not worth remembering here
        return known_fields(names, (index.fetch(ids) for ids in index.scroll()))

    def payloads(self, training_ids: Sequence[str]) -> Sequence[Payload | None]:
        """As `Answers.payloads`."""
        return self._index.fetch([UUID(id) for id in training_ids])

    def take(
        self,
        parts: Iterable[Part],
        sink: PartsSink,
        settings: AuditSettings,
        advance: Callable[[int], None],
    ) -> None:
        """As `Answers.take`. The calling thread embeds; the sink works in a thread of its own."""
        sizes = IngestSettings(
            shard_size=settings.part_size,
            batch_size=settings.batch_size,
            decode_threads=settings.decode_threads,
            limits=settings.limits,
        )

        def works() -> Iterator[tuple[int, Work]]:
            for part in parts:
                sink.expect(part)
                yield part.number, part.work

        def backbone() -> Embeds:
            loaded = self._backbone()
            # Answers are many small objects: what is there already need not be gone through
            # again and again for what may have become garbage, with all other threads waiting.
            gc.freeze()
            return loaded

        sink.attribute = partial(self._attribute, settings=settings)
        preprocessing = self._collection.model.backbone.preprocessing
        try:
            with Writer(sink) as writer, DecodePool(settings.decode_threads) as pool:
                put = writer.put
                Pipeline(backbone, "gallery", preprocessing, sizes, pool, put, advance).run(works())
        finally:
            gc.unfreeze()

    def _attribute(
        self, features: NDArray[np.float32], names: Sequence[str], settings: AuditSettings
    ) -> list[Attribution]:
        # The same rounding as in `Collection.features`.
        half = features.astype(np.float16)
        return self._attributor.attribute(
            self._collection.model.mappers.synth(half.astype(np.float32)),
            names,
            k=settings.k,
            mass=settings.mass,
            without=self._filters.indexed(settings.without) or None,
            exact=settings.exact,
        )

    def thumbnails(self, training_ids: Sequence[str]) -> list[bytes | None]:
        """As `Answers.thumbnails`; each shard's file is opened once."""
        wanted: dict[tuple[str, int], list[str]] = {}
        places: list[tuple[tuple[str, int], str] | None] = []
        for payload in self._index.fetch([UUID(id) for id in training_ids]):
            if payload is None or payload.get("shard") is None:
                places.append(None)
                continue
            shard, key = (str(payload["dataset"]), int(payload["shard"])), str(payload["key"])
            wanted.setdefault(shard, []).append(key)
            places.append((shard, key))
        found: dict[tuple[str, int], dict[str, bytes]] = {}
        for (dataset, number), keys in wanted.items():
            with suppress(OSError):
                folder = self._collection.folder.features(dataset)
                found[dataset, number] = read_thumbnails(folder, number, keys)
        return [place and found.get(place[0], {}).get(place[1]) for place in places]
