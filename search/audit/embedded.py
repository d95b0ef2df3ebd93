"""An audit whose images are embedded elsewhere: by workers, into feature shards that are read here.

The shards are those of a data folder of their own, `.work/gallery` in the audit's folder, which has
no index. Each source of the gallery is a dataset there, so that equal keys do not meet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np

from embed.model import AttributionModel
from embed.shards import read_shard, read_thumbnails
from ingest.ledger import Ledger
from ingest.record import Reject
from ingest.source import Source, TarSource
from ingest.storage import origin_of
from search.admission import Origin
from search.audit.answers import LocalAnswers
from search.audit.gallery import Gallery, Part
from search.audit.settings import AuditSettings
from search.audit.sink import Answered, PartsSink
from search.collection import Collection, collection_name
from search.folder import DataFolder, writing
from search.index import Index
from search.pipeline import IngestSettings
from search.writer import Failure, Finished, Started

__all__ = ["EmbeddedElsewhere", "EmbedsGallery"]


class EmbedsGallery(Protocol):
    """Brings a source into a data folder, as `search.ingestion.ingest` does."""

    def __call__(
        self,
        collection: Collection,
        source: Source,
        dataset: str,
        settings: IngestSettings,
        advance: Callable[[int], None],
    ) -> None:
        """All of the source that is not in the folder yet.

        Raises:
            WorkersError: some of it could not be done.
        """
        ...


class EmbeddedElsewhere(LocalAnswers):
    """`search.audit.answers.LocalAnswers` whose base features come from elsewhere.

    Args:
        collection: that answers, to be closed by the caller.
        gallery: that is audited.
        place: folder for the gallery's features; whoever embeds must be able to write there.
        embeds: who does.
    """

    def __init__(
        self, collection: Collection, gallery: Gallery, place: Path, embeds: EmbedsGallery
    ) -> None:
        super().__init__(collection, collection.embedder)
        self._gallery = gallery
        self._place = place
        self._embeds = embeds

    def take(
        self,
        parts: Iterable[Part],
        sink: PartsSink,
        settings: AuditSettings,
        advance: Callable[[int], None],
    ) -> None:
        """As `Answers.take`: first all is embedded, and then attributed part by part.

        Raises:
            WorkersError: some of it could not be embedded.
        """
        sizes = IngestSettings(
            shard_size=settings.part_size,
            batch_size=settings.batch_size,
            decode_threads=settings.decode_threads,
            limits=settings.limits,
        )
        datasets = {
            id(named): f"source-{number:05d}" for number, named in enumerate(self._gallery.sources)
        }
        with _gallery_folder(self._place, self._collection.model) as embedded:
            for named in self._gallery.sources:
                self._embeds(embedded, named.source, datasets[id(named)], sizes, advance)
            rejects = _rejects_of(embedded.ledger)
            try:
                for part in parts:
                    dataset = datasets[id(part.source)]
                    self._part(part, dataset, embedded, rejects.get(dataset, {}), sink, settings)
            finally:
                sink.abandon()

    def _part(
        self,
        part: Part,
        dataset: str,
        embedded: Collection,
        rejects: dict[str, list[Reject]],
        sink: PartsSink,
        settings: AuditSettings,
    ) -> None:
        sink.expect(part)
        sink.handle(Started(part.number, part.work.source.name))
        keys = None if part.work.items is None else [item.key for item in part.work.items]
        failed = [rejects.pop(key, []) for key in (list(rejects) if keys is None else keys)]
        for reject in (one for some in failed for one in some):
            sink.handle(Failure(reject, Origin("", "")))
        folder = embedded.folder.features(dataset)
        for number, wanted in _shards_of(part, dataset, embedded.ledger):
            features, rows = read_shard(folder, number)
            chosen = [i for i, row in enumerate(rows) if wanted is None or row.key in wanted]
            for start in range(0, len(chosen), settings.batch_size):
                some = chosen[start : start + settings.batch_size]
                batch = [rows[i] for i in some]
                names = [row.key for row in batch]
                answers = self._attribute(np.asarray(features[some], np.float32), names, settings)
                pictures = read_thumbnails(folder, number, names)
                sink.handle(Answered(batch, [pictures[name] for name in names], answers))
        sink.handle(Finished())


def _shards_of(
    part: Part, dataset: str, ledger: Ledger
) -> Iterator[tuple[int, frozenset[str] | None]]:
    """The shards that a part's images are in, with their keys; None for all of a shard."""
    source = part.work.source
    if isinstance(source, TarSource):
        found = ledger.tar(dataset, origin_of(source.path))
        if found is not None:
            yield found[1], None
        return
    known = ledger.known(dataset, [item.key for item in part.work.items or ()])
    usable = {key: entry.shard for key, entry in known.items() if entry.usable}
    for shard in sorted(set(usable.values())):
        yield shard, frozenset(key for key, at in usable.items() if at == shard)


def _rejects_of(ledger: Ledger) -> dict[str, dict[str, list[Reject]]]:
    """By dataset and key."""
    found: dict[str, dict[str, list[Reject]]] = {}
    for dataset, reject in ledger.rejects():
        found.setdefault(dataset, {}).setdefault(reject.key, []).append(reject)
    return found


@contextmanager
def _gallery_folder(place: Path, model: AttributionModel) -> Iterator[Collection]:
    """The data folder of the gallery's features, made where it is not there yet."""
    name = collection_name(model)
    with DataFolder.create(place, wait_s=10) as folder:
        with writing(place):
            if folder.current is None:
                model.save(folder.model(name))
                folder.set_current(name)
            ledger = Ledger(folder.ledger)
        try:
            index = cast("Index", _NoIndex(ledger, model.backbone.dim))
            yield Collection(folder, name, ledger, model, index)
        finally:
            ledger.close()


class _NoIndex:
    """Keeps nothing: the gallery's images are not searched among."""

    def __init__(self, ledger: Ledger, dim: int) -> None:
        self._ledger = ledger
        self.dim = dim

    def count(self, *_: object, **__: object) -> int:
        """As many as there should be."""
        return self._ledger.images()

    def scroll(self, *_: object, **__: object) -> Iterator[list[Any]]:
        """Nothing."""
        return iter(())

    def upsert(self, *_: object) -> None:
        """Keep nothing."""

    def delete(self, *_: object) -> None:
        """Nothing is there."""

    def flush(self) -> None:
        """Nothing is there."""

    def build(self, *_: object) -> None:
        """Nothing is there."""
