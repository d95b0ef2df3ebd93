"""``attrib audit verify``: whether an audit holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attrib.ending import ends_in_one_line
from attrib.options import (
    DOWNLOAD,
    AllowPrivateOption,
    ContactOption,
    DownloadConcurrencyOption,
    IgnoreOptOutOption,
    JsonOption,
    PerHostOption,
    ServerOption,
    TimeoutOption,
)

if TYPE_CHECKING:
    from search.audit.verify import Verification

__all__ = ["verify"]


@ends_in_one_line
def verify(
    ctx: typer.Context,
    audit: Annotated[Path, typer.Argument(metavar="REPORT", help="Folder of a finished audit.")],
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The data folder, to look up the training images that the audit names, and to "
            "attribute a sample of the images again.",
            show_default=False,
        ),
    ] = None,
    server: ServerOption = None,
    gallery: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH",
            help="The generated images, as they were given to the audit. May be repeated. "
            "[default: the folder or the tars that the audit names, where they are here]",
            show_default=False,
        ),
    ] = None,
    no_inputs: Annotated[
        bool,
        typer.Option(
            "--no-inputs", help="Read the images of the sample only, not the whole gallery."
        ),
    ] = False,
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
    download_concurrency: DownloadConcurrencyOption = DOWNLOAD.concurrency,
    per_host: PerHostOption = DOWNLOAD.per_host,
    timeout_s: TimeoutOption = DOWNLOAD.timeout_s,
    contact: ContactOption = "",
    ignore_opt_out: IgnoreOptOutOption = False,
    allow_private: AllowPrivateOption = False,
    json: JsonOption = False,
) -> None:
    """Check an audit: files, signature, numbers, report, inputs; a sample against the index.

    Exit code 0: whatever was checked holds. 1: something does not. What could not be checked is
    said, with the reason; it is neither.
    """
    from contextlib import ExitStack, closing

    from attrib.console import Bar, print_json
    from ingest.download_settings import DownloadSettings
    from ingest.errors import UsageError
    from search.audit.verify import verify as verify_audit

    if data is not None and server is not None:
        source = ctx.get_parameter_source("server")
        if source is not None and source.name == "COMMANDLINE":
            raise UsageError("--data and --server do not go together: name one of them")
        server = None  # the environment's is for those who name nothing
    bar = Bar("comparing the gallery", "comparing the gallery")
    with ExitStack() as opened:
        opened.callback(bar.stop)
        collection, service = None, None
        if data is not None:
            from search.collection import Collection

            collection = opened.enter_context(Collection.open(data))
        elif server is not None:
            from attrib.audits import ServiceAnswerer
            from attrib.client import connect

            service = ServiceAnswerer(opened.enter_context(closing(connect(server))))
        found = verify_audit(
            audit,
            collection,
            service=service,
            sample=sample,
            seed=seed,
            gallery=tuple(gallery or ()),
            inputs=not no_inputs,
            download=DownloadSettings(
                concurrency=download_concurrency,
                per_host=per_host,
                timeout_s=timeout_s,
                contact=contact,
                ignore_opt_out=ignore_opt_out,
                allow_private=allow_private,
            ),
            public_key=public_key,
            progress=bar,
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
        for line in check.lines:
            typer.echo(f"{'':<24}{plain(line)}")
    unchecked = [check.name for check in found.checks if check.state == "not checked"]
    verdict = "holds, as far as it was checked" if unchecked else "holds"
    typer.echo(plain(f"{audit} {verdict if found.holds else 'does not hold'}"))
