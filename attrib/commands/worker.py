"""``attrib worker``, ``status``, ``retry`` and ``cancel``: an ingest over many machines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attrib.ending import ends_in_one_line, warn
from attrib.options import (
    REDIS,
    DataOption,
    DevicesOption,
    JsonOption,
    PrecisionOption,
    RedisOption,
)

if TYPE_CHECKING:
    from search.ingestion import Embeds
    from workers.progress import Status

__all__ = ["cancel", "retry", "status", "worker"]


@ends_in_one_line
def worker(
    redis: RedisOption = REDIS,
    device: DevicesOption = None,
    count: Annotated[int, typer.Option(min=1, max=256, help="Processes for each device.")] = 1,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Threads that read and decode, of each process. [default: the cores, shared out]",
            show_default=False,
        ),
    ] = None,
    precision: PrecisionOption = "auto",
    name: Annotated[
        str | None,
        typer.Option(
            help="What `attrib status` calls it. [default: the host's name and a number]",
            show_default=False,
        ),
    ] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=65535,
            help="Serve metrics for Prometheus at this port.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Embed shards that `attrib ingest --workers` plans, on this machine, until stopped.

    Ctrl-C stops it after the shards in hand, and once more at once; they go to other workers then.
    """
    from workers.supervisor import WorkerSettings, run_worker

    run_worker(
        WorkerSettings(
            redis=redis,
            devices=tuple(device) if device else (None,),
            count=count,
            precision=precision,
            threads=threads,
            metrics_port=metrics_port,
            name=name,
        ),
        warn,
    )


@ends_in_one_line
def status(
    data: DataOption = Path("attrib-data"),
    redis: RedisOption = REDIS,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show it anew every two seconds, until stopped.")
    ] = False,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=65535,
            help="Serve the plan as a whole for Prometheus at this port of 127.0.0.1, until "
            "stopped.",
            show_default=False,
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show how far an ingest with workers is: shards, images per second, each worker."""
    import time
    from contextlib import ExitStack, closing

    from attrib.console import print_json
    from workers.board import Board
    from workers.progress import status_of

    with ExitStack() as opened:
        board = opened.enter_context(closing(Board(redis)))
        now = status_of(data, board)
        if metrics_port is not None:
            from workers.plan_metrics import serve_plan

            address = opened.enter_context(serve_plan(data, board, metrics_port))
            warn(f"metrics at {address}, until stopped")
        while True:
            if watch and not json:
                typer.echo("\x1b[2J\x1b[H", nl=False)
            if json:
                print_json(now.to_dict())
            else:
                _show(now)
            while metrics_port is not None and not watch:
                time.sleep(3600)
            if not watch:
                return
            time.sleep(2)
            now = status_of(data, board)


@ends_in_one_line
def retry(data: DataOption = Path("attrib-data"), redis: RedisOption = REDIS) -> None:
    """Send dead letters, the shards that failed for good, to the workers again.

    Where the ingest still runs, it does so; otherwise this command waits until they are done.
    """
    from attrib.console import Bar, counted
    from attrib.through_workers import ThroughWorkers
    from search.collection import Collection
    from search.ingestion import IngestSettings
    from workers.coordinator import CoordinatorSettings
    from workers.jobs import Jobs, jobs_path
    from workers.requests import has_jobs, revive

    has_jobs(data)
    through = ThroughWorkers(redis, CoordinatorSettings(), warn)
    count, running = revive(data)
    if running:
        typer.echo(f"{counted(count, 'shard')} planned again by the ingest that runs")
        return
    bar = Bar()
    with Collection.open(data) as collection, Jobs(jobs_path(data)) as jobs:
        left = jobs.all(state="planned") + jobs.all(state="sent")
        if not left:
            typer.echo("no shards to send again")
            return
        bar.start(None)
        try:
            report = through(
                collection,
                _nothing,
                [],
                left[0].dataset,
                settings=IngestSettings(),
                progress=bar,
            )
        finally:
            bar.stop()
    typer.echo(f"{counted(report.shards, 'shard')} done, {report.ingested:,} images ingested")
    through.check(data)


@ends_in_one_line
def cancel(data: DataOption = Path("attrib-data"), redis: RedisOption = REDIS) -> None:
    """Stop an ingest with workers. What is in stays; the same ingest goes on with the rest."""
    from contextlib import closing

    from attrib.console import counted
    from workers.board import Board
    from workers.requests import cancel as give_up

    with closing(Board(redis)) as board:
        count = give_up(data, board)
    typer.echo(f"{counted(count, 'shard')} given up")


def _nothing() -> Embeds:
    raise RuntimeError("workers embed, not this process")


def _show(now: Status) -> None:
    from attrib.console import plain, table

    total = "" if now.total is None else f" of {now.total:,}"
    images = "" if now.images_total is None else f" of {now.images_total:,}"
    lines = {
        "ingest": f"{_state(now)}{f', dataset {now.dataset}' if now.dataset else ''}",
        "shards": f"{now.done:,}{total} done, {now.at_work:,} at work, {now.waiting:,} waiting, "
        f"{len(now.dead):,} dead letters",
        "images": f"{now.images:,}{images} done, {now.rejected:,} of them rejected",
        "rate": f"{now.rate:,.0f} images/s{_remaining(now)}",
    }
    for name, text in lines.items():
        typer.echo(f"{name:8} {text}")
    if now.redis:
        warn(now.redis)
    elif now.workers:
        table(
            [("worker", "cut"), ("device", "left"), ("images/s", "right"), ("at", "cut")],
            [
                (one.name, one.device or "-", f"{one.rate:,.0f}", one.shard or "-")
                for one in now.workers
            ],
        )
    elif now.running:
        warn("no worker answers; start one with `attrib worker`")
    for name, why in now.refusals.items():
        warn(f"worker {plain(name)} refuses: {plain(why)}")
    if now.dead:
        table(
            [("dead letter", "right"), ("source", "cut"), ("attempts", "right"), ("reason", "cut")],
            [(one.number, one.source, one.attempts, one.reason) for one in now.dead],
        )


def _state(now: Status) -> str:
    from attrib.console import counted

    if now.state == "stopped":
        return "stopped; the same command goes on"
    if now.state == "finished" and now.dead:
        return f"finished, but for {counted(len(now.dead), 'dead letter')}"
    return now.state


def _remaining(now: Status) -> str:
    if not now.running:
        return " on average"
    if now.remaining_s is None:
        return ", remaining time unknown"
    minutes, rest = divmod(round(now.remaining_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f", {hours:d}:{minutes:02d}:{rest:02d} remaining"
