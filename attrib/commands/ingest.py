"""``attrib ingest``: training images into the index."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

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
    IgnoreOptOutOption,
    IndexOption,
    JsonOption,
    KeepImagesOption,
    MaxBytesOption,
    MaxPixelsOption,
    PerHostOption,
    PrecisionOption,
    RedisOption,
    ThreadsOption,
    TimeoutOption,
)

if TYPE_CHECKING:
    from attrib.through_workers import ThroughWorkers
    from search.ingestion import IngestReport

__all__ = ["ingest"]

_BATCH_SIZE = 32
_MAX_PIXELS = 100_000_000
_MAX_BYTES = 64 * 1024 * 1024
_SHARD_SIZE = 1024
_WORKER_TIMEOUT_S = 60.0
_ATTEMPTS = 3
_CALIBRATION = ("calibrator", "calibrated", "calibration_error")


@ends_in_one_line
def ingest(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SOURCE",
            show_default=False,
            help="Folders, WebDataset tars (brace patterns such as {00000..00010}.tar work), or "
            "lists of paths or of URLs (.txt, .parquet, .csv; LAION's parquet files as they are); "
            "on this machine, or by URL: s3://, gs://, https://.",
        ),
    ] = None,
    features: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SOURCE",
            help="Ready-made base features instead of images: the output folder of clip-retrieval, "
            "a .npy file (images x dim), or a .pth file with feats and paths. --model names what "
            "they were made with.",
            show_default=False,
        ),
    ] = None,
    data: DataOption = Path("attrib-data"),
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Name of the dataset that the images belong to. [default: name of the first "
            "source]",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            envvar="ATTRIB_MODEL",
            help="Attribution model or backbone, see `attrib models list`. [default: the data "
            "folder's, or efficientnet-lite0]",
            show_default=False,
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Embed unchanged images again, too.")
    ] = False,
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed",
            help="Try rejected images and failed downloads again. Otherwise they are passed over "
            "until they change.",
        ),
    ] = False,
    batch_size: BatchSizeOption = _BATCH_SIZE,
    shard_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Images of a folder that make one shard. [default: 1024; of features 8192]",
            show_default=False,
        ),
    ] = None,
    threads: ThreadsOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = "auto",
    index: IndexOption = None,
    index_shards: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Parts that a new index on a server is split into. [default: the server's]",
            show_default=False,
        ),
    ] = None,
    index_replicas: Annotated[
        int | None,
        typer.Option(min=1, help="Copies of each part. [default: 1]", show_default=False),
    ] = None,
    features_to: Annotated[
        str | None,
        typer.Option(
            metavar="PLACE",
            help="Of a new data folder: keep the base features here instead of in the folder; "
            "s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or another folder.",
            show_default=False,
        ),
    ] = None,
    quantization: Annotated[
        Literal["none", "int8", "turbo4", "turbo2", "turbo1", "binary"] | None,
        typer.Option(
            help="Of a new index: less memory, while every similarity shown stays exact. int8 and "
            "turbo4 keep recall; the others lose some for images unlike any training image. "
            "[default: none; on a server turbo4]",
            show_default=False,
        ),
    ] = None,
    max_pixels: MaxPixelsOption = _MAX_PIXELS,
    max_bytes: MaxBytesOption = _MAX_BYTES,
    no_calibrate: Annotated[
        bool,
        typer.Option(
            "--no-calibrate",
            help="Leave a calibrator that was never fitted as it is. Otherwise it is fitted to the "
            "collection in the end, on augmented images of its own, and again once it has twice "
            "the images.",
        ),
    ] = False,
    keep_images: KeepImagesOption = None,
    download_concurrency: DownloadConcurrencyOption = DOWNLOAD.concurrency,
    per_host: PerHostOption = DOWNLOAD.per_host,
    timeout_s: TimeoutOption = DOWNLOAD.timeout_s,
    contact: ContactOption = "",
    ignore_opt_out: IgnoreOptOutOption = False,
    allow_private: AllowPrivateOption = False,
    workers: Annotated[
        bool,
        typer.Option(
            "--workers",
            help="Let the machines that run `attrib worker` do it; this process plans, and takes "
            "in what they did.",
        ),
    ] = False,
    redis: RedisOption = REDIS,
    worker_timeout_s: Annotated[
        float,
        typer.Option(
            min=1, max=3600, help="With --workers: seconds without a sign of life that end a try."
        ),
    ] = _WORKER_TIMEOUT_S,
    attempts: Annotated[
        int,
        typer.Option(
            min=1, max=100, help="With --workers: failures that make a shard a dead letter."
        ),
    ] = _ATTEMPTS,
    json: JsonOption = False,
) -> None:
    """Ingest training images: decode, embed, index, calibrate.

    Killed at any moment, the same command goes on where it stopped. Images that are there
    unchanged are passed over. Images that cannot be used are listed by `attrib rejects`.
    """
    from attrib.console import Bar, counted, print_json
    from ingest.errors import UsageError

    bar = Bar("mapping  " if features else "embedding")
    second = Bar("calibrating")
    facts: dict[str, Any]
    through: ThroughWorkers | None = None

    def calibrating() -> Bar:
        bar.stop()
        return second

    if features:
        for name, given in (
            ("SOURCE", bool(sources)),
            ("--batch-size", batch_size != _BATCH_SIZE),
            ("--threads", threads is not None),
            ("--max-pixels", max_pixels != _MAX_PIXELS),
            ("--max-bytes", max_bytes != _MAX_BYTES),
            ("--no-calibrate", no_calibrate),
            ("--retry-failed", retry_failed),
            ("--keep-images", keep_images is not None),
            ("--ignore-opt-out", ignore_opt_out),
            ("--allow-private", allow_private),
            ("--workers", workers),
        ):
            if given:
                raise UsageError(f"{name} is for images and does not go with --features")
    elif not sources:
        raise UsageError("no source given: name a folder, a tar, a list or an image")
    try:
        if features:
            from attrib.feature_ingest import ingest_features_into
            from search.feature_ingest import SHARD_ROWS

            report, of_features = ingest_features_into(
                data,
                features,
                dataset=dataset,
                model=model,
                force=force,
                shard_rows=shard_size or SHARD_ROWS,
                device=device,
                precision=precision,
                quantization=quantization,
                index=index,
                index_shards=index_shards,
                index_replicas=index_replicas,
                features_to=features_to,
                progress=bar,
            )
            facts = {**of_features}
        else:
            from attrib.opened import ingest_into
            from ingest.decode import DecodeLimits
            from ingest.download_settings import DownloadSettings
            from search.ingestion import IngestSettings

            settings = IngestSettings(
                shard_size=shard_size or _SHARD_SIZE,
                batch_size=batch_size,
                limits=DecodeLimits(max_bytes=max_bytes, max_pixels=max_pixels),
                **({"decode_threads": threads} if threads is not None else {}),
            )
            if workers:
                from attrib.through_workers import ThroughWorkers
                from workers.coordinator import CoordinatorSettings

                through = ThroughWorkers(
                    redis, CoordinatorSettings(worker_timeout_s, attempts), warn
                )
            report, facts = ingest_into(
                data,
                sources or [],
                dataset=dataset,
                model=model,
                force=force,
                settings=settings,
                device=device,
                precision=precision,
                quantization=quantization,
                index=index,
                index_shards=index_shards,
                index_replicas=index_replicas,
                features_to=features_to,
                progress=bar,
                calibrate=not no_calibrate,
                calibrating=calibrating,
                retry_failed=retry_failed,
                download=DownloadSettings(
                    concurrency=download_concurrency,
                    per_host=per_host,
                    timeout_s=timeout_s,
                    contact=contact,
                    ignore_opt_out=ignore_opt_out,
                    allow_private=allow_private,
                    keep_images=keep_images,
                ),
                **({"run": through} if through else {}),
            )
    finally:
        bar.stop()
        second.stop()
    if facts.get("calibration_error"):
        warn(
            f"not calibrated: {facts['calibration_error']}; all images are in, and "
            f"`attrib calibrate --self --data {data}` tries again"
        )
    if json:
        of_calibration = {name: facts[name] for name in _CALIBRATION if name in facts}
        print_json({**vars(report), "data": str(data), "model": facts["model"], **of_calibration})
        _fail_where_broken(report, data, through)
        return
    rejected = sum(report.rejected.values())
    parts = [f"{report.ingested:,} ingested"]
    parts += [f"{report.unchanged:,} unchanged"] if report.unchanged else []
    parts += [f"{rejected:,} rejected"] if rejected else []
    parts += [f"{report.buried:,} taken down earlier"] if report.buried else []
    typer.echo(
        f"{report.dataset}: {', '.join(parts)}; {data} now holds "
        f"{counted(report.total, 'training image')}"
    )
    for reason, count in sorted(report.rejected.items(), key=lambda pair: (-pair[1], pair[0])):
        typer.echo(f"  {count:,} rejected: {reason}")
    if rejected:
        typer.echo(f"  which ones: attrib rejects --data {data}")
    if facts.get("calibrated"):
        typer.echo(f"calibrated on {facts['calibrator']['fitted_on']}")
    if facts["hint"]:
        warn(facts["hint"])
    _fail_where_broken(report, data, through)


def _fail_where_broken(report: IngestReport, data: Path, through: ThroughWorkers | None) -> None:
    """Sources that ended too early are no success, though what was whole of them is in."""
    from ingest.errors import SourceError

    if through is not None:
        through.check(data)
    if report.broken:
        raise SourceError("; ".join(report.broken))
