"""A folder of images, with all folders in it."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ingest.beside import Described, described_by_parent
from ingest.errors import SourceError
from ingest.formats import IMAGE_SUFFIXES, has_image_suffix
from ingest.item import DEFAULT_MAX_BYTES, Item, ItemSource, item_at, printable
from ingest.storage import FileState, Location, file_name, is_on_the_web, is_remote, shown
from ingest.table import TABLE_NAMES

__all__ = ["FilesSource", "FolderSource"]


class FolderSource(ItemSource):
    """All images in a folder and below it, on this machine or in a store.

    Keys are posix paths below the folder. A file is an image if its name says so (`IMAGE_SUFFIXES`,
    in any letter case); hidden files and folders are passed over. Symbolic links are followed, but
    no real folder is entered twice, and by its real path where it has one in the tree.

    Order: the images of a folder by name, then its folders by name, and folders behind links at
    the end. Only the names of one folder are held at a time.

    Args:
        may_be_empty: a folder without images is then no error.
    """

    def __init__(
        self, path: Location, max_bytes: int = DEFAULT_MAX_BYTES, *, may_be_empty: bool = False
    ) -> None:
        super().__init__(path, max_bytes)
        self._may_be_empty = may_be_empty

    def items(self) -> Iterator[Item]:
        """As `ItemSource.items`."""
        found = False
        entered: set[tuple[int, int] | str] = set()
        stack = [_Place(self.path, "", described_by_parent(self.path))]
        behind_links: list[_Place] = []
        while stack or behind_links:
            place = stack.pop() if stack else behind_links.pop(0)
            identity = _identity(place.folder)
            if identity in entered:
                continue
            entered.add(identity)
            images, folders, links, names = _scan(place.folder)
            described = place.described.at(place.folder, names)
            for name in images:
                found = True
                yield item_at(
                    place.folder / name,
                    key=place.prefix + name,
                    siblings=names,
                    metadata=described.find(name),
                )
            # Reversed, because the last one on the stack comes first.
            stack.extend(place.inside(name, described) for name in reversed(folders))
            behind_links.extend(place.inside(name, described) for name in links)
        if not found and not self._may_be_empty:
            looked_for = ", ".join(sorted(IMAGE_SUFFIXES))
            raise SourceError(f"no images in {self.name} (looked for {looked_for})")


class FilesSource(ItemSource):
    """Images of one folder that were named one by one; a key is the file's name."""

    def __init__(
        self, folder: Location, names: Sequence[str], max_bytes: int = DEFAULT_MAX_BYTES
    ) -> None:
        super().__init__(folder, max_bytes)
        self._names = sorted(set(names))
        if len(self._names) == 1:
            self.name = printable(shown(folder / self._names[0]))

    def items(self) -> Iterator[Item]:
        """As `ItemSource.items`."""
        described = described_by_parent(self.path).at(self.path, _tables_in(self.path))
        for name in self._names:
            key = file_name(self.path / name)
            yield item_at(self.path / name, key=key, metadata=described.find(key))


@dataclass(frozen=True, slots=True)
class _Place:
    """A folder still to be entered; `prefix` is its key prefix."""

    folder: Location
    prefix: str
    described: Described

    def inside(self, name: str, described: Described) -> _Place:
        return _Place(self.folder / name, f"{self.prefix}{name}/", described.inside(name))


def _tables_in(folder: Location) -> list[str]:
    """The names of the metadata tables in a folder."""
    if is_on_the_web(folder):
        return []
    if not is_remote(folder):
        return [name for name in TABLE_NAMES if (folder / name).is_file()]
    from ingest.stored import exists

    return [name for name in TABLE_NAMES if exists(folder / name)]


def _identity(folder: Location) -> tuple[int, int] | str:
    if is_remote(folder):
        return shown(folder)  # stores have no links
    try:
        found = folder.stat()
    except OSError as exc:
        raise _unreadable(folder, exc) from exc
    return found.st_dev, found.st_ino


def _scan(
    folder: Location,
) -> tuple[list[str], list[str], list[str], Collection[str] | Mapping[str, FileState]]:
    """(image names, folder names, names of links to folders, all names), each list sorted.

    All names of a folder in a store come with the files' states.
    """
    if is_remote(folder):
        from ingest.stored import scan

        found = scan(folder)
        return sorted(filter(has_image_suffix, found.files)), found.folders, [], found.files
    images: list[str] = []
    folders: list[str] = []
    links: list[str] = []
    names: set[str] = set()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if _is_folder(entry):
                    (links if entry.is_symlink() else folders).append(entry.name)
                    continue
                names.add(entry.name)
                if has_image_suffix(entry.name):
                    images.append(entry.name)
    except OSError as exc:
        raise _unreadable(folder, exc) from exc
    return sorted(images), sorted(folders), sorted(links), names


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _unreadable(folder: Path, exc: OSError) -> SourceError:
    return SourceError(f"cannot read folder {printable(str(folder))}: {exc.strerror}")
