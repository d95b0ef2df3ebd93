"""From what a person names (paths, patterns) to sources of images."""

from __future__ import annotations

import glob
import math
import os
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from braceexpand import braceexpand

from ingest.download_settings import DownloadSettings
from ingest.errors import SourceError, UsageError
from ingest.folder import FilesSource, FolderSource
from ingest.formats import has_image_suffix
from ingest.item import DEFAULT_MAX_BYTES, Item, ItemSource, printable
from ingest.list_kind import open_list
from ingest.listing import LISTING_SUFFIXES, ListingSource
from ingest.tar import TarSource, is_tar_name
from ingest.url_source import UrlListSource

__all__ = [
    "FilesSource",
    "FolderSource",
    "Item",
    "ItemSource",
    "ListingSource",
    "Source",
    "TarSource",
    "UrlListSource",
    "open_sources",
]

Source = ItemSource | TarSource
"""What can be ingested; `kind` tells them apart (``items``, ``urls`` or ``tar``)."""

_IS_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_HAS_WILDCARD = re.compile(r"[*?\[]")
_RANGE = re.compile(r"\{(?P<first>-?\d{1,18})\.\.(?P<last>-?\d{1,18})")
_MAX_EXPANDED = 1_000_000


def open_sources(
    specs: Sequence[str],
    max_bytes: int = DEFAULT_MAX_BYTES,
    download: DownloadSettings | None = None,
) -> list[Source]:
    """The sources that the specs name, in their order, each file or folder once.

    A spec is a folder, a tar (``.tar``, ``.tar.gz``, ``.tgz``), a list (``.txt``, ``.parquet``,
    ``.csv``), an image, a brace pattern (``{00000..00010}.tar``) or a wildcard pattern. A folder
    with tars directly in it stands for those tars, and then for the images in and below it, which
    there need not be.

    Args:
        specs: as a person types them; ``~`` is the home folder.
        max_bytes: larger image files are rejected without being read.
        download: how the images of lists of URLs are downloaded.

    Raises:
        UsageError: no spec, an unbalanced brace, a pattern without end, a URL.
        SourceError: a path that is not there, or is of no kind that can be read.
    """
    if not specs:
        raise UsageError("no source given: name a folder, a tar, a list or an image")
    paths = dict.fromkeys(path for spec in specs for path in _expand(spec))
    sources: list[Source] = []
    images: dict[Path, list[str]] = {}
    for path in paths:
        if not _exists(path):
            raise SourceError(f"no such file or folder: {printable(str(path))}")
        if path.is_dir():
            sources.extend(_open_folder(path, max_bytes))
        elif is_tar_name(path.name):
            sources.append(TarSource(path, max_bytes))
        elif path.suffix.lower() in LISTING_SUFFIXES:
            sources.append(open_list(path, max_bytes, download))
        elif has_image_suffix(path):
            # One source for all images of a folder, so that its table is read once.
            images.setdefault(path.parent, []).append(path.name)
        else:
            raise SourceError(
                f"cannot tell what {printable(str(path))} is: expected a folder, a tar"
                " (.tar, .tar.gz, .tgz), a list (.txt, .parquet, .csv) or an image"
            )
    sources.extend(FilesSource(folder, names, max_bytes) for folder, names in images.items())
    return sources


def _open_folder(folder: Path, max_bytes: int) -> Iterator[Source]:
    try:
        names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as exc:
        name = printable(str(folder))
        raise SourceError(f"cannot read folder {name}: {exc.strerror}") from exc
    tars = [name for name in names if is_tar_name(name) and (folder / name).is_file()]
    yield from (TarSource(folder / name, max_bytes) for name in tars)
    yield FolderSource(folder, max_bytes, may_be_empty=bool(tars))


def _expand(spec: str) -> list[Path]:
    """The paths that a spec stands for; one that exists as it is written is never a pattern."""
    if not spec or "\x00" in spec:
        raise UsageError("an empty source name" if not spec else "a source name with a NUL in it")
    if _IS_URL.match(spec):
        raise UsageError(
            f"{spec} is a URL: URLs are not downloaded by this version;"
            " download them with img2dataset and ingest its output"
        )
    try:
        path = Path(spec).expanduser()
    except RuntimeError as exc:
        raise UsageError(f"no home folder for {spec}") from exc
    if _exists(path):
        return [path]
    if "{" in spec:
        return _expand_braces(spec, str(path))
    if _HAS_WILDCARD.search(spec):
        matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 (absolute patterns)
        if not matches:
            raise SourceError(f"no files match {printable(spec)}")
        return [Path(match) for match in matches]
    return [path]


def _expand_braces(spec: str, pattern: str) -> list[Path]:
    # braceexpand lays out a whole range in memory before it gives its first name.
    in_ranges = math.prod(
        abs(int(match["last"]) - int(match["first"])) + 1 for match in _RANGE.finditer(pattern)
    )
    if in_ranges > _MAX_EXPANDED:
        raise _too_many(spec)
    try:
        paths = [Path(text) for text in islice(braceexpand(pattern), _MAX_EXPANDED + 1)]
    except ValueError as exc:
        raise UsageError(f"unbalanced braces in {spec}") from exc
    if len(paths) > _MAX_EXPANDED:
        raise _too_many(spec)
    missing = [path for path in paths if not _exists(path)]
    if missing:
        first = printable(str(missing[0]))
        raise SourceError(
            f"{len(missing)} of the {len(paths)} files of {printable(spec)} are missing,"
            f" the first is {first}"
        )
    return paths


def _too_many(spec: str) -> UsageError:
    return UsageError(f"{spec} stands for more than {_MAX_EXPANDED} files")


def _exists(path: Path) -> bool:
    """`Path.exists` raises for names that are too long and folders that may not be entered."""
    return os.path.exists(path)  # noqa: PTH110
