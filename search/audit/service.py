"""Answers of a service: images' files are sent to it, and decoded here for their looks alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from embed.prepare import row_of
from embed.shards import ImageRow
from ingest.decode import DecodeLimits, decode
from ingest.errors import ImageError, SourceError
from ingest.ledger import TarRow
from ingest.record import ImageRecord, Reject
from ingest.source import TarSource, UrlListSource
from ingest.thumbnail import make_thumbnail
from search.admission import Origin
from search.answer import Attribution
from search.audit.derived import thresholds_for
from search.audit.flags import Thresholds
from search.audit.gallery import Part
from search.audit.payload_fields import Known
from search.audit.settings import AuditSettings
from search.audit.sink import Answered, PartsSink
from search.index import Payload, Where
from search.pipeline import DecodePool, in_advance
from search.writer import Failure, Finished, Started

__all__ = ["Answerer", "ServiceAnswers"]

_AT_ONCE = 64  # images of a request
_ORIGIN = Origin("", "")  # of no interest here


class Answerer(Protocol):
    """A service, as an audit asks it."""

    def facts(self) -> Mapping[str, Any]:
        """What it holds, as `Collection.facts`."""
        ...

    def ask(
        self, images: Sequence[bytes], settings: AuditSettings
    ) -> list[Attribution | ImageError]:
        """Answers to image files, at most 64; an error in place of one that it cannot use."""
        ...

    def matching(self, where: Where) -> int:
        """How many training images match a filter.

        Raises:
            UsageError: a field that cannot be filtered by.
        """
        ...

    def known_fields(self, names: Sequence[str]) -> Known:
        """Which of some fields no training image has a value of, as far as it is told."""
        ...

    def payloads(self, training_ids: Sequence[str]) -> Sequence[Payload | None]:
        """All that is known of training images, None where one is gone."""
        ...

    def thumbnails(self, training_ids: Sequence[str]) -> list[bytes | None]:
        """Image files of training images' thumbnails, None where there is none."""
        ...


@dataclass(frozen=True)
class _Looked:
    """An image that can be decoded. record: with its file's bytes."""

    record: ImageRecord
    row: ImageRow
    thumbnail: bytes


_Outcome: TypeAlias = _Looked | Reject
_Event: TypeAlias = "Started | Future[_Outcome] | Finished"


class ServiceAnswers:
    """A `search.audit.answers.Answers` of a service.

    Args:
        answerer: the service.
    """

    def __init__(self, answerer: Answerer) -> None:
        self._answerer = answerer
        self.facts = answerer.facts
        self.matching = answerer.matching
        self.known_fields = answerer.known_fields
        self.payloads = answerer.payloads
        self.thumbnails = answerer.thumbnails

    def thresholds(self, settings: AuditSettings) -> Thresholds:
        """As `Answers.thresholds`; the collection itself is out of reach."""
        model = str(self.facts()["model"])
        return thresholds_for(None, model, settings.thresholds, settings.copy_model)

    def take(
        self,
        parts: Iterable[Part],
        sink: PartsSink,
        settings: AuditSettings,
        advance: Callable[[int], None],
    ) -> None:
        """As `Answers.take`. Files are read and looked at ahead, in threads."""
        waiting: list[_Looked] = []

        def ask() -> None:
            if waiting:
                self._ask(waiting, sink, settings)
                advance(len(waiting))
                waiting.clear()

        try:
            with DecodePool(settings.decode_threads) as pool:
                for event in in_advance(_events(parts, sink, settings, pool), _AT_ONCE):
                    if isinstance(event, Future):
                        outcome = event.result()
                        if isinstance(outcome, Reject):
                            sink.handle(Failure(outcome, _ORIGIN))
                            advance(1)
                            continue
                        waiting.append(outcome)
                        if len(waiting) == _AT_ONCE:
                            ask()
                        continue
                    ask()  # requests end with their part
                    sink.handle(event)
        finally:
            sink.abandon()

    def _ask(self, images: Sequence[_Looked], sink: PartsSink, settings: AuditSettings) -> None:
        answers = self._answerer.ask([image.record.data for image in images], settings)
        kept: list[tuple[_Looked, Attribution]] = []
        for image, answer in zip(images, answers, strict=True):
            if isinstance(answer, ImageError):
                record = image.record
                reject = Reject(record.key, record.path, answer.reason, answer.detail)
                sink.handle(Failure(reject, _ORIGIN))
            else:
                kept.append((image, answer))
        if kept:
            sink.handle(
                Answered(
                    [image.row for image, _ in kept],
                    [image.thumbnail for image, _ in kept],
                    [answer for _, answer in kept],
                )
            )


def _events(
    parts: Iterable[Part], sink: PartsSink, settings: AuditSettings, pool: DecodePool
) -> Iterator[_Event]:
    for part in parts:
        sink.expect(part)
        source, items = part.work.source, part.work.items or ()
        yield Started(part.number, source.name)
        if isinstance(source, TarSource):
            broken = ""
            try:
                for record in source.records():
                    yield pool.submit(_look, record, settings.limits)
            except SourceError as exc:
                broken = str(exc)
            yield Finished(TarRow(source.name, "", source.stem), broken)
            continue
        if isinstance(source, UrlListSource):
            for record in source.records(items):
                yield pool.submit(_look, record, settings.limits)
        else:
            for item in items:
                yield pool.submit(
                    lambda source, item: _look(source.read(item), settings.limits), source, item
                )
        yield Finished()


def _look(record: ImageRecord | Reject, limits: DecodeLimits) -> _Outcome:
    if isinstance(record, Reject):
        return record
    try:
        decoded = decode(record.data, limits)
    except ImageError as exc:
        return Reject(record.key, record.path, exc.reason, exc.detail)
    row = row_of(record, decoded, "")
    return _Looked(record, row, make_thumbnail(decoded.image, record.data, decoded.format))
