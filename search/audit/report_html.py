"""The page of a report: its scripts and styles in one file, and the policy that lets in no other.

The page's scripts are modules, which a file opened from disk cannot load; so they are joined into
one script, each in a function of its own, in an order in which it stands after what it imports.
"""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.resources import files

__all__ = ["Page", "page"]

_SHARED_SCRIPTS = ("words", "dom", "treemap")
_SCRIPTS = (
    "data",
    "told",
    "plots",
    "bars",
    "wall",
    "opened",
    "flagged",
    "gallery",
    "printing",
    "report",
)

_PLACE = re.compile("@@([a-z]+)@@")
_IMPORT = re.compile(r'^import \{([^}]*)\} from "\./([a-z]+)\.js";$', re.MULTILINE)
_EXPORT = re.compile(r"^export ((?:async )?(?:const|let|function) (\w+))", re.MULTILINE)


@dataclass(frozen=True)
class Page:
    """The page, cut where the summary goes, and where the blocks go."""

    before: str
    between: str
    after: str


@cache
def page() -> Page:
    """The whole page but for its data, the same for every audit."""
    house = files("search") / "page"
    own = files("search.audit") / "report_page"
    theme = (house / "theme.js").read_text("utf-8")
    style = (house / "style.css").read_text("utf-8") + (own / "report.css").read_text("utf-8")
    modules = {name: (house / f"{name}.js").read_text("utf-8") for name in _SHARED_SCRIPTS}
    modules |= {name: (own / f"{name}.js").read_text("utf-8") for name in _SCRIPTS}
    joined = "".join(_as_function(name, module) for name, module in modules.items())
    script = f'(() => {{\n"use strict";\n{joined}}})();\n'
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src '{_digest(theme)}' '{_digest(script)}'",
            f"style-src '{_digest(style)}'",
            "img-src data: blob:",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )
    icon = b64encode((house / "favicon.svg").read_bytes()).decode()
    texts = {
        "policy": policy,
        "theme": theme,
        "style": style,
        "script": script,
        "icon": f"data:image/svg+xml;base64,{icon}",
    }
    before, between, after = (
        _PLACE.sub(lambda place: texts[place[1]], piece)
        for piece in re.split("@@data@@|@@blocks@@", (own / "report.html").read_text("utf-8"))
    )
    return Page(before, between, after)


def _as_function(name: str, module: str) -> str:
    """A constant with what the module exports."""
    names = ", ".join(export[2] for export in _EXPORT.finditer(module))
    body = _EXPORT.sub(r"\1", _IMPORT.sub(r"const {\1} = module_\2;", module))
    return f"const module_{name} = (() => {{\n{body}return {{ {names} }};\n}})();\n"


def _digest(text: str) -> str:
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"
