"""Attributing some images of an audit again, to see whether the index still says the same."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from typing import TYPE_CHECKING, Any, Protocol

from PIL import Image

from ingest.decode import DecodeLimits, decode
from ingest.errors import ImageError, RunError, UsageError
from ingest.record import ImageRecord, Reject
from search.answer import Attribution
from search.audit.settings import AuditSettings
from search.audit.shares import lines_of
from search.audit.tables import SUMMARY
from search.audit.verify_gallery import GalleryAgain
from search.audit.verify_tables import Sampled

if TYPE_CHECKING:
    from search.collection import Collection

__all__ = [
    "SAMPLE_TOLERANCE",
    "Asked",
    "CollectionAsked",
    "Compared",
    "NotAllowedError",
    "compare",
    "distance",
    "settings_of",
    "why_other",
]

SAMPLE_TOLERANCE = 0.01
"""Influence that may have moved, of 1. The same image at another place of a batch, or on another
machine, has features that differ by their rounding (half precision); see docs/audit-proof.md."""

_BATCH = 32


@dataclass(frozen=True)
class Compared:
    """What came of attributing a sample again.

    Attributes:
        same: images whose influence moved by no more than `SAMPLE_TOLERANCE`.
        moved: the other ones, with how much did.
        largest: most that moved of any image.
        unread: images that could not be read or are others now, with why.
    """

    same: int
    moved: Mapping[str, float]
    largest: float
    unread: Mapping[str, str]


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


class CollectionAsked:
    """An open collection, as `Asked`."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection

    def facts(self) -> Mapping[str, Any]:
        """As `Asked.facts`."""
        return self._collection.facts()

    def ask(
        self, images: Sequence[bytes], settings: AuditSettings
    ) -> list[Attribution | ImageError]:
        """As `Asked.ask`."""
        decoded = [_decoded(data, settings.limits) for data in images]
        usable = [image for image in decoded if not isinstance(image, ImageError)]
        if not usable:
            return [image for image in decoded if isinstance(image, ImageError)]
        answers = iter(
            self._collection.attribute(
                self._collection.features(usable),
                [""] * len(usable),
                k=settings.k,
                mass=settings.mass,
                without=dict(settings.without) or None,
                exact=settings.exact,
            )
        )
        return [image if isinstance(image, ImageError) else next(answers) for image in decoded]


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
    wanted = {each.image["image"]: each for each in sample}
    unread = dict.fromkeys(wanted, "it is not in the gallery")
    found: dict[str, float] = {}
    waiting: dict[str, bytes] = {}

    def attribute() -> None:
        try:
            answers = asked.ask(list(waiting.values()), settings)
        except UsageError as exc:
            raise NotAllowedError(str(exc)) from exc
        for name, answer in zip(waiting, answers, strict=True):
            if isinstance(answer, ImageError):
                unread[name] = f"it cannot be decoded: {answer}"
            else:
                found[name] = distance(wanted[name], answer)
        waiting.clear()

    for key, record in gallery.wanted(wanted.keys()):
        if key not in unread:
            continue
        read = _bytes(record, str(wanted[key].image["sha256"]))
        if isinstance(read, str):
            unread[key] = read
            continue
        del unread[key]
        waiting[key] = read
        if len(waiting) == _BATCH:
            attribute()
    if waiting:
        attribute()
    moved = {name: far for name, far in found.items() if far > SAMPLE_TOLERANCE}
    return Compared(
        same=len(found) - len(moved),
        moved=moved,
        largest=max(found.values(), default=0.0),
        unread=unread,
    )


def distance(then: Sampled, now: Attribution) -> float:
    """Total variation distance of two attributions of an image: the influence that moved, 0..1."""
    influence: dict[str, float] = {"": then.image["remaining"] - now.remaining}
    for line in then.lines:
        influence[line["training_id"]] = line["influence"]
    for line in lines_of("", now):
        name = line["training_id"]
        influence[name] = influence.get(name, 0.0) - line["influence"]
    return fsum(abs(change) for change in influence.values()) / 2


def settings_of(summary: Mapping[str, Any]) -> AuditSettings:
    """What the audit asked of each image, and what an image could be.

    Raises:
        RunError: its summary does not tell.
    """
    try:
        settings = summary["settings"]
        return AuditSettings(
            k=int(settings["k"]),
            mass=float(settings["mass"]),
            without={name: list(values) for name, values in settings["without"].items()},
            exact=bool(settings["exact"]),
            limits=DecodeLimits(
                max_bytes=int(settings["max_bytes"]), max_pixels=int(settings["max_pixels"])
            ),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise RunError(f"{SUMMARY} does not tell the settings of the audit") from exc


def _bytes(record: ImageRecord | Reject, sha256: str) -> bytes | str:
    """The file of an image, or why it is not the one that was audited."""
    if isinstance(record, Reject):
        return f"it cannot be read: {record.reason.value}"
    if hashlib.sha256(record.data).hexdigest() != sha256:
        return "its file changed since"
    return record.data


def _decoded(data: bytes, limits: DecodeLimits) -> Image.Image | ImageError:
    try:
        return decode(data, limits).image
    except ImageError as exc:
        return exc
