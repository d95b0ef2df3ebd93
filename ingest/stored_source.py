"""From the URL of a source, as a person types it, to the files and folders that it stands for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from ingest.braces import brace_names, require_all
from ingest.errors import SourceError, UsageError
from ingest.printable import printable
from ingest.storage import is_on_the_web, location, shown
from ingest.stored import Found, find, glob, scan, state_of

if TYPE_CHECKING:
    from upath import UPath

__all__ = ["expand_url"]

_HAS_WILDCARD = re.compile(r"[*?\[]")
_REQUESTS = 32  # at a time, of a web server that is asked for each file of a range


def expand_url(spec: str, at: UPath) -> list[Found]:
    """The files and folders that a spec stands for; what exists as it is written is no pattern.

    Raises:
        UsageError: a folder or wildcard of the web; unbalanced braces, a pattern without end.
        SourceError: nothing is there.
        StorageError: the store refuses, or cannot be reached.
    """
    is_pattern = "{" in spec or _HAS_WILDCARD.search(spec)
    if is_on_the_web(at):
        if "{" in spec:
            return _of_the_web(spec)
        # A wildcard may be part of a query, as in signed addresses; no file's name has one.
        if not shown(at).rpartition("/")[2] or _HAS_WILDCARD.search(shown(at)):
            raise UsageError(
                f"{printable(shown(at))}: the web cannot be listed; name its files "
                "({00000..00010}.tar works), or a list of their URLs"
            )
    found = find(at)
    if found is not None:
        return [found]
    if is_pattern:
        matches = _of_braces(spec) if "{" in spec else glob(at)
        if not matches:
            raise SourceError(f"no files match {printable(spec)}")
        return matches
    raise SourceError(f"no such file or folder: {printable(shown(at))}")


def _of_braces(spec: str) -> list[Found]:
    """Each folder is listed once: a request per thousand files rather than one per file."""
    files = _locations(spec)
    listed = {folder: scan(folder) for folder in dict.fromkeys(file.parent for file in files)}
    states = [listed[file.parent].files.get(file.name) for file in files]
    folders = [file.name in listed[file.parent].folders for file in files]
    missing = [
        file
        for file, state, is_folder in zip(files, states, folders, strict=True)
        if state is None and not is_folder
    ]
    require_all(spec, files, missing)
    return [Found(file, state) for file, state in zip(files, states, strict=True)]


def _of_the_web(spec: str) -> list[Found]:
    files = _locations(spec)
    with ThreadPoolExecutor(_REQUESTS, thread_name_prefix="attrib-head") as pool:
        states = list(pool.map(state_of, files))
    require_all(
        spec, files, [file for file, state in zip(files, states, strict=True) if state is None]
    )
    return [Found(file, state) for file, state in zip(files, states, strict=True)]


def _locations(spec: str) -> Sequence[UPath]:
    from upath import UPath

    places = (location(name) for name in brace_names(spec, spec))
    return [place for place in places if isinstance(place, UPath)]
