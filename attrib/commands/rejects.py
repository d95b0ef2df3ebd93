"""``attrib rejects``: which images could not be used, and why."""

from __future__ import annotations

from pathlib import Path

import typer

from attrib.ending import ends_in_one_line
from attrib.options import DataOption, JsonOption

__all__ = ["rejects"]


@ends_in_one_line
def rejects(data: DataOption = Path("attrib-data"), json: JsonOption = False) -> None:
    """List images that could not be used, each with its reason (rejects.parquet as a table)."""
    from attrib.console import print_json, table
    from attrib.opened import read_rejects

    found = read_rejects(data)
    if json:
        print_json(found)
    elif not found:
        typer.echo("no image was rejected")
    else:
        names = ("dataset", "path", "reason", "detail")
        table(
            [("dataset", "left"), ("path", "left"), ("reason", "left"), ("detail", "cut")],
            [[row[name] for name in names] for row in found],
        )
