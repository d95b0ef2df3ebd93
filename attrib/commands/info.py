"""``attrib info``: what a data folder holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from attrib.ending import ends_in_one_line
from attrib.options import DataOption, JsonOption

__all__ = ["info"]


@ends_in_one_line
def info(data: DataOption = Path("attrib-data"), json: JsonOption = False) -> None:
    """Show what a data folder holds: images, model, calibrator, index and its memory."""
    from attrib.console import print_json
    from attrib.opened import open_data

    with open_data(data) as opened:
        facts = opened.info()
    if json:
        print_json(facts)
        return
    for line in _lines(facts):
        typer.echo(line)


def _lines(facts: dict[str, Any]) -> list[str]:
    from attrib.console import counted

    calibrator = facts["calibrator"]
    fitted = calibrator["fitted_on"] or "not fitted, default settings"
    index = facts["index"]
    datasets = ", ".join(f"{name} ({count:,})" for name, count in facts["datasets"].items())
    lines = {
        "data": facts["data"],
        "training images": f"{facts['images']:,} in {counted(facts['shards'], 'shard')}",
        "datasets": datasets or "none",
        "rejected": f"{facts['rejects']:,}",
        "taken down": f"{facts['tombstones']:,}",
        "model": f"{facts['model']} (backbone {facts['backbone']})",
        "fingerprint": f"{facts['fingerprint']} (features {facts['feature_fingerprint']})",
        "calibrator": f"tau {calibrator['tau']:g}, b {calibrator['b']:g}; {fitted}",
        "index": f"{index['backend']}, {index['dim']} dimensions, quantization "
        f"{index['quantization']}, ef {index['ef']}, {index['indexed']:,} in the graph",
    }
    if "server" in index:
        lines["server"] = (
            f"{index['server']} (Qdrant {index['version']}), collection {index['collection']}, "
            f"{counted(index['shards'], 'part')}, {counted(index['replicas'], 'replica')}"
        )
    return [f"{name:16} {text}" for name, text in lines.items()]
