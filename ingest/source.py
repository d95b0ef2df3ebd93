"""From what a person names (paths, patterns) to sources of images."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from ingest.braces import brace_names, require_all
from ingest.download_settings import DownloadSettings
from ingest.errors import SourceError, UsageError
from ingest.folder import FilesSource, FolderSource
from ingest.formats import has_image_suffix
from ingest.item import DEFAULT_MAX_BYTES, Item, ItemSource, printable
from ingest.list_kind import open_list
from ingest.listing import LISTING_SUFFIXES, ListingSource
from ingest.storage import FileState, Location, file_name, is_remote, is_url, location, shown
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

_HAS_WILDCARD = re.compile(r"[*?\[]")


def open_sources(
    specs: Sequence[str],
    max_bytes: int = DEFAULT_MAX_BYTES,
    download: DownloadSettings | None = None,
) -> list[Source]:
    """The sources that the specs name, in their order, each file or folder once.

    A spec is a folder, a tar (``.tar``, ``.tar.gz``, ``.tgz``), a list (``.txt``, ``.parquet``,
    ``.csv``), an image, a brace pattern (``{00000..00010}.tar``) or a wildcard pattern. A folder
    with tars directly in it stands for those tars, and then for the images in and below it, which
    there need not be. Each may be the URL of a store instead (``s3://``, ``gs://``, ``https://``);
    its files have the keys that they would have here. Of the web only files can be named: it cannot
    be listed.

    Args:
        specs: as a person types them; ``~`` is the home folder.
        max_bytes: larger image files are rejected without being read.
        download: how the images of lists of URLs are downloaded.

    Raises:
        UsageError: no spec, an unbalanced brace, a pattern without end, a URL of no known store.
        SourceError: a path that is not there, or is of no kind that can be read.
        StorageError: a store refuses, or cannot be reached.
    """
    if not specs:
        raise UsageError("no source given: name a folder, a tar, a list or an image")
    places = dict(place for spec in specs for place in _expand(spec))
    sources: list[Source] = []
    images: dict[Location, list[str]] = {}
    for at, state in places.items():
        name = file_name(at)
        if not is_remote(at) and not _exists(at):
            raise SourceError(f"no such file or folder: {printable(str(at))}")
        if (state is None) if is_remote(at) else at.is_dir():
            sources.extend(_open_folder(at, max_bytes))
        elif is_tar_name(name):
            sources.append(TarSource(at, max_bytes, state))
        elif PurePosixPath(name).suffix.lower() in LISTING_SUFFIXES:
            sources.append(open_list(at, max_bytes, download))
        elif has_image_suffix(name):
            # One source for all images of a folder, so that its table is read once.
            images.setdefault(at.parent, []).append(at.name)
        else:
            raise SourceError(
                f"cannot tell what {printable(shown(at))} is: expected a folder, a tar"
                " (.tar, .tar.gz, .tgz), a list (.txt, .parquet, .csv) or an image"
            )
    sources.extend(FilesSource(folder, names, max_bytes) for folder, names in images.items())
    return sources


def _open_folder(folder: Location, max_bytes: int) -> Iterator[Source]:
    if is_remote(folder):
        from ingest.stored import scan

        files = scan(folder).files
        stored = [
            TarSource(folder / n, max_bytes, files[n]) for n in sorted(files) if is_tar_name(n)
        ]
        yield from stored
        yield FolderSource(folder, max_bytes, may_be_empty=bool(stored))
        return
    try:
        names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as exc:
        name = printable(str(folder))
        raise SourceError(f"cannot read folder {name}: {exc.strerror}") from exc
    tars = [name for name in names if is_tar_name(name) and (folder / name).is_file()]
    yield from (TarSource(folder / name, max_bytes) for name in tars)
    yield FolderSource(folder, max_bytes, may_be_empty=bool(tars))


def _expand(spec: str) -> list[tuple[Location, FileState | None]]:
    """What a spec stands for, with the states of files in a store.

    What exists as it is written is never a pattern.
    """
    if not spec or "\x00" in spec:
        raise UsageError("an empty source name" if not spec else "a source name with a NUL in it")
    if is_url(spec) and is_remote(at := location(spec)):
        from ingest.stored_source import expand_url

        return [(found.at, found.state) for found in expand_url(spec, at)]
    return [(path, None) for path in _expand_path(spec)]


def _expand_path(spec: str) -> list[Path]:
    try:
        # A URL that begins with file:// is a path of this machine.
        path = Path(str(location(spec))).expanduser()
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
    paths = [Path(text) for text in brace_names(spec, pattern)]
    require_all(spec, paths, [path for path in paths if not _exists(path)])
    return paths


def _exists(path: Path) -> bool:
    """`Path.exists` raises for names that are too long and folders that may not be entered."""
    return os.path.exists(path)  # noqa: PTH110
