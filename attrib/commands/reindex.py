"""``attrib reindex``: the collection anew with another attribution model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from attrib.ending import ends_in_one_line
from attrib.options import DataOption, JsonOption

if TYPE_CHECKING:
    from search.reindex import ReindexReport

__all__ = ["reindex"]


@ends_in_one_line
def reindex(
    model: Annotated[
        str,
        typer.Option(
            help="Attribution model, see `attrib models list`; of the backbone that the images "
            "were ingested with."
        ),
    ],
    data: DataOption = Path("attrib-data"),
    quantization: Annotated[
        Literal["none", "int8", "turbo4", "turbo2", "turbo1", "binary"] | None,
        typer.Option(help="Of the new index. [default: as it is]", show_default=False),
    ] = None,
    keep_old: Annotated[
        bool, typer.Option("--keep-old", help="Do not remove the collection that was in use.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Make the collection anew with another attribution model, without decoding an image.

    The base features kept at ingest are mapped into a new collection beside the one in use, then
    queries are switched over to it at once; they keep working meanwhile. Killed at any moment, the
    same command goes on where it stopped. Where only the calibrator differs, nothing is built.
    """
    from attrib.console import Bar, print_json
    from embed.registry import find_model
    from search.reindex import reindex as run_reindex

    bar = Bar("mapping  ")
    try:
        report = run_reindex(
            data,
            find_model(model),
            quantization=quantization,
            keep_old=keep_old,
            progress=bar,
        )
    finally:
        bar.stop()
    if json:
        print_json({**vars(report), "data": str(data)})
    else:
        typer.echo(_in_words(report, data))


def _in_words(report: ReindexReport, data: Path) -> str:
    from attrib.console import counted

    images = counted(report.images, "training image")
    if not report.rebuilt:
        return f"{data}: features stay as they are; {images} answered for by {report.model}"
    old = f"{report.replaced} is kept" if report.kept else f"{report.replaced} was removed"
    return f"{data}: {images} mapped with {report.model} into {report.collection}; {old}"
