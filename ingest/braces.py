"""Brace patterns: ``{00000..00010}.tar`` stands for eleven files, all of which must be there."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import islice

from braceexpand import braceexpand

from ingest.errors import SourceError, UsageError
from ingest.printable import printable
from ingest.storage import Location, shown

__all__ = ["brace_names", "require_all"]

_RANGE = re.compile(r"\{(?P<first>-?\d{1,18})\.\.(?P<last>-?\d{1,18})")
_MAX_EXPANDED = 1_000_000


def brace_names(spec: str, pattern: str) -> list[str]:
    """What a pattern stands for; `spec` is what a person typed for it.

    Raises:
        UsageError: unbalanced braces, or more names than anyone means.
    """
    # braceexpand lays out a whole range in memory before it gives its first name.
    in_ranges = math.prod(
        abs(int(match["last"]) - int(match["first"])) + 1 for match in _RANGE.finditer(pattern)
    )
    if in_ranges > _MAX_EXPANDED:
        raise _too_many(spec)
    try:
        names = list(islice(braceexpand(pattern), _MAX_EXPANDED + 1))
    except ValueError as exc:
        raise UsageError(f"unbalanced braces in {spec}") from exc
    if len(names) > _MAX_EXPANDED:
        raise _too_many(spec)
    return names


def require_all(spec: str, files: Sequence[Location], missing: Sequence[Location]) -> None:
    """A gap in a range is a mistake rather than a smaller dataset.

    Raises:
        SourceError: some are missing.
    """
    if missing:
        raise SourceError(
            f"{len(missing)} of the {len(files)} files of {printable(spec)} are missing,"
            f" the first is {printable(shown(missing[0]))}"
        )


def _too_many(spec: str) -> UsageError:
    return UsageError(f"{spec} stands for more than {_MAX_EXPANDED} files")
