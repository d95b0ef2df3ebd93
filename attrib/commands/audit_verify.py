"""``attrib audit verify``: whether an audit holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attrib.ending import ends_in_one_line
from attrib.options import JsonOption

if TYPE_CHECKING:
    from search.audit.verify import Verification

__all__ = ["verify"]


@ends_in_one_line
def verify(
    audit: Annotated[Path, typer.Argument(metavar="REPORT", help="Folder of a finished audit.")],
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The data folder, to attribute a sample of the images again.",
            show_default=False,
        ),
    ] = None,
    gallery: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH",
            help="The generated images, as they were given to the audit. May be repeated.",
            show_default=False,
        ),
    ] = None,
    sample: Annotated[int, typer.Option(min=0, help="Images that are attributed again.")] = 32,
    seed: Annotated[int, typer.Option(min=0, help="Of their choice.")] = 0,
    public_key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Public key (PEM) that the audit is to be signed with.",
            show_default=False,
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Check an audit: files, signature, sums, and a random sample of its attributions.

    Exit code 0: whatever was checked holds. 1: something does not. What could not be checked is
    said, with the reason; it is neither.
    """
    from contextlib import ExitStack

    from attrib.console import print_json
    from search.audit.verify import verify as verify_audit

    with ExitStack() as opened:
        collection = None
        if data is not None:
            from search.collection import Collection

            collection = opened.enter_context(Collection.open(data))
        found = verify_audit(
            audit,
            collection,
            sample=sample,
            seed=seed,
            gallery=tuple(gallery or ()),
            public_key=public_key,
        )
    if json:
        print_json(found.to_dict())
    else:
        _show(audit, found)
    if not found.holds:
        raise typer.Exit(1)


def _show(audit: Path, found: Verification) -> None:
    from attrib.console import plain

    for check in found.checks:
        typer.echo(f"{check.name:<11}{check.state:<13}{plain(check.words)}")
    unchecked = [check.name for check in found.checks if check.state == "not checked"]
    verdict = "holds, as far as it was checked" if unchecked else "holds"
    typer.echo(plain(f"{audit} {verdict if found.holds else 'does not hold'}"))
