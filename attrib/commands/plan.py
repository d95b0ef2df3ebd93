"""``attrib plan``: what a training set of a given size takes, before anything is bought."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from attrib.ending import ends_in_one_line
from attrib.options import JsonOption

if TYPE_CHECKING:
    from workers.capacity import CapacityPlan, Figure
    from workers.capacity_sources import Coefficient

__all__ = ["plan"]

_GROUPS = {
    "ram": "Memory of the index",
    "disk": "Disk",
    "nodes": "Nodes of the index",
    "ingest": "Ingest",
    "query": "One query",
}
_TITLE, _VALUE, _FORMULA = 32, 22, 42
_MOST_IMAGES = 10**15


@ends_in_one_line
def plan(
    images: Annotated[str, typer.Option(help="Training images, such as 2.3e9.")],
    model: Annotated[
        str | None,
        typer.Option(
            help="Attribution model, as `attrib ingest` takes it. [default: the one it takes]",
            show_default=False,
        ),
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option(
            help="Device that embeds: a100, rtx3090, rtx4090, rtx5090, rtxpro6000-maxq or cpu, as "
            "far as its images per second with the model were published or measured."
        ),
    ] = None,
    images_per_second: Annotated[
        float | None,
        typer.Option(help="What one device of yours embeds, as a whole `attrib ingest` shows it."),
    ] = None,
    gpus: Annotated[int, typer.Option(help="Devices that embed at once.")] = 1,
    quantization: Annotated[
        str, typer.Option(help="none, int8, turbo4, turbo2, turbo1 or binary.")
    ] = "turbo4",
    datatype: Annotated[
        str, typer.Option(help="Numbers of the vectors in the index: float16 or float32.")
    ] = "float16",
    m: Annotated[int, typer.Option("--m", help="Links of a point in the graph.")] = 16,
    replicas: Annotated[int, typer.Option(help="Copies of the index.")] = 1,
    payload_bytes: Annotated[
        float | None,
        typer.Option(
            help="Bytes of a point's payload. [default: a LAION list's fields and attrib's own]",
            show_default=False,
        ),
    ] = None,
    thumbnails: Annotated[
        bool, typer.Option("--thumbnails/--no-thumbnails", help="Whether thumbnails are kept.")
    ] = True,
    filters: Annotated[
        bool,
        typer.Option(
            "--filters/--no-filters",
            help="Whether memory is to hold the indexes of payload fields, which --where needs.",
        ),
    ] = True,
    node_ram_gib: Annotated[float, typer.Option(help="Memory of a node, in GiB.")] = 64,
    node_disk_gib: Annotated[
        float | None,
        typer.Option(help="Disk of a node, in GiB. [default: what it takes]", show_default=False),
    ] = None,
    node_cores: Annotated[int, typer.Option(help="Cores of a node.")] = 8,
    max_segment_kib: Annotated[
        int | None,
        typer.Option(
            help="The server's max_segment_size. [default: the server's, 256,000 a core]",
            show_default=False,
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show what a training set of a given size takes: machines, hours, the cost of a query.

    Every figure stands with its formula, and every number in it with where it comes from: measured
    by a command of attrib, published by others, or assumed. docs/scale.md compares it with a run
    that was published.
    """
    from attrib.console import print_json, print_lines
    from embed.backbones import DEFAULT_BACKBONE
    from embed.registry import find_model
    from workers.capacity import Hardware, Workload, plan_capacity

    found = find_model(model or DEFAULT_BACKBONE)
    work = Workload(
        images=_count(images),
        dim=found.dim,
        base_dim=found.backbone.dim,
        quantization=quantization,  # type: ignore[arg-type]  # checked there
        datatype=datatype,  # type: ignore[arg-type]
        m=m,
        replicas=replicas,
        payload_bytes=payload_bytes,
        thumbnails=thumbnails,
        filters=filters,
    )
    hardware = Hardware(
        node_ram_gib=node_ram_gib,
        node_disk_gib=node_disk_gib,
        node_cores=node_cores,
        gpus=gpus,
        rate=_rate(gpu, images_per_second, found.backbone.name),
        max_segment_kib=max_segment_kib,
    )
    planned = plan_capacity(work, hardware)
    if json:
        print_json(_record(planned, found.name))
        return
    copies = f"{replicas} replicas" if replicas > 1 else "1 replica"
    print_lines(
        f"{work.images:,} training images, {found.name} ({work.dim} numbers, {datatype}), "
        f"{quantization}, m {m}, {copies}",
        *_lines(planned),
    )


def _count(text: str) -> int:
    from ingest.errors import UsageError

    try:
        value = float(text.replace(",", "").replace("_", ""))
        count = int(value)
    except (ValueError, OverflowError):
        count, value = 0, 0.0
    if count < 1 or count != value or count > _MOST_IMAGES:
        raise UsageError(
            f"--images {text[:40]!r} will not do: write a whole number above 0, such as 2.3e9"
        )
    return count


def _rate(gpu: str | None, images_per_second: float | None, backbone: str) -> Coefficient | None:
    from ingest.errors import UsageError
    from workers.capacity_sources import GPUS, UNPUBLISHED_GPUS, Coefficient, gpu_rate

    if gpu is not None:
        gpu = gpu.lower()
        if gpu not in GPUS and gpu not in UNPUBLISHED_GPUS and images_per_second is None:
            raise UsageError(
                f"no figures for a GPU {gpu[:40]!r}; choose one of {', '.join(GPUS)}, or give "
                "--images-per-second"
            )
    if images_per_second is not None:
        return Coefficient(
            "images_per_s", images_per_second, "images/s a device", "given", "--images-per-second"
        )
    if gpu is None:
        return None
    rate = gpu_rate(gpu, backbone)
    if rate is None:
        known = [name for name in GPUS if gpu_rate(name, backbone) is not None]
        there = f"there are some for {', '.join(known)}; " if known else ""
        raise UsageError(
            f"no published images per second of {backbone} on {gpu} are known; {there}"
            "measure yours and give --images-per-second"
        )
    return rate


def _lines(planned: CapacityPlan) -> list[str]:
    import textwrap

    from attrib.console import console

    width = console().width
    lines: list[str] = []
    marks = {c.name: f"[{i}]" for i, c in enumerate(planned.coefficients(), 1)}
    group = ""
    for figure in planned.figures:
        if figure.name.split(".")[0] != group:
            group = figure.name.split(".")[0]
            lines += ["", _GROUPS[group]]
        notes = "".join(marks[c.name] for c in figure.rests_on)
        formula = f"{figure.formula} {notes}".rstrip()
        head = f"  {figure.title:{_TITLE}}{_shown(figure):>{_VALUE}}  "
        first, *rest = textwrap.wrap(formula, max(_FORMULA, width - len(head)))
        lines += [head + first, *(" " * len(head) + line for line in rest)]
    lines += ["", "Where the numbers come from"]
    for coefficient in planned.coefficients():
        text = (
            f"{marks[coefficient.name]} {coefficient.value:g} {coefficient.unit}: "
            f"{coefficient.basis}; {coefficient.source}"
        )
        lines += textwrap.wrap(
            text,
            100,
            initial_indent="  ",
            subsequent_indent="      ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    return lines


def _shown(figure: Figure) -> str:
    value = figure.value
    if value is None:
        return "not known"
    if figure.unit == "bytes":
        return _bytes(value)
    if figure.unit == "s":
        return _duration(value)
    if figure.unit == "hours":
        return f"{value:,.1f}"
    return f"{value:,.0f}"


def _bytes(value: float) -> str:
    """Decimal and binary: `1.80 TB (1.64 TiB)`."""
    power = 0
    while power < 5 and value >= 1000 ** (power + 1):
        power += 1
    decimal = ("B", "kB", "MB", "GB", "TB", "PB")[power]
    if power == 0:
        return f"{value:.0f} B"
    binary = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")[power]
    return f"{value / 1000**power:,.2f} {decimal} ({value / 1024**power:,.2f} {binary})"


def _duration(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1e3:,.3g} ms"
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:,.1f} s"


def _record(planned: CapacityPlan, model: str) -> dict[str, Any]:
    return {
        "model": model,
        "figures": {
            figure.name: {
                "title": figure.title,
                "value": figure.value,
                "unit": figure.unit,
                "formula": figure.formula,
                "rests_on": [coefficient.name for coefficient in figure.rests_on],
            }
            for figure in planned.figures
        },
        "coefficients": {
            coefficient.name: {
                "value": coefficient.value,
                "unit": coefficient.unit,
                "basis": coefficient.basis,
                "source": coefficient.source,
            }
            for coefficient in planned.coefficients()
        },
    }
