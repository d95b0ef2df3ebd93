"""``attrib delete``: a takedown."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attrib.ending import ends_in_one_line
from attrib.options import DataOption, JsonOption, parse_where

__all__ = ["delete"]


@ends_in_one_line
def delete(
    data: DataOption = Path("attrib-data"),
    key: Annotated[
        list[str] | None, typer.Option(help="Key of a training image, as `query` shows it.")
    ] = None,
    creator: Annotated[list[str] | None, typer.Option(help="All images of a creator.")] = None,
    where: Annotated[
        list[str] | None, typer.Option(help="All images of which field=value holds.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many would go.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: JsonOption = False,
) -> None:
    """Take training images down: out of index, feature shards and thumbnails, for good.

    They are not ingested again, neither under their key nor as the same bytes under another one.
    With several of the options, an image goes if it has one of the keys, or fits all of
    --creator and --where. The source files are not touched.
    """
    from attrib.console import counted, print_json
    from attrib.opened import open_data
    from ingest.errors import RunError, UsageError

    conditions = parse_where(where or [])
    if creator:
        conditions.setdefault("creator", []).extend(creator)
    if not key and not conditions:
        raise UsageError("say what to delete: --key, --creator or --where")
    with open_data(data) as opened:
        count = opened.matching(keys=key or [], where=conditions)
        if count == 0:
            raise RunError("no training image matches; nothing was deleted")
        if dry_run:
            if json:
                print_json({"matching": count, "deleted": 0})
            else:
                verb = "matches" if count == 1 else "match"
                typer.echo(
                    f"{counted(count, 'training image')} {verb}; nothing was deleted (--dry-run)"
                )
            return
        if not yes and not typer.confirm(f"Take {counted(count, 'training image')} down for good?"):
            raise RunError("nothing was deleted")
        deleted = opened.delete(keys=key or [], where=conditions)
    if json:
        print_json({"matching": count, "deleted": deleted})
    else:
        gone = counted(deleted, "training image")
        typer.echo(f"{gone} taken down; not to be ingested again")
