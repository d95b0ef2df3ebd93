"""What a report carries with it: JSON and blocks of data, as text that no data can break out of."""

from __future__ import annotations

import json
import zlib
from base64 import b64encode
from pathlib import Path
from shutil import copyfileobj
from tempfile import TemporaryFile
from types import TracebackType
from typing import IO, Any

__all__ = ["PictureSpool", "Spool", "as_json", "json_script", "packed"]


def as_json(value: object) -> str:
    """JSON in ASCII, smallest form, without a ``<``: safe inside of a script element.

    Raises:
        ValueError: a number that is not finite.
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    # A ``<`` can only stand in a string. Without one neither "</script" nor "<!--" can be there.
    return text.replace("<", "\\u003c")


def json_script(name: str, value: object) -> str:
    """A script element that holds data, found by its id."""
    return f'<script type="application/json" id="{name}">{as_json(value)}</script>\n'


def packed(value: object) -> str:
    """JSON, deflated (RFC 1950; there is no time in it) and in base64."""
    return b64encode(zlib.compress(as_json(value).encode(), 9)).decode()


class Spool:
    """Blocks of one kind, kept on disk until their place in the report is reached.

    Args:
        folder: where the (nameless) file is; as large as the blocks.
        name: block ``n`` becomes the element with the id ``name-n``.
        size: items of a block.
    """

    def __init__(self, folder: Path, name: str, size: int) -> None:
        self.name = name
        self.size = size
        self.items = 0
        self.blocks = 0
        self._file: IO[bytes] = TemporaryFile(dir=folder)  # noqa: SIM115 - closed by `close`
        self._waiting: list[Any] = []

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def add(self, item: object) -> int:
        """Append an item (JSON values, or lines of text where `text` is written); its number."""
        self._waiting.append(item)
        if len(self._waiting) == self.size:
            self.flush()
        self.items += 1
        return self.items - 1

    def flush(self) -> None:
        """Write the block that is not full yet."""
        if not self._waiting:
            return
        start = f'<script type="application/octet-stream" id="{self.name}-{self.blocks}">'
        self._file.write(f"{start}{self._block(self._waiting)}</script>\n".encode())
        self._waiting = []
        self.blocks += 1

    def _block(self, items: list[Any]) -> str:
        return packed(items)

    def write_to(self, file: IO[bytes]) -> None:
        """Copy all blocks."""
        self.flush()
        self._file.seek(0)
        copyfileobj(self._file, file, 1 << 20)

    def facts(self) -> dict[str, int]:
        """What the page needs to find an item."""
        return {"items": self.items, "size": self.size}


class PictureSpool(Spool):
    """Blocks of image files: a line of base64 each, which the page uses as it stands."""

    def _block(self, items: list[Any]) -> str:
        return "\n".join(b64encode(item).decode() for item in items)
