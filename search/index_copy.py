"""Moving a collection's index between the data folder and a server, or from server to server.

The new index is built from the feature shards beside the one in use, as a re-map with the same
model would be (`search.reindex`): queries and ingests go on, a killed copy goes on where it
stopped, what came or went meanwhile is caught up with, and the switch is one rename. Before it, the
counts are compared, and the vectors and payloads of a uniform sample with those of the old index.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embed.model import load as load_model
from ingest.errors import DataFolderBusyError, DataFolderError, IndexFailedError, UsageError
from search.building import Building
from search.collection import collection_name
from search.edge_settings import Quantization
from search.folder import DataFolder, reindex_lock, writing
from search.index_place import (
    ServerPlace,
    index_settings,
    new_index_settings,
    new_place,
    open_index,
    server_place,
)
from search.index_url import IndexUrl
from search.ingestion import Progress
from search.reindex import Remap, begin_building, current_collection, remove_retired
from search.server_settings import ServerSettings

__all__ = ["CopyReport", "copy_index"]

_SAMPLE = 256
_ROUNDING = 1e-3  # of a number in a vector: both sides may have stored float16


@dataclass(frozen=True)
class CopyReport:
    """What was moved.

    Attributes:
        images: of the collection.
        source, target: where the index was and is: a server's URL, or `the data folder`.
        collection: its name on the server, or in the data folder.
        copied: points put in by this run; fewer than `images` where it went on with a broken one.
        verified: points whose vectors and payloads were compared; 0 where the source was away.
        kept: whether the source is still there.
    """

    images: int
    source: str
    target: str
    collection: str
    copied: int
    verified: int
    kept: bool


def copy_index(
    root: Path,
    url: IndexUrl | None,
    *,
    quantization: Quantization | None = None,
    shards: int | None = None,
    replicas: int | None = None,
    keep_source: bool = False,
    progress: Progress | None = None,
    wait_s: float = 2.0,
    switch_wait_s: float = 600.0,
) -> CopyReport:
    """Move the index of the data folder `root` to `url`, None: into the folder, and use it there.

    Args:
        root: the data folder.
        url: where to.
        quantization: of the new index; None for the old one's.
        shards: parts of a new index on a server.
        replicas: copies of each part.
        keep_source: do not remove the old index. It stays one of the folder's collections, which
            takedowns reach too.
        progress: told how many images are copied.
        wait_s: how long to wait at the start for a process that uses the folder.
        switch_wait_s: the same before the switch.

    Raises:
        UsageError: it is there already.
        DataFolderError: no data folder, nothing in it, damaged feature shards, a full disk.
        DataFolderBusyError: in use, or being re-mapped or copied already.
        IndexFailedError: a server cannot be reached, or the copy is not what it should be.
    """
    DataFolder.open(root, wait_s=wait_s).close()  # is it one? before a lock is put into it
    with reindex_lock(root):
        with DataFolder.open(root, wait_s=wait_s) as folder:
            old = current_collection(folder)
            remove_retired(folder, old)
            before = server_place(folder.collection(old))
            _check_elsewhere(root, before, url)
            model = load_model(folder.model(old))
            old_settings = index_settings(folder.collection(old))
            settings = new_index_settings(
                url, quantization or old_settings.quantization, shards, replicas
            )
            name = _new_name(collection_name(model), old)
            place = None
            if url is not None and isinstance(settings, ServerSettings):
                place = new_place(url, root, name, settings)
            building = begin_building(folder, name, model, settings, place)
        try:
            check = _Check(old, building)
            report = Remap(root, old, building, keep_source, switch_wait_s, check).go(progress)
        finally:
            building.close()
    after = server_place(root / "collections" / report.collection)
    return CopyReport(
        images=report.images,
        source=_in_words(before),
        target=_in_words(after),
        collection=after.collection if after else report.collection,
        copied=report.mapped,
        verified=check.verified,
        kept=report.kept,
    )


class _Check:
    """Compares the new index with the one in use, just before the switch."""

    def __init__(self, old: str, building: Building) -> None:
        self._old = old
        self._building = building
        self.verified = 0

    def __call__(self, folder: DataFolder) -> None:
        # It may have been calibrated since the copy began.
        with writing(folder.root):
            shutil.copyfile(
                folder.model(self._old) / "model.json", self._building.path / "model" / "model.json"
            )
        try:
            source = open_index(folder.collection(self._old))
        except (IndexFailedError, DataFolderError) as exc:
            if isinstance(exc, DataFolderBusyError):
                raise
            return  # a lost index is a good reason to make another: `verified` says so
        with source:
            points = list(source.sample().ids)[:_SAMPLE]
            if not points:
                return
            new = self._building.index
            same_payloads = source.fetch(points) == new.fetch(points)
            off = float(np.abs(source.vectors(points) - new.vectors(points)).max())
        if off > _ROUNDING or not same_payloads:
            what = f"vectors are off by up to {off:.2g}" if same_payloads else "payloads differ"
            raise IndexFailedError(
                f"the copy is not the index in use: {what}; that one was left as it is. Feature "
                "shards or index were changed by another hand: ingest with --force"
            )
        self.verified = len(points)


def _check_elsewhere(root: Path, place: ServerPlace | None, url: IndexUrl | None) -> None:
    if url is None and place is None:
        raise UsageError(f"the index of {root} is in the folder already")
    if (
        url is not None
        and place is not None
        and (place.url.host, place.url.port) == (url.host, url.port)
        and url.name in ("", place.alias)
    ):
        raise UsageError(f"the index of {root} is at {place.url.server} already")


def _new_name(base: str, old: str) -> str:
    """Name of the new collection in the data folder: another than that of the one in use."""
    return base if base != old else f"{base}-moved"


def _in_words(place: ServerPlace | None) -> str:
    return "the data folder" if place is None else place.url.server
