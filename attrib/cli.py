"""The command line: what can be typed, and how every error ends in one line."""

from __future__ import annotations

from typing import Annotated

import typer

from attrib import __version__
from attrib.commands import (
    audit,
    calibrate,
    dataset,
    delete,
    evaluate,
    index,
    info,
    ingest,
    models,
    payout,
    plan,
    query,
    reindex,
    rejects,
    serve,
    tune,
    worker,
)
from attrib.ending import set_debug

__all__ = ["app"]

app = typer.Typer(
    name="attrib",
    help="Finds the training images that most influenced a generated image, and says how much "
    "influence each one carries.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"attrib {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[
        bool, typer.Option("--debug", envvar="ATTRIB_DEBUG", help="Show tracebacks.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    set_debug(debug)


app.command("ingest")(ingest.ingest)
app.command("query")(query.query)
app.add_typer(audit.app, name="audit")
app.command("payout")(payout.payout)
app.command("serve")(serve.serve)
app.command("tune")(tune.tune)
app.command("info")(info.info)
app.command("reindex")(reindex.reindex)
app.command("calibrate")(calibrate.calibrate)
app.command("evaluate")(evaluate.evaluate)
app.command("plan")(plan.plan)
app.command("worker")(worker.worker)
app.command("status")(worker.status)
app.command("retry")(worker.retry)
app.command("cancel")(worker.cancel)
app.command("rejects")(rejects.rejects)
app.command("delete")(delete.delete)
app.add_typer(index.app, name="index")
app.add_typer(models.app, name="models")
app.add_typer(dataset.app, name="dataset")
