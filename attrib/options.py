"""Options that several commands share, and how their texts are read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ingest.errors import UsageError

__all__ = [
    "DataOption",
    "DistractorsOption",
    "ExcludeOption",
    "IndexOption",
    "JsonOption",
    "RedisOption",
    "RootOption",
    "SkipMissingOption",
    "parse_where",
]

DataOption = Annotated[
    Path,
    typer.Option("--data", envvar="ATTRIB_DATA", help="The data folder.", show_default=True),
]

IndexOption = Annotated[
    str | None,
    typer.Option(
        "--index",
        envvar="ATTRIB_INDEX",
        metavar="URL",
        help="Qdrant server for the index of a new collection: qdrant://host[:port], or "
        "qdrants://host[:port] for TLS; its key in ATTRIB_QDRANT_API_KEY. "
        "[default: in the data folder]",
        show_default=False,
    ),
]

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


RedisOption = Annotated[
    str,
    typer.Option(
        "--redis",
        envvar="ATTRIB_REDIS",
        help="Address of the Redis that coordinator and workers share.",
    ),
]

DistractorsOption = Annotated[
    str | None,
    typer.Option(
        help="Images or features that the exemplars are found among: a folder, tar, data folder, "
        "feature folder or file. [default: the data folder]",
        show_default=False,
    ),
]

RootOption = Annotated[
    Path | None,
    typer.Option(
        help="Folder that the test cases' paths are relative to. [default: found from theirs]",
        show_default=False,
    ),
]

SkipMissingOption = Annotated[
    bool, typer.Option("--skip-missing", help="Leave out test-case images that are not there.")
]

ExcludeOption = Annotated[
    list[Path] | None,
    typer.Option(
        help="Further test cases, or a folder of them, whose exemplars are no distractors either; "
        "may be repeated.",
        show_default=False,
    ),
]


def parse_where(conditions: Sequence[str], option: str = "--where") -> dict[str, list[str]]:
    """``creator=A``, ``creator=B``, ``licence=C`` as a filter: (A or B) and C.

    Raises:
        UsageError: a text without '='.
    """
    where: dict[str, list[str]] = {}
    for condition in conditions:
        name, equals, value = condition.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"{option} {condition!r} will not do: write it as field=value")
        where.setdefault(name.strip(), []).append(value)
    return where
