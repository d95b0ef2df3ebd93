"""Names as cells of a CSV file that a spreadsheet opens: never a formula, and never lost.

A cell that begins with ``=``, ``+``, ``-`` or ``@`` is run as a formula (CSV injection), whatever
quotes are around it; and where a program takes ``;`` or a tab for the separator, so is what follows
one inside a cell. So the names of creators, which anyone may have written, are changed just as much
as it takes, and `original` gives back every one of them.
"""

from __future__ import annotations

import re

__all__ = ["original", "safe_cell"]

_FORMULA = "=+\\-@\uff1d\uff0b\uff0d\uff20"  # their full-width forms are taken for them by some
_FIRST = re.compile(rf"\s*(?:'|[{_FORMULA}])")
_AFTER_SEPARATOR = re.compile(rf"(?<=[;,|'\"])(\s*)([{_FORMULA}])")
_HIDDEN = re.compile("[\\\\\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]")
_ESCAPED = re.compile(r"\\(?:(\\)|u([0-9a-f]{4}))")


def safe_cell(text: str) -> str:
    """A text as a cell.

    - Control characters, line breaks, marks that turn the direction of writing and ``\\`` become
      ``\\uXXXX`` (``\\\\`` for the last), and so does a formula's first character after ``;``,
      ``,``, ``|`` or a quote.
    - What would then begin as a formula, or with ``'``, gets a ``'`` before it.
    """
    shown = _HIDDEN.sub(lambda found: "\\\\" if found[0] == "\\" else _escaped(found[0]), text)
    shown = _AFTER_SEPARATOR.sub(lambda found: found[1] + _escaped(found[2]), shown)
    return f"'{shown}" if _FIRST.match(shown) else shown


def original(cell: str) -> str:
    """The text that `safe_cell` made this of."""
    return _ESCAPED.sub(
        lambda found: "\\" if found[1] else chr(int(found[2], 16)), cell.removeprefix("'")
    )


def _escaped(character: str) -> str:
    return f"\\u{ord(character):04x}"
