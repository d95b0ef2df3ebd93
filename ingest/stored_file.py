"""A file of a store, read as if it were here: in bounded memory, ahead of need, through outages."""

from __future__ import annotations

import io
import shutil
import tempfile
from contextlib import suppress
from functools import partial
from typing import IO, TYPE_CHECKING, Any

from ingest.errors import StorageError
from ingest.storage import is_on_the_web, shown
from ingest.stored_errors import asked

if TYPE_CHECKING:
    from upath import UPath

__all__ = ["StoredFile"]

_BLOCK_BYTES = 8 * 1024 * 1024
_BLOCKS = 3  # held at a time; the next one is fetched meanwhile
_SMALL_BLOCK_BYTES = 512 * 1024
_WINDOW_BYTES = 64 * 1024
_STEP_BYTES = 1024 * 1024


class StoredFile(io.RawIOBase):
    """A file of a store, open for reading.

    Where a connection breaks, it is made again and the reading goes on at the same byte. A file
    that was replaced meanwhile is an error rather than a mixture of two.

    Args:
        at: the file.
        scattered: it is read here and there, as parquet is, rather than from front to back.

    Raises:
        MissingError: there is no such file.
        StorageError: now or while it is read: the store refuses, or cannot be reached.
    """

    def __init__(self, at: UPath, *, scattered: bool = False) -> None:
        super().__init__()
        self._at = at
        self._scattered = scattered
        self._has_ranges = True
        self._position = 0
        self._state: tuple[int | None, str] | None = None
        self._file: Any = asked(at, self._open)

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """Where the next byte comes from."""
        return self._position

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        """Go elsewhere; nothing is fetched before it is read."""
        if whence == io.SEEK_CUR:
            position += self._position
        elif whence == io.SEEK_END:
            size = getattr(self._file, "size", None)
            if size is None:
                size = asked(self._at, lambda: self._file.seek(0, io.SEEK_END))
            position += size
        if position < 0:
            raise ValueError(f"negative seek position {position}")
        self._position = position
        return position

    def read(self, size: int | None = -1) -> bytes:
        """So many bytes, and fewer only at the end of the file."""
        if size is None:
            size = -1
        pieces: list[bytes] = []
        while size != 0:
            piece = asked(self._at, partial(self._some, size))
            if not piece:
                break
            pieces.append(piece)
            self._position += len(piece)
            size = -1 if size < 0 else size - len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def readall(self) -> bytes:
        """All from here on."""
        return self.read(-1)

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 (any writable buffer)
        """As files do, for those who wrap this one."""
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Let go of the connection."""
        if not self.closed:
            self._drop()
        super().close()

    def _some(self, size: int) -> bytes:
        """At least one byte, at most `size` (any number where negative); none at the end."""
        if self._file is None:
            self._file = self._open()
        try:
            if self._file.tell() != self._position:
                self._file.seek(self._position)
            data: bytes = self._file.read(min(size, _STEP_BYTES) if size > 0 else _STEP_BYTES)
        except ValueError as exc:
            if not self._has_ranges or "range request" not in str(exc):
                raise
            # A plain server that always sends the whole file: then that is how it is read.
            self._has_ranges = False
            self._drop()
            return self._some(size)
        except BaseException:
            self._drop()
            raise
        end = self._state[0] if self._state else None
        if not data and end is not None and self._position < end:
            self._drop()
            raise ConnectionError("the connection was closed too early")
        return data

    def _drop(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with suppress(Exception):  # a broken connection has no good way to be closed
                file.close()

    def _open(self) -> Any:  # noqa: ANN401 (a file of fsspec, of which there are many classes)
        fs, path = self._at.fs, self._at.path
        if is_on_the_web(self._at) and not self._has_ranges:
            stream = fs.open(path, "rb", block_size=0)
            return _spooled(stream) if self._scattered else _Stream(stream)
        if self._scattered:
            file = fs.open(path, "rb", block_size=_SMALL_BLOCK_BYTES, cache_type="readahead")
        else:
            file = fs.open(
                path,
                "rb",
                block_size=_BLOCK_BYTES,
                cache_type="background",
                cache_options={"maxblocks": _BLOCKS},
            )
        if not file.seekable():  # it did not even tell its size
            self._has_ranges = False
            file.close()
            return self._open()
        self._check(file)
        return file

    def _check(self, file: Any) -> None:  # noqa: ANN401
        """That it is still the file that was opened first."""
        details = getattr(file, "details", None)
        details = details if isinstance(details, dict) else {}
        state = (getattr(file, "size", None), str(details.get("ETag") or details.get("etag") or ""))
        if self._state is not None and state != self._state:
            file.close()
            raise StorageError(
                f"{shown(self._at)} changed while it was read; run the same command again"
            )
        self._state = state


class _Stream:
    """A stream that can be read forward, with what came last at hand.

    `tarfile` looks at the byte before where it goes on, which would otherwise mean to begin anew.
    """

    def __init__(self, file: Any) -> None:  # noqa: ANN401
        self._file = file
        self._fetched = 0
        self._window = b""
        self._position = 0

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> int:
        if position < self._fetched - len(self._window):
            raise ConnectionError("back to the start")  # opened anew, by the one who reads
        self._position = position
        return position

    def read(self, size: int) -> bytes:
        while self._fetched < self._position:
            if not self._fetch(min(_STEP_BYTES, self._position - self._fetched)):
                return b""
        behind = self._fetched - self._position
        if behind:
            start = len(self._window) - behind
            data = self._window[start : start + size]
        else:
            data = self._fetch(size)
        self._position += len(data)
        return data

    def close(self) -> None:
        self._file.close()

    def _fetch(self, size: int) -> bytes:
        data: bytes = self._file.read(size)
        self._fetched += len(data)
        self._window = (self._window + data)[-_WINDOW_BYTES:]
        return data


def _spooled(stream: Any) -> IO[bytes]:  # noqa: ANN401
    """A file on disk with all that a stream has, to be read here and there."""
    with stream:
        file = tempfile.TemporaryFile()  # noqa: SIM115 (closed by the one who reads)
        shutil.copyfileobj(stream, file, _STEP_BYTES)
    file.seek(0)
    return file
