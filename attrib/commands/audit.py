"""``attrib audit``: a whole gallery of generated images."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from attrib.commands import audit_diff, audit_verify
from attrib.ending import ends_in_one_line, warn
from attrib.options import (
    DOWNLOAD,
    REDIS,
    AllowPrivateOption,
    BatchSizeOption,
    ContactOption,
    DataOption,
    DeviceOption,
    DownloadConcurrencyOption,
    ExactOption,
    ExpectedModelOption,
    IgnoreOptOutOption,
    JsonOption,
    KeepImagesOption,
    MaxBytesOption,
    MaxPixelsOption,
    PerHostOption,
    PrecisionOption,
    RedisOption,
    ServerOption,
    ThreadsOption,
    TimeoutOption,
    parse_where,
)

if TYPE_CHECKING:
    from search.audit.run import AuditReport

__all__ = ["app"]

_K = 1000
_MASS = 0.99
_PART_SIZE = 256
_BATCH_SIZE = 32
_MAX_PIXELS = 100_000_000
_MAX_BYTES = 64 * 1024 * 1024
_TOP = 10
_WRONG_CALL = 2


class RunOrSubcommand(TyperGroup):
    """A group whose own arguments are those of its hidden command ``run``.

    The first word tells: the name of a subcommand is that subcommand, all else is a run. A gallery
    of such a name is given as ``./verify``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 (as Typer calls it)
        super().__init__(*args, **kwargs)
        self._run = self.commands.pop("run")

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: Any = None,  # noqa: ANN401 (of click itself, or of the copy inside Typer)
        **extra: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """As click does it, of the group or of the run."""
        asks_help = args and args[0] in ("-h", "--help")
        if args and (args[0] in self.commands or asks_help):
            return super().make_context(info_name, args, parent, **extra)
        if args and (meant := self._meant(args[0])):
            warn(f"there is no gallery {args[0]!r}: did you mean `attrib audit {meant}`?")
            raise typer.Exit(_WRONG_CALL)
        return self._run.make_context(info_name, args, parent, **extra)

    def _meant(self, word: str) -> str:
        """The subcommand that a word is a slip of, where it is no file or folder; '' for none."""
        if word.startswith("-") or Path(word).exists():
            return ""
        return next(iter(get_close_matches(word.lower(), self.commands, n=1, cutoff=0.7)), "")

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401
        """The subcommand of that name; the run, where the word names none."""
        return super().get_command(ctx, cmd_name) or self._run

    def format_help(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401
        """The help of the run, and then the subcommands."""
        self._run.rich_markup_mode = None  # type: ignore[attr-defined]
        self._run.format_help(ctx, formatter)
        self.format_commands(ctx, formatter)


app = typer.Typer(
    cls=RunOrSubcommand,
    help="Attribute a whole gallery of generated images, and write a report.",
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command("run", hidden=True)
@ends_in_one_line
def audit(
    gallery: Annotated[
        list[str],
        typer.Argument(
            metavar="GALLERY",
            show_default=False,
            help="Generated images: folders, WebDataset tars, or lists of paths or of URLs (.txt, "
            ".parquet, .csv); on this machine, or by URL: s3://, gs://, https://. Prompts come "
            "from prompts.json, metadata tables and files beside the images.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of the audit, new or empty.", metavar="DIR")
    ],
    data: DataOption = Path("attrib-data"),
    k: Annotated[int, typer.Option("--k", "-k", help="Training images of an image, at most.")] = _K,
    mass: Annotated[
        float,
        typer.Option(
            help="The rows of an image end once they carry this share of its influence; the rest "
            "is its remaining influence."
        ),
    ] = _MASS,
    by: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD",
            help="Sum the gallery's influence by this field, too, beside creator, licence and "
            "dataset: any that the training images' metadata have. May be repeated.",
            show_default=False,
        ),
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD=VALUE",
            help="Attribute as if the training images of which field=value holds (any field; "
            "over a service creator, licence, dataset, sha256, key) were not there. The index is "
            "not touched. What no training image has is refused. May be repeated.",
            show_default=False,
        ),
    ] = None,
    exact: ExactOption = False,
    copy_model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Backbone that near-copies are looked for with, such as sscd-disc-mixup. "
            "[default: none; by the edges of the pictures]",
            show_default=False,
        ),
    ] = None,
    threshold: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FLAG=NUMBER",
            help="Raise a flag from another value on, as in near-copy=0.9. May be repeated.",
            show_default=False,
        ),
    ] = None,
    server: ServerOption = None,
    model: ExpectedModelOption = None,
    workers: Annotated[
        bool,
        typer.Option(
            "--workers",
            help="Let the machines that run `attrib worker` embed the images; this process "
            "attributes them. They must reach gallery and DIR under the same paths.",
        ),
    ] = False,
    redis: RedisOption = REDIS,
    sign: Annotated[
        Path | None,
        typer.Option(
            metavar="KEY",
            help="Sign the audit with this Ed25519 key (PEM), into manifest.sig.",
            show_default=False,
        ),
    ] = None,
    restart: Annotated[
        bool,
        typer.Option("--restart", help="Begin anew, whatever audit is in the folder."),
    ] = False,
    part_size: Annotated[
        int,
        typer.Option(min=1, help="Images done again at most, where the run was broken off."),
    ] = _PART_SIZE,
    batch_size: BatchSizeOption = _BATCH_SIZE,
    threads: ThreadsOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = "auto",
    max_pixels: MaxPixelsOption = _MAX_PIXELS,
    max_bytes: MaxBytesOption = _MAX_BYTES,
    keep_images: KeepImagesOption = None,
    download_concurrency: DownloadConcurrencyOption = DOWNLOAD.concurrency,
    per_host: PerHostOption = DOWNLOAD.per_host,
    timeout_s: TimeoutOption = DOWNLOAD.timeout_s,
    contact: ContactOption = "",
    ignore_opt_out: IgnoreOptOutOption = False,
    allow_private: AllowPrivateOption = False,
    json: JsonOption = False,
) -> None:
    """Attribute a whole gallery of generated images, and write a report.

    The folder gets report.html for people, and tables and summary.json for programs: every image's
    training images with their influence, the shares of creators over the gallery, and flags. Killed
    at any moment, the same command goes on where it stopped; the same inputs give the same bytes.
    It is a similarity-based estimate, not a causal proof.
    """
    from attrib.audits import audit_gallery
    from attrib.console import Bar, print_json
    from ingest.decode import DecodeLimits
    from ingest.download_settings import DownloadSettings
    from ingest.errors import UsageError
    from search.audit.flags import parse_thresholds
    from search.audit.settings import DEFAULT_BY, AuditSettings

    settings = AuditSettings(
        k=k,
        mass=mass,
        by=tuple(dict.fromkeys([*DEFAULT_BY, *(by or [])])),
        without=parse_where(without or [], "--without"),
        exact=exact,
        copy_model=copy_model or "",
        thresholds=parse_thresholds(threshold or []),
        precision=precision,
        part_size=part_size,
        batch_size=batch_size,
        limits=DecodeLimits(max_bytes=max_bytes, max_pixels=max_pixels),
        **({"decode_threads": threads} if threads is not None else {}),
    )
    if workers and server is not None:
        raise UsageError("--workers is for a data folder and does not go with --server")
    if sign is not None:
        from search.audit.sign import load_key

        load_key(sign)  # a key that will not do is told of before all the work
    through = None
    if workers:
        from attrib.through_workers import ThroughWorkers
        from workers.coordinator import CoordinatorSettings

        through = ThroughWorkers(redis, CoordinatorSettings(), warn)
    bar = Bar("attributing", "reporting  ")
    try:
        report = audit_gallery(
            gallery,
            out,
            data=data,
            server=server,
            model=model,
            settings=settings,
            through=through,
            device=device,
            download=DownloadSettings(
                concurrency=download_concurrency,
                per_host=per_host,
                timeout_s=timeout_s,
                contact=contact,
                ignore_opt_out=ignore_opt_out,
                allow_private=allow_private,
                keep_images=keep_images,
            ),
            restart=restart,
            progress=bar,
        )
    finally:
        bar.stop()
    if sign is not None:
        from search.audit.sign import sign as sign_audit

        sign_audit(out, sign)
    if json:
        print_json(
            {
                "out": str(out),
                "was_finished": report.was_finished,
                "signed": sign is not None,
                **report.summary,
            }
        )
        return
    _show(report)


def _show(report: AuditReport) -> None:
    from attrib.console import counted, table
    from search.audit.flags import FLAGS

    summary, out = report.summary, report.out
    totals = summary["totals"]
    if report.was_finished:
        typer.echo(f"{out} holds this audit already, finished: nothing was done")
    rejected = sum(report.rejected.values())
    typer.echo(
        f"{summary['gallery']['name']}: {counted(totals['images'], 'image')} attributed to "
        f"{counted(totals['training_images'], 'training image')}"
        + (f", {rejected:,} rejected" if rejected else "")
    )
    for reason, count in sorted(report.rejected.items(), key=lambda pair: (-pair[1], pair[0])):
        typer.echo(f"  {count:,} rejected: {reason}")
    left_out = summary["settings"]["without"]
    if left_out:
        told = ", ".join(f"{name}={value}" for name in left_out for value in left_out[name])
        typer.echo(f"as if the training images of {told} were not there{_counted(summary)}")
    typer.echo(
        f"remaining influence {totals['remaining_mean']:.1%} on average; effective sources "
        f"{totals['effective_sources_median']:.1f} in the median"
    )
    # The gravest first, as in the report: in the file they are in order of their names.
    names = sorted(totals["flags"], key=lambda name: [*FLAGS, name].index(name))
    flags = [[totals["flags"][name], summary["flags"][name]["title"]] for name in names]
    table([("images", "right"), ("flag", "left")], flags)
    _show_creators(out)
    typer.echo("a similarity-based estimate, not a causal proof")
    typer.echo(f"report: {out / 'report.html'}")


def _counted(summary: Mapping[str, Any]) -> str:
    """How many training images were left out, where the audit says it."""
    from attrib.console import counted

    left_out = summary.get("left_out")
    if left_out is None:  # of an attrib that did not count them
        return ""
    conditions = left_out["conditions"]
    each = ", ".join(f"{one['images']:,} of {one['field']}={one['value']}" for one in conditions)
    return (
        f": {counted(left_out['images'], 'training image')} left out"
        f"{f' ({each})' if len(conditions) > 1 else ''}, {left_out['remaining']:,} remain"
    )


def _show_creators(out: Path) -> None:
    from attrib.console import table
    from search.audit.finished import read_creators

    lines = [line for line in read_creators(out) if line["field"] == "creator"]
    names = {"unknown": "unknown creator", "remaining": "remaining influence"}
    known = [line for line in lines if line["kind"] == "known"]
    shown = [line for line in lines if line in known[:_TOP] or line["kind"] != "known"]
    rows = [
        [
            f"{line['share']:.2%}",
            ""
            if line["share_low"] is None
            else f"{line['share_low']:.2%}-{line['share_high']:.2%}",
            line["images"],
            names.get(line["kind"], line["value"]),
        ]
        for line in shown
    ]
    if len(known) > _TOP:
        rest = sum(line["share"] for line in known[_TOP:])
        rows.append([f"{rest:.2%}", "", "", f"{len(known) - _TOP:,} more creators"])
    table([("share", "right"), ("95 %", "right"), ("images", "right"), ("creator", "cut")], rows)


app.command("verify")(audit_verify.verify)
app.command("diff")(audit_diff.diff)
