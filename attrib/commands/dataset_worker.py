"""``attrib dataset worker``: make models of datasets that others build with --workers."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from attrib.ending import ends_in_one_line, warn
from attrib.options import REDIS, DevicesOption, RedisOption

__all__ = ["worker"]


@ends_in_one_line
def worker(
    redis: RedisOption = REDIS,
    device: DevicesOption = None,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Of each process on a CPU. [default: the cores, shared out]",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="What others call it. [default: the host's name and a number]", show_default=False
        ),
    ] = None,
) -> None:
    """Make models that `attrib dataset build --workers` plans, on this machine, until stopped.

    Ctrl-C stops it after the models in hand, and once more at once; they go to other workers then.
    Needs diffusers: pip install 'attrib[dataset]'.
    """
    from importlib.util import find_spec

    from ingest.errors import UsageError
    from workers.supervisor import WorkerSettings, run_worker

    if find_spec("diffusers") is None:
        raise UsageError("diffusers is not installed: pip install 'attrib[dataset]'")
    run_worker(
        WorkerSettings(
            redis=redis,
            devices=tuple(device) if device else (None,),
            threads=threads,
            name=name,
            program=(sys.executable, "-m", "workers.dataset_child"),
        ),
        warn,
    )
