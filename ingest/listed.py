"""Where the files are that a list names, and what their keys are.

Paths are relative to the list's folder, or absolute; ``s3://`` and ``gs://`` URLs stand for
themselves. A list that is in a store names nothing outside its bucket by path, least of all files
of this machine. A key is the path below the list's folder, or the whole of it for files elsewhere.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ingest.storage import FileState, Location, is_on_the_web, is_remote, location, shown

if TYPE_CHECKING:
    from upath import UPath

__all__ = ["ListedFiles"]

_IS_STORED = re.compile(r"(s3|gs)://[^/]", re.IGNORECASE)
_FOLDERS_HELD = 8


class ListedFiles:
    """The places of the files that one list names."""

    def __init__(self, listing: Location) -> None:
        if is_remote(listing):
            self._folder: Location = listing.parent
        else:
            self._folder = Path(os.path.abspath(listing.parent))  # noqa: PTH100 (resolve follows links)
        self._states: dict[str, Mapping[str, FileState]] = {}

    def place_of(self, text: str) -> tuple[Location, str]:
        """Where a file is, and its key. Of a name that stands for none, the key is ''."""
        if is_remote(self._folder) or _IS_STORED.match(text):
            place = _stored_place(text, self._folder)
            if place is None:
                return self._folder / "", ""
            return place, shown(place).removeprefix(shown(self._folder).rstrip("/") + "/")
        path = Path(os.path.normpath(self._folder / text))
        key = path.relative_to(self._folder) if path.is_relative_to(self._folder) else path
        return path, key.as_posix()

    def siblings_of(self, path: Location) -> Mapping[str, FileState] | None:
        """The files of its folder in a store: one request per folder rather than three per file.

        Those of the last few folders are kept.
        """
        if not is_remote(path) or is_on_the_web(path):
            return None
        from ingest.stored import scan

        name = shown(path.parent)
        if name not in self._states:
            while len(self._states) >= _FOLDERS_HELD:
                del self._states[next(iter(self._states))]
            self._states[name] = scan(path.parent).files
        return self._states[name]


def _stored_place(text: str, folder: Location) -> UPath | None:
    """Where a listed file of a store is; None where its path leads out of the bucket."""
    base = text if _IS_STORED.match(text) else shown(folder)
    scheme, _, rest = base.partition("://")
    root, _, inside = rest.partition("/")
    if base is not text:
        inside = text if text.startswith("/") else f"{inside}/{text}"
    parts: list[str] = []
    for part in inside.split("/"):
        if part == ".." and not parts:
            return None
        if part == "..":
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    place = location("/".join([f"{scheme}://{root}", *parts]))
    return place if is_remote(place) and parts else None
