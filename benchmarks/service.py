"""What asking through the service costs, and what it stands.

    python -m benchmarks.service [--n N] [--backbone NAME] [--rounds R] [--requests M]

A real `attrib serve` on 127.0.0.1 over N synthetic training images (made once, in the cache) beside
the same work without it. Only one process at a time can use a data folder, so the two take turns in
blocks, R times, each with features that no other asked; ratios are taken round by round.

    features   p50 of a POST with features, one connection, beside the index call (`Attributor`)
    image      p50 of a POST with an image, beside decoding, model and index call in one process
    clients    32 connections with images, beside the embedder alone in full batches, and beside all
               of the work (decoding, model, index) in full batches in one process
    memory     M requests, one in ten with an image, by 8 connections: resident memory on the way
    cold       from starting the process to ready and to the first answer; the page's bytes

Two cores that decode, embed and search have less left for the model than "the embedder alone": how
much, without any service, is what "all of the work" tells.
"""

from __future__ import annotations

import argparse
import gzip
import json
import platform
import re
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import synthetic
from benchmarks.made_weights import made_weights
from benchmarks.service_setup import (
    MODEL,
    Server,
    calls_of,
    cpus,
    data_folder,
    images,
    load,
    opened,
    post,
)
from ingest.decode import decode
from search.collection import Collection

CLIENTS = 32
WARM = 30
BATCH = 32


def main() -> None:
    """Measure, write JSON, print."""
    arguments = _arguments()
    with made_weights(arguments.backbone) if arguments.backbone else nullcontext():
        _measure(arguments, data_folder(arguments.cache, arguments.n, arguments.backbone))


def _measure(arguments: argparse.Namespace, root: Path) -> None:
    result: dict[str, Any] = {
        "n": arguments.n,
        "backbone": arguments.backbone or MODEL,
        "machine": f"{platform.machine()}, {cpus()} CPUs",
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
        "rounds": [],
    }
    for number in range(arguments.rounds):
        row = _round(root, arguments, number)
        result["rounds"].append(row)
        print(json.dumps(row), flush=True)
    result["ratios"] = {
        name: statistics.median(row[name] for row in result["rounds"])
        for name in result["rounds"][0]
        if name.endswith("_ratio")
    }
    with Server(root) as server:
        result["cold"] = _cold(server)
        result["page"] = _page(server)
        if arguments.requests:
            result["memory"] = _memory(server, arguments.requests)
    (root.parent / f"{root.name}.json").write_text(json.dumps(result, indent=2))
    _print(result)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=100_000, help="training images")
    parser.add_argument("--backbone", help=f"of timm, with random weights; else {MODEL}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--queries", type=int, default=150, help="of each kind, in each block")
    parser.add_argument("--requests", type=int, default=10_000, help="for memory; 0 leaves it out")
    parser.add_argument("--cache", type=Path, default=Path("benchmarks/.cache"))
    arguments = parser.parse_args()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    return arguments


def _round(root: Path, arguments: argparse.Namespace, number: int) -> dict[str, Any]:
    """One block of the service and one without it, the other way round every other time."""
    blocks = [_through_service, _in_process]
    row: dict[str, Any] = {}
    for block in blocks if number % 2 == 0 else blocks[::-1]:
        row |= block(root, arguments.queries, 2 * number + blocks.index(block))
    row["features_ratio"] = row["service_features_ms"] / row["index_ms"]
    row["image_ratio"] = row["service_image_ms"] / row["image_ms"]
    row["device_ratio"] = row["service_images_s"] / row["embedder_images_s"]
    row["work_ratio"] = row["service_images_s"] / row["work_images_s"]
    return row


def _through_service(root: Path, count: int, seed: int) -> dict[str, Any]:
    features = calls_of(synthetic.queries("clustered", WARM + count, seed=0)[:WARM])
    features += calls_of(_queries(count, seed))
    pictures = _turned(calls_of(images()), WARM + count, seed)
    with Server(root) as server:
        connection = server.connect()
        alone = {
            "service_features_ms": [post(connection, call) for call in features],
            "service_image_ms": [post(connection, call) for call in pictures],
        }
        connection.close()
        load(server, pictures, CLIENTS, 2 * CLIENTS, lambda done: None)
        total = max(4 * count, 8 * CLIENTS)
        times, took, errors = load(server, pictures, CLIENTS, total, lambda done: None)
    return {
        **{name: _p50_ms(times) for name, times in alone.items()},
        "service_images_s": len(times) / took,
        "service_p50_ms": statistics.median(times) * 1e3,
        "service_p99_ms": float(np.quantile(times, 0.99)) * 1e3,
        "service_errors": len(errors),
    }


def _in_process(root: Path, count: int, seed: int) -> dict[str, Any]:
    features = [*synthetic.queries("clustered", WARM, seed=0), *_queries(count, seed)]
    pictures = _turned(images(), WARM + count, seed)
    with opened(root) as collection:
        index = [_seconds(collection.attribute, query[None], ["features"]) for query in features]
        image = [_seconds(_ask, collection, [picture]) for picture in pictures]
        embedder = collection.embedder()
        pixels = np.stack([_pixels(collection, picture) for picture in pictures[:BATCH]])
        embedder.embed(pixels)
        batches = max(4 * count, 8 * CLIENTS) // BATCH
        embedding = sum(_seconds(embedder.embed, pixels) for _ in range(batches))
        working = _seconds(_work, collection, pictures, batches)
    return {
        "index_ms": _p50_ms(index),
        "image_ms": _p50_ms(image),
        "embedder_images_s": batches * BATCH / embedding,
        "work_images_s": batches * BATCH / working,
    }


def _turned(items: list[Any], count: int, seed: int) -> list[Any]:
    """`count` of them, again from the start where there are fewer."""
    return [items[(seed * 7 + place) % len(items)] for place in range(count)]


def _queries(count: int, seed: int) -> Any:  # noqa: ANN401
    """Queries of the same clusters that no other block has."""
    return synthetic.queries("clustered", WARM + (seed + 1) * count, seed=0)[-count:]


def _ask(collection: Collection, pictures: list[bytes]) -> None:
    features = collection.features([decode(picture).image for picture in pictures])
    collection.attribute(features, ["image"] * len(pictures))


def _pixels(collection: Collection, picture: bytes) -> NDArray[np.uint8]:
    return collection.model.backbone.preprocessing.apply(decode(picture).image)


def _work(collection: Collection, pictures: list[bytes], batches: int) -> None:
    """All of the work, decoding ahead in as many threads as there are cores."""
    with ThreadPoolExecutor(cpus()) as threads:

        def ahead(number: int) -> list[Any]:
            chosen = [pictures[(number * BATCH + i) % len(pictures)] for i in range(BATCH)]
            return [threads.submit(_pixels, collection, data) for data in chosen]

        coming = ahead(0)
        for number in range(batches):
            pixels = np.stack([future.result() for future in coming])
            coming = ahead(number + 1) if number + 1 < batches else []
            features = collection.features_of_pixels(pixels)
            collection.attribute(features, ["image"] * BATCH)


def _cold(server: Server) -> dict[str, float]:
    connection = server.connect()
    picture = calls_of(images())[0]
    return {"ready_s": server.ready_s, "first_answer_ms": post(connection, picture) * 1e3}


def _page(server: Server) -> dict[str, Any]:
    """Everything that the page loads before it can be used."""
    waiting, sizes = ["/"], dict[str, tuple[int, int]]()
    while waiting:
        path = waiting.pop()
        if path in sizes:
            continue
        connection = server.connect()
        connection.request("GET", path)
        body = connection.getresponse().read()
        connection.close()
        sizes[path] = (len(body), len(gzip.compress(body, mtime=0)))
        if not path.endswith((".svg", ".png", ".woff2")):
            text = body.decode()
            waiting += re.findall(r'(?:src|href)="(/assets/[^"]+)"', text)
            waiting += [f"/assets/{name}" for name in re.findall(r'from "\./([^"]+)"', text)]
    return {
        "files": len(sizes),
        "bytes": sum(plain for plain, _ in sizes.values()),
        "gzip_bytes": sum(packed for _, packed in sizes.values()),
    }


def _memory(server: Server, total: int) -> dict[str, Any]:
    """Tenths of the way; answers that are kept for their links fill their share of it first."""
    features = calls_of(synthetic.queries("clustered", 2_000, seed=0))
    pictures = calls_of(images())
    mixed = [
        pictures[number // 10 % len(pictures)] if number % 10 == 0 else call
        for number, call in enumerate(features)
    ]
    on_the_way = [{"requests": 0, **server.memory()}]

    def note(done: int) -> None:
        if done % max(total // 10, 1) == 0:
            on_the_way.append({"requests": done, **server.memory()})

    times, took, errors = load(server, mixed, 8, total, note)
    middle = on_the_way[len(on_the_way) // 2]
    return {
        "on_the_way": on_the_way,
        "second_half_growth": on_the_way[-1]["service_own"] / middle["service_own"] - 1,
        "index_growth": on_the_way[-1]["index_own"] / middle["index_own"] - 1,
        "requests_s": len(times) / took,
        "errors": errors[:5],
    }


def _seconds(call: Any, *arguments: object) -> float:  # noqa: ANN401
    began = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - began


def _p50_ms(seconds: list[float]) -> float:
    return statistics.median(seconds[WARM:]) * 1e3


def _print(result: dict[str, Any]) -> None:
    rounds = result["rounds"]

    def over(name: str) -> str:
        values = sorted(row[name] for row in rounds)
        return f"{statistics.median(values):8.2f}  ({values[0]:.2f} to {values[-1]:.2f})"

    print(f"\n{result['n']:,} training images, {result['backbone']}, {len(rounds)} rounds")
    print(f"on {result['machine']}")
    print(f"features  index call {over('index_ms')} ms")
    print(f"          POST       {over('service_features_ms')} ms")
    print(f"          ratio      {over('features_ratio')}  wanted <= 1.3")
    print(f"image     in process {over('image_ms')} ms")
    print(f"          POST       {over('service_image_ms')} ms")
    print(f"          ratio      {over('image_ratio')}  wanted <= 1.15")
    print(
        f"{CLIENTS} clients, images/s {over('service_images_s')}, p99 {over('service_p99_ms')} ms"
    )
    print(f"          embedder alone    {over('embedder_images_s')} images/s")
    print(f"          all, one process  {over('work_images_s')} images/s")
    print(f"          beside embedder   {over('device_ratio')}  wanted >= 0.9")
    print(f"          beside all        {over('work_ratio')}")
    print(f"          errors {sum(row['service_errors'] for row in rounds)}")
    print(f"cold      {result['cold']}")
    print(f"page      {result['page']}")
    if memory := result.get("memory"):
        for point in memory["on_the_way"]:
            shown = "  ".join(
                f"{k} {v / 2**20:.0f} MiB" for k, v in point.items() if k != "requests"
            )
            print(f"memory    {point['requests']:>7,} requests  {shown}")
        print(
            f"          second half: service {memory['second_half_growth']:+.1%}, index "
            f"{memory['index_growth']:+.1%}; {memory['requests_s']:.0f} requests/s, errors "
            f"{memory['errors']}"
        )


if __name__ == "__main__":
    main()
