"""``attrib audit diff``: what moved between two audits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attrib.ending import ends_in_one_line
from attrib.options import JsonOption

if TYPE_CHECKING:
    from search.audit.diff import AuditDiff, Moved

__all__ = ["diff"]

_ROUNDS_TO_NOTHING = 5e-7


@ends_in_one_line
def diff(
    a: Annotated[Path, typer.Argument(metavar="BEFORE", help="Folder of a finished audit.")],
    b: Annotated[Path, typer.Argument(metavar="AFTER", help="Folder of another one.")],
    by: Annotated[
        str,
        typer.Option(
            metavar="FIELD",
            help="Compare shares by this: creator, licence, dataset, ..., or what both audits "
            "were told with --by.",
        ),
    ] = "creator",
    top: Annotated[
        int, typer.Option(min=0, help="Lines to show, of shares and of images that moved most.")
    ] = 20,
    json: JsonOption = False,
) -> None:
    """Compare two audits: with another model or collection, after a takedown, with --without.

    What differs in gallery, model, collection and settings comes first. Then how far shares moved
    over the images that both have, with 95 % intervals (bootstrap, paired over images), and the
    images whose influence moved most: 100 % is where none of it stayed with the same sources.
    """
    from attrib.console import print_json
    from search.audit.diff import diff as compare

    found = compare(a, b, by=by, top=top)
    if json:
        print_json(found.to_dict())
    else:
        _show(found, top)


def _show(found: AuditDiff, top: int) -> None:
    from attrib.console import counted, plain, table

    for line in found.words:
        typer.echo(plain(line))
    both = f"{counted(found.common, 'image')} in both"
    if found.changed:
        both += f", {found.changed:,} with another file under the same name: not compared"
    typer.echo(f"{both}; only before: {found.only_a:,}, only after: {found.only_b:,}")
    for when, names, count in (
        ("before", found.named_a, found.only_a),
        ("after", found.named_b, found.only_b),
    ):
        if names:
            more = f" and {count - len(names):,} more" if count > len(names) else ""
            typer.echo(plain(f"only {when}: {', '.join(names)}{more}"))
    if not found.common:
        return
    moved = [one for one in found.moved if abs(one.change) > _ROUNDS_TO_NOTHING]
    if not moved:
        typer.echo(f"no share by {found.field} moved")
    else:
        table(
            [
                ("before", "right"),
                ("after", "right"),
                ("change", "right"),
                ("95 %", "right"),
                ("", "left"),
                (found.field, "cut"),
            ],
            [_row(one) for one in moved[:top]],
            title=f"shares by {found.field}; * where 0 is outside of the interval",
        )
        if len(moved) > top:
            typer.echo(f"and {counted(len(moved) - top, 'more share')} that moved, see --json")
    typer.echo(f"influence that moved: {found.mean_distance:.2%} of an image's on average")
    movers = [mover for mover in found.movers if mover.distance > _ROUNDS_TO_NOTHING]
    if movers:
        table(
            [
                ("moved", "right"),
                ("image", "left"),
                ("top source before", "left"),
                ("top source after", "cut"),
            ],
            [[f"{one.distance:.2%}", one.image, one.before, one.after] for one in movers],
        )


def _row(one: Moved) -> list[object]:
    names = {"unknown": f"({one.kind})", "remaining": "(remaining influence)"}
    return [
        f"{one.before:.2%}",
        f"{one.after:.2%}",
        f"{one.change:+.2%}",
        "" if one.low is None or one.high is None else f"{one.low:+.2%} to {one.high:+.2%}",
        "*" if one.sure else "",
        names.get(one.kind, one.value),
    ]
