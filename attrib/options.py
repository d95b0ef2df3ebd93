"""Options that several commands share, and how their texts are read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from ingest.download_settings import DownloadSettings
from ingest.errors import UsageError

__all__ = [
    "DOWNLOAD",
    "REDIS",
    "AllowPrivateOption",
    "BatchSizeOption",
    "ContactOption",
    "DataOption",
    "DeviceOption",
    "DevicesOption",
    "DistractorsOption",
    "DownloadConcurrencyOption",
    "ExactOption",
    "ExcludeOption",
    "ExpectedModelOption",
    "IgnoreOptOutOption",
    "IndexOption",
    "JsonOption",
    "KeepImagesOption",
    "MaxBytesOption",
    "MaxPixelsOption",
    "PerHostOption",
    "PrecisionOption",
    "RedisOption",
    "RootOption",
    "ServerOption",
    "SkipMissingOption",
    "ThreadsOption",
    "TimeoutOption",
    "parse_where",
]

DOWNLOAD = DownloadSettings()
"""What the options of downloads are unless they are given."""

REDIS = "redis://127.0.0.1:6379/0"
"""Where workers and those who plan for them meet unless told."""

DataOption = Annotated[
    Path,
    typer.Option("--data", envvar="ATTRIB_DATA", help="The data folder.", show_default=True),
]

IndexOption = Annotated[
    str | None,
    typer.Option(
        "--index",
        envvar="ATTRIB_INDEX",
        metavar="URL",
        help="Qdrant server for the index of a new collection: qdrant://host[:port], or "
        "qdrants://host[:port] for TLS; its key in ATTRIB_QDRANT_API_KEY. "
        "[default: in the data folder]",
        show_default=False,
    ),
]

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


RedisOption = Annotated[
    str,
    typer.Option(
        "--redis",
        envvar="ATTRIB_REDIS",
        help="Address of the Redis that coordinator and workers share.",
    ),
]

DistractorsOption = Annotated[
    str | None,
    typer.Option(
        help="Images or features that the exemplars are found among: a folder, tar, data folder, "
        "feature folder or file. [default: the data folder]",
        show_default=False,
    ),
]

RootOption = Annotated[
    Path | None,
    typer.Option(
        help="Folder that the test cases' paths are relative to. [default: found from theirs]",
        show_default=False,
    ),
]

SkipMissingOption = Annotated[
    bool, typer.Option("--skip-missing", help="Leave out test-case images that are not there.")
]

ExcludeOption = Annotated[
    list[Path] | None,
    typer.Option(
        help="Further test cases, or a folder of them, whose exemplars are no distractors either; "
        "may be repeated.",
        show_default=False,
    ),
]

AllowPrivateOption = Annotated[
    bool,
    typer.Option(
        "--allow-private",
        help="Of URLs: also from addresses that are not public (127.0.0.1, 10.0.0.0/8 ...).",
    ),
]

BatchSizeOption = Annotated[int, typer.Option(min=1, help="Images embedded at once.")]

ContactOption = Annotated[
    str,
    typer.Option(
        envvar="ATTRIB_CONTACT",
        help="Of URLs: a mail or web address for the User-Agent, as many hosts ask for.",
        show_default=False,
    ),
]

DeviceOption = Annotated[
    str | None,
    typer.Option(
        help="cpu, cuda, cuda:1 ... [default: a GPU where there is one]", show_default=False
    ),
]

DevicesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--device",
        help="cpu, cuda, cuda:1 ...; may be repeated, a process each. [default: a GPU where "
        "there is one]",
        show_default=False,
    ),
]

DownloadConcurrencyOption = Annotated[
    int, typer.Option(min=1, max=4096, help="Of URLs: requests at a time.")
]

ExactOption = Annotated[bool, typer.Option("--exact", help="Compare with every training image.")]

ExpectedModelOption = Annotated[
    str | None,
    typer.Option(
        envvar="ATTRIB_MODEL",
        help="Refuse to answer with another model than this. [default: the data folder's]",
        show_default=False,
    ),
]

KeepImagesOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Of URLs: keep what is downloaded as WebDataset tars in this folder.",
        show_default=False,
    ),
]

IgnoreOptOutOption = Annotated[
    bool,
    typer.Option(
        "--ignore-opt-out",
        help="Of URLs: fetch what robots.txt, X-Robots-Tag or a TDM reservation withhold, from "
        "hosts that are yours or gave you leave. Every record says so.",
    ),
]

MaxBytesOption = Annotated[int, typer.Option(min=1, help="Reject files of more bytes.")]

MaxPixelsOption = Annotated[int, typer.Option(min=1, help="Reject images of more pixels.")]

PerHostOption = Annotated[
    int, typer.Option(min=1, max=1024, help="Of URLs: requests to one host at a time.")
]

PrecisionOption = Annotated[
    Literal["auto", "fp32", "bf16", "fp16"],
    typer.Option(help="auto is the fastest that keeps the features."),
]

ServerOption = Annotated[
    str | None,
    typer.Option(
        "--server",
        envvar="ATTRIB_SERVER",
        metavar="URL",
        help="Ask a running service (`attrib serve`) in place of a data folder; its key in "
        "ATTRIB_API_KEY. Sends the images to it.",
        show_default=False,
    ),
]

ThreadsOption = Annotated[
    int | None,
    typer.Option(
        min=1, help="Threads that read and decode. [default: the cores]", show_default=False
    ),
]

TimeoutOption = Annotated[
    float, typer.Option(min=0.1, max=3600, help="Of URLs: seconds that one try may take.")
]


def parse_where(conditions: Sequence[str], option: str = "--where") -> dict[str, list[str]]:
    """``creator=A``, ``creator=B``, ``licence=C`` as a filter: (A or B) and C.

    Raises:
        UsageError: a text without '='.
    """
    where: dict[str, list[str]] = {}
    for condition in conditions:
        name, equals, value = condition.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"{option} {condition!r} will not do: write it as field=value")
        where.setdefault(name.strip(), []).append(value)
    return where
