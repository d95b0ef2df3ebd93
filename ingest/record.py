"""What a source yields: one training image with its identity and what is known of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID, uuid5

from ingest.errors import RejectReason

__all__ = ["ATTRIB_NAMESPACE", "ImageRecord", "Reject", "point_id"]

ATTRIB_NAMESPACE = UUID("6f0c1b0e-2f7b-5b59-9a5e-0d3c2a6f9d11")
"""Root of all point ids. Changing it would give every image of every collection a new identity."""


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image as its source gives it, not decoded yet.

    Attributes:
        key: the image's name, unique within its dataset and stable from run to run: the path below
            the source folder, or the sample's key in a tar.
        data: the bytes of the image file.
        path: where it came from, for people (``photos/a.jpg``, ``00000.tar#000000012.jpg``).
        url: the address it was downloaded from, '' where unknown.
        caption: '' where unknown.
        creator: '' where unknown.
        licence: '' where unknown.
        extra: further metadata of the source, small JSON values only.
    """

    key: str
    data: bytes
    path: str
    url: str = ""
    caption: str = ""
    creator: str = ""
    licence: str = ""
    extra: Mapping[str, str | int | float | bool | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reject:
    """An image that cannot be used, and why."""

    key: str
    path: str
    reason: RejectReason
    detail: str = ""


def point_id(dataset: str, key: str) -> UUID:
    """The identity of a training image: the UUIDv5 of (dataset, key).

    The two are joined by NUL, which neither may contain, so that no two pairs share a name.
    """
    return uuid5(ATTRIB_NAMESPACE, f"{dataset}\x00{key}")
