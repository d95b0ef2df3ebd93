"""Where a collection's index is: in its folder, or on the server that `index.json` names.

collections/<name>/index/       an embedded index
collections/<name>/index.json   or this: url, collection and alias on the server, and its settings

`index.json` is written before the collection is made, so that nothing is left on a server that no
file tells of.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from embed.model import AttributionModel
from ingest.errors import DataFolderError, UsageError
from search.edge import EdgeIndex
from search.edge_settings import EdgeSettings, Quantization, read_settings
from search.index_url import IndexUrl, parse_index_url
from search.server_settings import ServerSettings, read_server_settings

if TYPE_CHECKING:
    from search.server import ServerIndex

__all__ = [
    "IndexSettings",
    "OpenIndex",
    "ServerPlace",
    "check_place",
    "create_index",
    "index_settings",
    "new_index_settings",
    "new_place",
    "on_server",
    "open_index",
    "remove_index",
    "server_place",
    "take_alias",
    "write_place",
]

IndexSettings: TypeAlias = EdgeSettings | ServerSettings
OpenIndex: TypeAlias = "EdgeIndex | ServerIndex"

FORMAT = 1
_FILE = "index.json"
# Whoever has the folder's lock waits for nobody but the index process of one that was killed,
# which still flushes; on a slow disk that takes its time.
_ORPHAN_S = 30.0


@dataclass(frozen=True)
class ServerPlace:
    """A collection on a server.

    Attributes:
        url: of the server.
        collection: its name there; a re-map makes another one.
        alias: what people and other programs may call it; it goes on to the next one.
        settings: that it was made with.
    """

    url: IndexUrl
    collection: str
    alias: str
    settings: ServerSettings

    def successor(self, name: str, settings: ServerSettings) -> ServerPlace:
        """The place of a collection that is to take over from this one."""
        return replace(self, collection=_unique(name), settings=settings)


def new_place(url: IndexUrl, root: Path, name: str, settings: ServerSettings) -> ServerPlace:
    """A place for the collection `name` of the data folder `root`, on the server at `url`."""
    alias = url.name or _unique(root.absolute().name)
    return ServerPlace(replace(url, name=""), _unique(name), alias, settings)


def new_index_settings(
    url: IndexUrl | None,
    quantization: Quantization | None = None,
    shards: int | None = None,
    replicas: int | None = None,
) -> IndexSettings:
    """Settings of a new index there; None is what suits the place.

    Raises:
        UsageError: shards or replicas of an index in a folder, or numbers out of range.
    """
    if url is None:
        if shards is not None or replicas is not None:
            raise UsageError(
                "shards and replicas are of an index on a server; name it with --index"
            )
        return EdgeSettings(quantization=quantization or "none")
    settings = ServerSettings(shards=shards or 0, replicas=1 if replicas is None else replicas)
    return settings if quantization is None else replace(settings, quantization=quantization)


def server_place(folder: Path) -> ServerPlace | None:
    """Where on a server the index of the collection in `folder` is; None for one in the folder.

    Raises:
        DataFolderError: `index.json` is damaged or of a newer format.
    """
    path = folder / _FILE
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as exc:
        raise _damaged(path, exc) from exc
    try:
        if int(content["format"]) > FORMAT:
            raise DataFolderError(
                f"{path} was written by a newer attrib (format {content['format']}; this one reads "
                f"{FORMAT}); upgrade attrib"
            )
        return ServerPlace(
            parse_index_url(content["url"]),
            str(content["collection"]),
            str(content["alias"]),
            read_server_settings(content["settings"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError, UsageError) as exc:
        raise _damaged(path, exc) from exc


def write_place(folder: Path, place: ServerPlace) -> None:
    """Write `index.json`, atomically."""
    content = {
        "format": FORMAT,
        "url": str(place.url),
        "collection": place.collection,
        "alias": place.alias,
        "settings": asdict(place.settings),
    }
    part = folder / f".{_FILE}.part"
    part.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    part.replace(folder / _FILE)


def index_settings(folder: Path) -> IndexSettings:
    """Settings of the index of the collection in `folder`.

    Raises:
        DataFolderError: there is none, or its description is damaged.
    """
    place = server_place(folder)
    return read_settings(folder / "index")[1] if place is None else place.settings


def create_index(
    folder: Path, model: AttributionModel, settings: IndexSettings, place: ServerPlace | None
) -> OpenIndex:
    """Make an empty index for the collection in `folder`, at `place` or, for None, in the folder.

    Raises:
        UsageError: the server has a collection of that name.
        DataFolderError: the disk refuses.
        IndexFailedError: the server cannot be reached, or fails.
    """
    if place is None:
        if not isinstance(settings, EdgeSettings):
            raise TypeError("an embedded index has settings of its own")
        return EdgeIndex.create(folder / "index", model.dim, settings)
    from search.server import ServerIndex  # it loads qdrant-client and gRPC

    write_place(folder, place)
    return ServerIndex.create(
        place.url,
        place.collection,
        model.dim,
        place.settings,
        model=model.name,
        fingerprint=model.feature_fingerprint,
    )


def open_index(folder: Path, *, model: AttributionModel | None = None) -> OpenIndex:
    """Open the index of the collection in `folder`, for who has the data folder's lock.

    `model`: what it must have been built with, where it is on a server: another hand may have been
    there.

    Raises:
        DataFolderError: there is none, it is damaged or in use.
        IndexFailedError: the server cannot be reached, or has no such collection any more.
        ModelMismatchError: the collection on the server is of another model.
    """
    place = server_place(folder)
    if place is None:
        return EdgeIndex.open(folder / "index", wait_s=_ORPHAN_S)
    from search.server import ServerIndex

    return ServerIndex.open(
        place.url,
        place.collection,
        fingerprint=model.feature_fingerprint if model else None,
        dim=model.dim if model else None,
    )


def on_server(root: Path) -> bool:
    """Whether the index of the data folder `root` is on a server.

    Raises:
        DataFolderError: as `server_place`.
    """
    current = root / "current"
    if not current.is_file():
        return False
    return server_place(root / "collections" / current.read_text("utf-8").strip()) is not None


def check_place(root: Path, url: IndexUrl) -> None:
    """Refuse a server that does not have the index of the data folder `root`.

    Raises:
        UsageError: the index is elsewhere.
        DataFolderError: it is no data folder, or nothing is in it.
    """
    current = root / "current"
    if not current.is_file():
        raise DataFolderError(f"{root} is no attrib data folder, or nothing was ingested into it")
    place = server_place(root / "collections" / current.read_text("utf-8").strip())
    if place is None:
        raise UsageError(f"the index of {root} is in the folder, not at {url}")
    # The gRPC port is a matter of how to get there, not of where it is.
    there = (place.url.host, place.url.port)
    if there != (url.host, url.port) or url.name not in ("", place.alias):
        raise UsageError(
            f"the index of {root} is at {place.url.server} ({place.alias}), not at {url}"
        )


def take_alias(folder: Path, index: OpenIndex, *, free: bool = False) -> None:
    """Let the alias on the server mean this collection from now on; in a folder there is none.

    Raises:
        UsageError: with `free`, another collection has it.
        IndexFailedError: the server fails.
    """
    place = server_place(folder)
    if place is not None and not isinstance(index, EdgeIndex):
        index.name_as(place.alias, free=free)


def remove_index(folder: Path) -> None:
    """Remove the index of the collection in `folder`, wherever it is; none is no error.

    Raises:
        IndexFailedError: the server that has it cannot be reached; the file that tells of it stays.
    """
    place = server_place(folder)
    if place is not None:
        from search.server import ServerIndex

        ServerIndex.remove(place.url, place.collection)
        (folder / _FILE).unlink(missing_ok=True)
    shutil.rmtree(folder / "index", ignore_errors=True)


def _unique(name: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._") or "attrib"
    return f"{plain[:80]}-{secrets.token_hex(4)}"


def _damaged(path: Path, exc: Exception) -> DataFolderError:
    detail = " ".join(str(exc).split())
    return DataFolderError(f"{path} is damaged ({detail}); put it back from a backup")
