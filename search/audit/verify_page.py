"""A report read back: its page, and the data that it carries, without running anything of it."""

from __future__ import annotations

import json
import mmap
import re
import zlib
from binascii import Error as BadBase64
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ingest.errors import RunError

__all__ = ["ReportFile", "opened_report"]

_FIRST = b'<script type="application/json" id="report">'
_BLOCK = re.compile(rb'<script type="application/octet-stream" id="([a-z]+)-([0-9]+)">')
_END = b"</script>\n"
_MOST = 1 << 28  # bytes of a block, unpacked: whoever wrote it may mean harm


class ReportFile:
    """What is in a report's file; see `opened_report`.

    Attributes:
        frame: the page, cut where the data were, as `search.audit.report_html.Page`.
        content: what the page shows first.
        blocks: of each kind, in order of the file.
    """

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self._path = path
        self._data = data
        start = data.find(_FIRST)
        end = data.find(_END, start)
        if start < 0 or end < 0:
            raise self._damaged("it carries no data")
        self.content: dict[str, Any] = self._json(data[start + len(_FIRST) : end])
        if not isinstance(self.content, dict):
            raise self._damaged("its data are none")
        between = end + len(_END)
        found = _BLOCK.search(data, between)
        place = found.start() if found else between
        before_blocks = place
        self.blocks: dict[str, list[tuple[int, int]]] = {}
        while block := _BLOCK.match(data, place):
            name, number = block[1].decode(), int(block[2][:9])
            end = data.find(_END, place)
            if end < 0 or number != len(self.blocks.setdefault(name, [])):
                raise self._damaged(f"its blocks of {name} are not in order")
            self.blocks[name].append((block.end(), end))
            place = end + len(_END)
        self.frame = (data[:start], data[between:before_blocks], data[place:])

    def items(self, name: str) -> Iterator[Any]:
        """The items of all blocks of a kind.

        Raises:
            RunError: one is damaged.
        """
        for start, end in self.blocks.get(name, []):
            unpack = zlib.decompressobj()
            try:
                packed = _from_base64(self._data[start:end])
                text = unpack.decompress(packed, _MOST)
            except (BadBase64, ValueError, zlib.error) as exc:
                raise self._damaged(f"a block of {name} cannot be unpacked") from exc
            if not unpack.eof:
                raise self._damaged(f"a block of {name} is cut off, or too large")
            found = self._json(text)
            if not isinstance(found, list):
                raise self._damaged(f"a block of {name} is no list")
            yield from found

    def pictures(self) -> int:
        """How many there are: a line each."""
        return sum(
            self._data[start:end].count(b"\n") + 1 for start, end in self.blocks.get("pictures", [])
        )

    def _json(self, text: bytes) -> Any:  # noqa: ANN401
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as exc:
            raise self._damaged("its data are no JSON") from exc

    def _damaged(self, why: str) -> RunError:
        return RunError(f"{self._path.name} is damaged: {why}")


@contextmanager
def opened_report(path: Path) -> Iterator[ReportFile]:
    """A report's file, mapped into memory.

    Raises:
        RunError: it cannot be read, or is no report.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield ReportFile(path, data)
    except (OSError, ValueError) as exc:
        raise RunError(f"{path.name} cannot be read: {exc}") from exc


def _from_base64(text: bytes) -> bytes:
    from base64 import b64decode

    return b64decode(text, validate=True)
