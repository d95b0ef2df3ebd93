"""The page and the example images: listed once at the start, so that no request names a path."""

from __future__ import annotations

import hashlib
import mimetypes
from dataclasses import dataclass
from importlib.resources import files
from itertools import chain, zip_longest
from pathlib import Path

from ingest.errors import UsageError
from ingest.formats import IMAGE_SUFFIXES

__all__ = ["File", "example_images", "page_files"]

_MAX_EXAMPLES = 24


@dataclass(frozen=True)
class File:
    """A file in memory."""

    data: bytes
    media_type: str

    @property
    def etag(self) -> str:
        """Of its content."""
        return f'"{hashlib.sha256(self.data).hexdigest()[:32]}"'


def page_files() -> dict[str, File]:
    """The page's files by name; {} in an installation without the page."""
    folder = files("search") / "page"
    if not folder.is_dir():
        return {}
    return {
        entry.name: File(entry.read_bytes(), _media_type(entry.name))
        for entry in folder.iterdir()
        if entry.is_file() and not entry.name.endswith((".py", ".pyc"))
    }


def example_images(folder: Path | None) -> dict[str, File]:
    """Up to 24 images of a folder by name, some of each folder in it.

    Raises:
        UsageError: no such folder, or no image in it.
    """
    if folder is None:
        return {}
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder; --examples takes one with generated images")
    by_parent: dict[Path, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES:
            by_parent.setdefault(path.parent, []).append(path)
    paths = list(filter(None, chain.from_iterable(zip_longest(*by_parent.values()))))
    if not paths:
        raise UsageError(f"{folder} holds no images; --examples takes a folder with generated ones")
    return {
        "--".join(path.relative_to(folder).parts): File(path.read_bytes(), _media_type(path.name))
        for path in paths[:_MAX_EXAMPLES]
    }


def _media_type(name: str) -> str:
    return mimetypes.guess_type(name)[0] or "application/octet-stream"
