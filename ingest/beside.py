"""Which metadata table describes a folder of images."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ingest.metadata import Metadata
from ingest.storage import Location, is_on_the_web, is_remote
from ingest.table import TABLE_NAMES, MetadataTable, files_column, open_table

__all__ = ["Described", "described_by_parent"]


@dataclass(frozen=True, slots=True)
class Described:
    """A folder, with the table of the nearest folder at or above it that has one.

    Attributes:
        table: None where there is none.
        prefix: the folder's posix path below the table's folder, '' or ending in ``/``.
    """

    table: MetadataTable | None = None
    prefix: str = ""

    def at(self, folder: Location, names: Collection[str]) -> Described:
        """The same once the folder's own names are known: its own table takes over.

        Raises:
            SourceError: when that table cannot be used.
        """
        for name in TABLE_NAMES:
            if name in names:
                return Described(MetadataTable.load(folder / name))
        return self

    def inside(self, name: str) -> Described:
        """The folder of that name in this one."""
        return Described(self.table, f"{self.prefix}{name}/") if self.table else self

    def find(self, name: str) -> Metadata | None:
        """What the table says of a file of this folder."""
        return self.table.find(self.prefix + name) if self.table else None


def described_by_parent(folder: Location) -> Described:
    """A source folder as the folder around it describes it, as in ``set/metadata.parquet`` for
    ``set/images``.

    A table there that names no files is another one's business and is passed over.

    Raises:
        SourceError: when the table is damaged.
    """
    if is_on_the_web(folder):
        return Described()
    folder = folder if is_remote(folder) else folder.absolute()
    for name in TABLE_NAMES:
        path = folder.parent / name
        if folder.name and _is_file(path) and files_column(open_table(path).columns) is not None:
            return Described(MetadataTable.load(path)).inside(folder.name)
    return Described()


def _is_file(path: Location) -> bool:
    if is_remote(path):
        from ingest.stored import exists

        return exists(path)
    return path.is_file()
