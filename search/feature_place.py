"""Where a data folder keeps its feature shards, when that is not in the folder: by URL or path.

The place is chosen once, before anything is ingested, and bears the data folder's mark, so that no
two folders write shards of the same numbers over one another.
"""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path

from embed.shard_files import exists, replace
from ingest.errors import DataFolderError, UsageError
from ingest.printable import printable
from ingest.storage import Location, is_on_the_web, is_remote, location, shown
from search.folder import DataFolder, writing

__all__ = ["check_place", "keep_features_at"]

_MARK = "attrib-features.json"


def check_place(text: str) -> Location:
    """The place that a person names for feature shards; `shown` of it goes into the facts.

    Raises:
        UsageError: a web server, or a URL of no known store.
        StorageError: no such bucket; or the store refuses, or cannot be reached.
        DataFolderError: a path of this machine that is no folder.
    """
    at = location(text)
    if is_on_the_web(at):
        raise UsageError(
            f"{printable(shown(at))}: a web server cannot be written to; "
            "--features-to takes s3://, gs:// or a folder"
        )
    if not is_remote(at):
        folder = Path(os.path.abspath(at.expanduser()))  # noqa: PTH100 (resolve follows links)
        if folder.exists() and not folder.is_dir():
            raise DataFolderError(f"{folder} is a file; --features-to takes a folder or a URL")
        return folder
    from ingest.stored import find

    find(at)  # a bucket that is not there is told now, not after the first shard
    return at


def keep_features_at(root: Path, text: str) -> None:
    """Keep the feature shards of a data folder at a URL or path, from before its first ingest on.

    The data folder is made where there is none. Of one that keeps them there already, nothing
    changes.

    Raises:
        UsageError: as `check_place`; or the folder keeps them elsewhere.
        StorageError: as `check_place`.
        DataFolderError: another data folder keeps its features there; the disk refuses; or as
            `DataFolder.create`.
    """
    at = check_place(text)
    name = shown(at).rstrip("/")
    with DataFolder.create(root) as folder:
        facts = folder.facts()
        kept = str(facts.get("features", ""))
        if kept != name and folder.current is not None:
            raise UsageError(
                f"{root} keeps its features in {kept or root / 'features'}, not in "
                f"{printable(name)}; leave out --features-to, or choose another folder with --data"
            )
        # The mark is left under a name that outlives a kill; the place counts once it is marked.
        facts.setdefault("features_id", uuid.uuid4().hex)
        with writing(root):
            folder.set_facts(facts)
        with writing(Path(name)):
            _claim(at, str(facts["features_id"]))
        with writing(root):
            folder.set_facts({**facts, "features": name})


def _claim(at: Location, identity: str) -> None:
    """Leave the folder's mark, where nobody else's is."""
    mark = at / _MARK
    if not exists(mark):
        if not is_remote(at):
            at.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"data_folder": identity}) + "\n"
        replace(mark, lambda out: out.write(text.encode()))
        return
    try:
        owner = json.loads(_text_of(mark))["data_folder"]
    except (ValueError, KeyError, TypeError) as exc:
        raise DataFolderError(f"{shown(mark)} is damaged ({exc})") from exc
    if owner != identity:
        raise DataFolderError(
            f"{printable(shown(at))} holds the features of another data folder; "
            "choose another place with --features-to"
        )


def _text_of(path: Location) -> bytes:
    if is_remote(path):
        from ingest.stored import read_bytes

        return read_bytes(path)
    return path.read_bytes()
