"""Attributing some images of an audit again, to see whether the index still says the same."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, cast

from PIL import Image

from ingest.decode import Decoded, DecodeLimits, decode
from ingest.errors import AttribError, ImageError, RunError, UsageError
from ingest.record import ImageRecord, Reject
from search.answer import Attribution
from search.audit.answers import LocalAnswers
from search.audit.duplicates import fingerprint
from search.audit.filters import Filters
from search.audit.settings import AuditSettings
from search.audit.verify_answer import SAMPLE_TOLERANCE, distance, other_answer
from search.audit.verify_copies import Copies, looks_of, other_copy, wrong_duplicates
from search.audit.verify_gallery import GalleryAgain
from search.audit.verify_summary import made_by_another, settings_of
from search.audit.verify_tables import Sampled

if TYPE_CHECKING:
    from embed.embedder import Precision
    from search.collection import Collection

__all__ = ["Asked", "CollectionAsked", "Compared", "NotAllowedError", "compare", "why_other"]

_BATCH = 32


@dataclass
class Compared:
    """What came of attributing a sample again.

    Attributes:
        done: images that were attributed again.
        moved: those whose influence moved by more than `SAMPLE_TOLERANCE`, with how much did.
        other: those of the rest that differ otherwise, with how.
        largest: most that moved of any image.
        unread: images that could not be read or are others now, with why.
        no_copies, no_duplicates: why these were not looked for again; '' where they were.
    """

    done: int = 0
    moved: dict[str, float] = field(default_factory=dict)
    other: dict[str, str] = field(default_factory=dict)
    largest: float = 0.0
    unread: dict[str, str] = field(default_factory=dict)
    no_copies: str = ""
    no_duplicates: str = ""


def why_other(summary: Mapping[str, Any], facts: Mapping[str, Any], who: str) -> str:
    """Why a collection cannot give the answers of an audit; '' where it should.

    Args:
        summary: of the audit.
        facts: `Collection.facts`.
        who: has the collection, for people.
    """
    model, collection = summary["model"], summary["collection"]
    if model["feature_fingerprint"] != facts["feature_fingerprint"]:
        return (
            f"the audit was made with model {model['name']} ({model['feature_fingerprint']}), and "
            f"{who} has {facts['model']} ({facts['feature_fingerprint']})"
        )
    if model["fingerprint"] != facts["fingerprint"]:
        told, now = summary["calibrator"], facts["calibrator"]
        return (
            f"{who} was calibrated anew since: tau {told['tau']:g}, b {told['b']:g} "
            f"then, tau {now['tau']:g}, b {now['b']:g} now"
        )
    if collection["images"] != facts["images"]:
        return (
            f"the collection changed since: {collection['images']:,} training images then, "
            f"{facts['images']:,} now"
        )
    return ""


class NotAllowedError(RunError):
    """Who is asked allows less than the audit asked: fewer rows, say."""


class Asked(Protocol):
    """Who attributes a sample again: `CollectionAsked`, or a service."""

    def facts(self) -> Mapping[str, Any]:
        """What there is, as `Collection.facts`."""
        ...

    def ask(
        self, images: Sequence[bytes], settings: AuditSettings
    ) -> list[Attribution | ImageError]:
        """Answers to image files, at most 32; an error in place of one that cannot be used.

        Raises:
            UsageError: the settings are not allowed here.
            RunError: the backbone, the index or the service fails.
        """
        ...

    def thumbnails(self, training_ids: Sequence[str]) -> list[bytes | None]:
        """Image files of training images' thumbnails, None where there is none."""
        ...


class CollectionAsked:
    """An open collection, as `Asked`."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection

    @cached_property
    def _filters(self) -> Filters:
        return Filters(self._collection.index)

    def facts(self) -> Mapping[str, Any]:
        """As `Asked.facts`."""
        return self._collection.facts()

    def ask(
        self, images: Sequence[bytes], settings: AuditSettings
    ) -> list[Attribution | ImageError]:
        """As `Asked.ask`; at the precision of the audit, as far as this device has it."""
        self._collection.embedder(precision=cast("Precision", settings.precision or "auto"))
        decoded = [_decoded(data, settings.limits) for data in images]
        usable = [one.image for one in decoded if isinstance(one, Decoded)]
        if not usable:
            return [one for one in decoded if isinstance(one, ImageError)]
        answers = iter(
            self._collection.attribute(
                self._collection.features(usable),
                [""] * len(usable),
                k=settings.k,
                mass=settings.mass,
                without=self._filters.indexed(settings.without) or None,
                exact=settings.exact,
            )
        )
        return [one if isinstance(one, ImageError) else next(answers) for one in decoded]

    def thumbnails(self, training_ids: Sequence[str]) -> list[bytes | None]:
        """As `Asked.thumbnails`."""
        return LocalAnswers(self._collection, self._collection.embedder).thumbnails(training_ids)


def compare(
    sample: Sequence[Sampled],
    summary: Mapping[str, Any],
    asked: Asked,
    gallery: GalleryAgain,
) -> Compared:
    """Read the images of a sample again, attribute them with the audit's settings, and compare.

    Raises:
        RunError: the gallery cannot be read, or the backbone, the index or the service fails;
            NotAllowedError where that does not allow what the audit asked.
    """
    settings = settings_of(summary)
    comparison = _Comparison(sample, asked, settings, made_by_another(summary))
    # What an image is called a duplicate of is looked at too.
    firsts = {str(each.image["duplicate_of"]) for each in sample} - {""}
    for key, record in gallery.wanted(comparison.wanted.keys() | firsts):
        comparison.take(key, record)
    return comparison.finish()


@dataclass(frozen=True)
class _Waiting:
    """An image that was read and looked at. data: its file."""

    then: Sampled
    data: bytes
    looks: Image.Image


class _Comparison:
    """A sample as it is read and asked for.

    Args:
        another: why near-copies and duplicates may be told by other rules; '' where they are not.
    """

    def __init__(
        self, sample: Sequence[Sampled], asked: Asked, settings: AuditSettings, another: str
    ) -> None:
        self.wanted = {str(each.image["image"]): each for each in sample}
        self._asked = asked
        self._settings = settings
        self._found = Compared(unread=dict.fromkeys(self.wanted, "it is not in the gallery"))
        self._looks: dict[str, bytes] = {}
        self._waiting: list[_Waiting] = []
        self._copies: Copies | None = None
        self._found.no_copies = self._found.no_duplicates = another
        if not another:
            try:
                self._copies = Copies(settings, asked.thumbnails)
            except AttribError as exc:
                self._found.no_copies = str(exc)

    def take(self, key: str, record: ImageRecord | Reject) -> None:
        """An image of the gallery."""
        if key in self._looks or (key in self.wanted and key not in self._found.unread):
            return  # the key is there once more
        then = self.wanted.get(key)
        data = _bytes(record, None if then is None else str(then.image["sha256"]))
        decoded = data if isinstance(data, str) else _decoded(data, self._settings.limits)
        if then is None:
            if isinstance(decoded, Decoded) and isinstance(data, bytes):
                self._looks[key] = fingerprint(looks_of(decoded, data))
            return
        if isinstance(decoded, Decoded) and isinstance(data, bytes):
            del self._found.unread[key]
            looks = looks_of(decoded, data)
            self._looks[key] = fingerprint(looks)
            self._waiting.append(_Waiting(then, data, looks))
            told = (then.image["width"], then.image["height"])
            if told != (decoded.width, decoded.height):
                self._found.other[key] = (
                    f"it has {decoded.width} x {decoded.height} pixels, and {told[0]} x {told[1]} "
                    "in the audit"
                )
            if len(self._waiting) == _BATCH:
                self._attribute()
        else:
            why = decoded if isinstance(decoded, str) else f"it cannot be decoded: {decoded}"
            self._found.unread[key] = why

    def finish(self) -> Compared:
        """What came of it all."""
        self._attribute()
        if not self._found.no_duplicates:
            sample, bits = list(self.wanted.values()), self._settings.thresholds.duplicate
            for name, fault in wrong_duplicates(sample, self._looks, bits).items():
                self._other(name, fault)
        return self._found

    def _attribute(self) -> None:
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        try:
            answers = self._asked.ask([one.data for one in waiting], self._settings)
        except UsageError as exc:
            raise NotAllowedError(str(exc)) from exc
        answered: list[tuple[_Waiting, Attribution]] = []
        for one, answer in zip(waiting, answers, strict=True):
            name = str(one.then.image["image"])
            if isinstance(answer, ImageError):
                self._found.unread[name] = f"it cannot be decoded: {answer}"
                continue
            answered.append((one, answer))
            self._found.done += 1
            far = distance(one.then, answer)
            self._found.largest = max(self._found.largest, far)
            if far > SAMPLE_TOLERANCE:
                self._found.moved[name] = far
                self._found.other.pop(name, None)
            elif fault := other_answer(one.then, answer):
                self._other(name, fault)
        if self._copies is not None and answered:
            self._look_for_copies(self._copies, answered)

    def _look_for_copies(
        self, copies: Copies, answered: Sequence[tuple[_Waiting, Attribution]]
    ) -> None:
        looks = [one.looks for one, _ in answered]
        then = [one.then for one, _ in answered]
        found = copies.of(looks, then, [answer for _, answer in answered])
        for each, now in zip(then, found, strict=True):
            if fault := other_copy(each, now, self._settings.thresholds.near_copy):
                self._other(str(each.image["image"]), fault)

    def _other(self, name: str, fault: str) -> None:
        if name not in self._found.moved:
            self._found.other.setdefault(name, fault)


def _bytes(record: ImageRecord | Reject, sha256: str | None) -> bytes | str:
    """The file of an image, or why it is not the one that was audited; None for any file."""
    if isinstance(record, Reject):
        return f"it cannot be read: {record.reason.value}"
    if sha256 is not None and hashlib.sha256(record.data).hexdigest() != sha256:
        return "its file changed since"
    return record.data


def _decoded(data: bytes, limits: DecodeLimits) -> Decoded | ImageError:
    try:
        return decode(data, limits)
    except ImageError as exc:
        return exc
