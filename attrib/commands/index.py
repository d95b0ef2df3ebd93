"""``attrib index``: where the index is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from attrib.ending import ends_in_one_line, warn
from attrib.options import JsonOption

if TYPE_CHECKING:
    from search.index_url import IndexUrl

__all__ = ["app"]

app = typer.Typer(
    help="Move the index between the data folder and a Qdrant server.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def _group() -> None:
    pass  # without it, Typer takes the only command for the whole group


@app.command("copy")
@ends_in_one_line
def copy(
    source: Annotated[
        str,
        typer.Argument(
            help="The data folder, or the server (qdrant://host[:port]) that has its index."
        ),
    ],
    target: Annotated[
        str,
        typer.Argument(help="The server that the index goes to, or the data folder."),
    ],
    quantization: Annotated[
        Literal["none", "int8", "turbo4", "turbo2", "turbo1", "binary"] | None,
        typer.Option(help="Of the new index. [default: as it is]", show_default=False),
    ] = None,
    shards: Annotated[
        int | None,
        typer.Option(
            "--index-shards",
            min=1,
            help="Parts of the index on the server. [default: the server's]",
            show_default=False,
        ),
    ] = None,
    replicas: Annotated[
        int | None,
        typer.Option(
            "--index-replicas", min=1, help="Copies of each part. [default: 1]", show_default=False
        ),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Do not remove the index from where it was.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Copy the index of a data folder to a Qdrant server or back, verify it, and use it there.

    Made from the feature shards beside the index in use; queries and ingests go on meanwhile.
    Killed at any moment, the same command goes on where it stopped. Counts, and the vectors and
    payloads of a sample, are compared before the switch.
    """
    from attrib.console import Bar, counted, print_json
    from search.index_copy import copy_index

    data, url = _sides(source, target)
    bar = Bar("copying  ")
    try:
        report = copy_index(
            data,
            url,
            quantization=quantization,
            shards=shards,
            replicas=replicas,
            keep_source=keep,
            progress=bar,
        )
    finally:
        bar.stop()
    if not report.verified and report.images:
        warn(
            f"only counted, not compared: the index in {report.source} could not be read; "
            "what is left of it is removed when it can be"
        )
    if json:
        print_json({**vars(report), "data": str(data)})
        return
    old = "is kept" if report.kept else "was removed"
    typer.echo(
        f"{data}: {counted(report.images, 'training image')} now indexed in {report.target}, "
        f"collection {report.collection}; {report.verified:,} compared; the index in "
        f"{report.source} {old}"
    )


def _sides(source: str, target: str) -> tuple[Path, IndexUrl | None]:
    """The data folder, and the server that its index goes to (None: into the folder)."""
    from ingest.errors import UsageError
    from search.index_place import check_place
    from search.index_url import parse_index_url

    servers = [text.startswith(("qdrant:", "qdrants:")) for text in (source, target)]
    if servers == [False, True]:
        return Path(source), parse_index_url(target)
    if servers == [True, False]:
        check_place(Path(target), parse_index_url(source))
        return Path(target), None
    if all(servers):
        raise UsageError(
            "name the data folder as SOURCE: its index goes to TARGET from wherever it is"
        )
    raise UsageError(
        "one of SOURCE and TARGET is a server, qdrant://host[:port]; a data folder is copied with "
        "`cp -a`"
    )
