"""Where training images lie on the operator's disks: told to those who may take them down."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from starlette.requests import Request

from search.service.security import has_write_key
from search.service.settings import ServiceSettings

__all__ = ["hide_places", "is_place", "sees_places"]


def sees_places(request: Request, settings: ServiceSettings) -> bool:
    """Whether absolute paths are shown to whoever asks this."""
    return settings.show_paths or has_write_key(request, settings.access)


def is_place(path: str) -> bool:
    """Whether a path says where on a machine, or in a store, a file lies.

    One relative to where the ingest ran, such as ``photos/a.jpg``, does not.
    """
    return (
        PurePosixPath(path).is_absolute()
        or bool(PureWindowsPath(path).drive)
        or path.startswith("\\")
        or "://" in path
    )


def hide_places(document: Mapping[str, Any]) -> bool:
    """Empty the paths in an answer's document that are places; whether there were any."""
    found = False
    for row in document["rows"]:
        for owner in row["owners"]:
            if is_place(owner["path"]):
                owner["path"] = ""
                found = True
    if document["group_by"] == "path":
        for group in document["groups"]:
            if is_place(group["value"]):
                group["value"] = ""
                found = True
    return found
