"""A report, read back as a browser would: its scripts and blocks by the rules of HTML."""

from __future__ import annotations

import json
import zlib
from base64 import b64decode
from html.parser import HTMLParser
from pathlib import Path
from typing import Any


class Elements(HTMLParser):
    """Script and style elements with their text, and the attributes of all others."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.styles: list[str] = []
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self._open = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open = tag
        self.attributes.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append((dict(attrs), ""))
        elif tag == "style":
            self.styles.append("")

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open == "script":
            attributes, text = self.scripts[-1]
            self.scripts[-1] = (attributes, text + data)
        elif self._open == "style":
            self.styles[-1] += data


class Report:
    """What a report holds."""

    def __init__(self, path: Path) -> None:
        self.html = path.read_text("utf-8")
        self.elements = Elements()
        self.elements.feed(self.html)
        self.elements.close()
        self.by_id = {of["id"]: text for of, text in self.elements.scripts if "id" in of}
        self.first: dict[str, Any] = json.loads(self.by_id["report"])

    def items(self, name: str) -> list[Any]:
        """All items of the blocks of a kind."""
        facts, found = self.first["blocks"][name], []
        for number in range(-(-facts["items"] // facts["size"])):
            text = self.by_id[f"{name}-{number}"]
            if name == "pictures":
                found += [b64decode(line, validate=True) for line in text.split("\n")]
            else:
                found += json.loads(zlib.decompress(b64decode(text, validate=True)))
        assert len(found) == facts["items"]
        return found
