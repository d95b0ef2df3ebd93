"""The members of a tar, read front to back, with its early end told from its proper one."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, cast

from ingest.storage import Location, is_remote

__all__ = ["Member", "TarEndedError", "members_of"]

# A damaged header may claim any size, which reading and seeking answer in their own ways.
_VENDOR_ERRORS = (
    tarfile.TarError,
    EOFError,
    zlib.error,
    gzip.BadGzipFile,
    ValueError,
    LookupError,
    MemoryError,
    OverflowError,
)
_GZIP_MAGIC = b"\x1f\x8b"


class TarEndedError(Exception):
    """Reading stopped before the tar's end mark; the text fits behind a name: ``is cut off``."""


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file in a tar.

    Attributes:
        name: as the tar has it; bytes that are not UTF-8 are lone surrogates.
        size: in bytes.
        data: None where the file was not wanted.
    """

    name: str
    size: int
    data: bytes | None


def members_of(path: Location, wanted: Callable[[str, int], bool]) -> Iterator[Member]:
    """The regular files of a plain or gzipped tar in order.

    Args:
        path: the tar, on this machine or in a store; then it is read as it comes in.
        wanted: is asked with a member's name and size whether to read it into memory.

    Raises:
        TarEndedError: where the tar is not one, is cut off or is damaged, after all whole members.
        OSError: when the file cannot be read.
        StorageError: its store refuses, or cannot be reached.
    """
    with _open(path) as raw:
        zipped = raw.read(2) == _GZIP_MAGIC
        raw.seek(0)
        tail = _Tail(cast(IO[bytes], gzip.GzipFile(fileobj=raw)) if zipped else raw)
        began = False
        try:
            with tarfile.open(fileobj=cast(IO[bytes], tail), mode="r:") as tar:
                began = True
                while (info := tar.next()) is not None:
                    tar.members.clear()  # type: ignore[attr-defined]  # or it would keep every header until the end
                    if not info.isreg():
                        continue
                    data = None
                    if wanted(info.name, info.size):
                        file = tar.extractfile(info)
                        data = b"" if file is None else file.read()
                    yield Member(info.name, info.size, data)
        except _VENDOR_ERRORS as exc:
            if not began and not isinstance(exc, EOFError):
                raise TarEndedError("is not a tar file") from exc
            is_cut = isinstance(exc, EOFError) or "unexpected end" in str(exc) or tail.is_short
            raise TarEndedError("is cut off" if is_cut else "is damaged") from exc
        # tarfile takes a missing or damaged header for the end without a word.
        if not tail.is_end_mark:
            raise TarEndedError("is cut off" if tail.is_short else "is damaged")


def _open(path: Location) -> IO[bytes]:
    if is_remote(path):
        from ingest.stored_file import StoredFile

        return cast(IO[bytes], StoredFile(path))
    return path.open("rb")


class _Tail:
    """A file that remembers whether its last read was the block of zeros that ends a tar."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.is_short = False
        self.is_end_mark = False

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self.is_short = len(data) < size
        self.is_end_mark = size == tarfile.BLOCKSIZE and not self.is_short and not any(data)
        return data

    def seek(self, position: int, whence: int = 0) -> int:
        return self._file.seek(position, whence)

    def tell(self) -> int:
        return self._file.tell()
