"""The coefficients of `attrib plan` that one machine can measure.

    python -m benchmarks.scale [--small 24000] [--large 72000] [--json FILE]

Bytes a point are the slope between two sizes, so that what is laid out beforehand (logs, empty
pages) does not count. The index is the embedded one: its storage is that of the server.

    disk       each part of an index at 512 numbers, float16, m = 16, turbo4; m = 6 beside it
    codes      bytes a vector of every quantization
    memory     the index process's own, which the system cannot take back
    payload    attrib's own fields of a payload: key, dataset, path, sha256, shard
    features   a shard's features, metadata and thumbnails, of the examples
    decode     images/s of one core: decode, thumbnail, preprocess; 512 x 512 JPEG
    speed      points/s that are put in and that get a graph; ms of a search of 128 in one graph on
               one core, queries that are new to the index
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, get_args

from PIL import Image

from attrib.opened import ingest_into
from benchmarks import synthetic
from embed.backbones import DEFAULT_BACKBONE, resolve
from ingest.decode import decode
from ingest.thumbnail import make_thumbnail
from search.edge import EdgeIndex, EdgeSettings
from search.edge_settings import Quantization
from search.ingestion import IngestSettings

EXAMPLES = Path(__file__).resolve().parents[1] / "examples" / "training" / "images"

PARTS = {
    "vector_storage/quantized": "codes",
    "vector_storage": "vectors",
    "vector_index": "graph",
    "payload_storage": "payloads",
    "payload_index": "fields",
}
"""Folders of a segment, longest first; everything else of it keeps ids and versions."""


def main() -> None:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", type=int, default=24_000)
    parser.add_argument("--large", type=int, default=72_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    sizes = (options.small, options.large)
    result: dict[str, Any] = {"sizes": sizes}
    result["index"] = between(sizes, EdgeSettings(quantization="turbo4", **LAYOUT))
    result["m6"] = between(sizes, EdgeSettings(quantization="turbo4", m=6, **LAYOUT))
    result["codes"] = {
        name: index(options.small, EdgeSettings(quantization=name, **LAYOUT))["disk"].get(
            "codes", 0
        )
        / options.small
        for name in get_args(Quantization)
    }
    result["payload"] = own_fields()
    result["features"] = features()
    result["decode_images_per_s"] = decoding()
    print(json.dumps(result, indent=2))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


LAYOUT: dict[str, Any] = {"vectors_on_disk": True, "datatype": "float16", "search_threads": 1}


def between(sizes: tuple[int, int], settings: EdgeSettings) -> dict[str, Any]:
    """Bytes a point between two sizes; points/s of the larger one."""
    small, large = (index(size, settings) for size in sizes)
    more = sizes[1] - sizes[0]
    return {
        "disk_bytes_per_point": {
            part: (large["disk"][part] - small["disk"].get(part, 0)) / more
            for part in large["disk"]
        },
        "own_memory_bytes_per_point": (large["memory"] - small["memory"]) / more,
        "upload_points_per_s": sizes[1] / large["upload_s"],
        "index_points_per_s": sizes[1] / large["build_s"],
        "in_graph": large["indexed"],
        "segments": large["segments"],
        "search_ms_per_graph": [small["search_ms"], large["search_ms"]],
    }


def index(count: int, settings: EdgeSettings) -> dict[str, Any]:
    """Build a collection; what it takes on disk by part, and in memory once it is opened again."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "index"
        started = time.perf_counter()
        with EdgeIndex.create(folder, synthetic.DIM, settings) as made:
            for block in synthetic.blocks("clustered", count):
                ids, records = synthetic.payloads(block)
                made.upsert(ids, block.vectors, records)
            made.flush()
            uploaded = time.perf_counter()
            made.build()
            built = time.perf_counter()
        disk: dict[str, int] = defaultdict(int)
        for file in (folder / "shard" / "segments").glob("*/**/*"):
            inner = file.relative_to(folder / "shard" / "segments").as_posix().split("/", 1)[1]
            part = next((p for start, p in PARTS.items() if inner.startswith(start)), "ids")
            disk[part] += file.stat().st_blocks * 512
        with EdgeIndex.open(folder) as opened:
            info = opened.info()
            times = []
            for query in synthetic.queries("clustered", 200):
                asked = time.perf_counter()
                opened.search(query[None], 128)
                times.append(time.perf_counter() - asked)
        return {
            "search_ms": statistics.median(times) * 1e3 / info.details["segments"],
            "segments": info.details["segments"],
            "disk": disk,
            "memory": info.details["rss_anon_bytes"],
            "indexed": info.indexed,
            "upload_s": uploaded - started,
            "build_s": built - uploaded,
        }


def own_fields() -> dict[str, float]:
    """Bytes on disk of the payload fields that attrib adds to those of a URL list."""
    fields = {
        "key": "00000/000000123",
        "dataset": "laion",
        "path": "00000.tar/000000123.jpg",
        "sha256": "0" * 64,
        "shard": 123_456,
    }
    return {"json_bytes": float(len(json.dumps(fields, separators=(",", ":"))))}


def features() -> dict[str, float]:
    """Bytes an image of feature shards, by an ingest of the examples."""
    with tempfile.TemporaryDirectory() as temporary:
        data = Path(temporary) / "data"
        ingest_into(
            data,
            [str(EXAMPLES)],
            dataset="examples",
            model=DEFAULT_BACKBONE,
            settings=IngestSettings(),
            calibrate=False,
        )
        images = len(list(EXAMPLES.iterdir()))
        sizes = {
            name: sum(f.stat().st_size for f in data.glob(f"features/*/{name}/*")) / images
            for name in ("img_emb", "metadata", "thumbnails")
        }
        ledger = sum(f.stat().st_size for f in data.glob("ledger*")) / images
        return {"dim": float(resolve(DEFAULT_BACKBONE).dim), **sizes, "ledger": ledger}


def decoding(side: int = 512, count: int = 200) -> float:
    """Images a second on one core from file to pixels, the best of three rounds."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # nothing is measured after this
    files = []
    for path in sorted(EXAMPLES.iterdir())[:count]:
        out = io.BytesIO()
        with Image.open(path) as image:
            image.convert("RGB").resize((side, side)).save(out, "JPEG", quality=90)
        files.append(out.getvalue())
    preprocess = resolve("dino-vitb16").preprocessing.apply
    rates = []
    for _ in range(3):
        started = time.perf_counter()
        for data in files:
            image = decode(data).image
            make_thumbnail(image, data, "JPEG")
            preprocess(image)
        rates.append(len(files) / (time.perf_counter() - started))
    return max(rates)


if __name__ == "__main__":
    main()
