"""What it costs to let workers do an ingest, against doing it in this process.

    python -m benchmarks.workers [--count N] [--rounds R] [--shards S]

The same N images with the same model on the same cores, in turn, R times; models are loaded and
Redis is up before the clock starts:

    process   `search.ingestion.ingest` in this process, two threads
    one       one worker process of two threads, this process coordinating
    two       two worker processes of one thread each

Ratios are taken round by round, of wall time and of the processor time of all processes together,
which tells more where the machine has other work. Then S planned shards of no work at all, done by
a thread that only writes their results: what is left is planning, sending, watching, taking in.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import redis as redis_client

from benchmarks.ingest import ROOT, links
from embed.backbones import DEFAULT_BACKBONE
from embed.embedder import Embedder
from embed.model import AttributionModel
from embed.registry import find_model
from ingest.errors import RejectReason
from ingest.ledger import TarRow
from ingest.record import Reject
from ingest.source import Source, TarSource, open_sources
from search.admission import Origin
from search.collection import Collection
from search.ingestion import IngestSettings, ingest
from workers.board import QUEUE
from workers.distributed import ingest_with_workers
from workers.order import read_order
from workers.results import Outcome, Result, write_result

_WORKER = """
import sys
from workers.supervisor import WorkerSettings, run_worker
redis, count, threads = sys.argv[1:]
settings = WorkerSettings(redis, devices=("cpu",), count=int(count), threads=int(threads))
run_worker(settings, lambda line: None)
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, default=ROOT / "examples" / "training" / "images")
    parser.add_argument("--count", type=int, default=2400)
    parser.add_argument("--rounds", type=int, default=3)
    # Shards that come out even for two workers, as the many of a long ingest do.
    parser.add_argument("--shard-size", type=int, default=600)
    parser.add_argument("--shards", type=int, default=10_000)
    parser.add_argument("--model", default=DEFAULT_BACKBONE)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder, redis_server(Path(folder)) as url:
        result: dict[str, object] = {"images": options.count, "load": os.getloadavg()}
        if options.rounds:
            source, few = Path(folder) / "images", Path(folder) / "few"
            for path, count in ((source, options.count), (few, 64)):
                path.mkdir()
                links(options.images, count, path)
            result |= speed(source, few, url, Path(folder), options)
        if options.shards:
            result |= scheduling(options.shards, url, Path(folder))
    print(json.dumps(result, indent=2))


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """A Redis of its own; its address."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    with subprocess.Popen(
        ["redis-server", "--port", str(port), "--dir", str(folder), "--save", ""],
        stdout=subprocess.DEVNULL,
    ) as server:
        time.sleep(0.5)
        yield f"redis://127.0.0.1:{port}/0"
        server.kill()


def speed(
    source: Path, few: Path, url: str, folder: Path, options: argparse.Namespace
) -> dict[str, object]:
    """Images per second of the three ways, and their ratios."""
    model = find_model(options.model)
    embedder = Embedder(model.backbone, device="cpu", threads=2)
    model = model.with_weights(embedder.weights_hash)
    settings = IngestSettings(shard_size=options.shard_size, decode_threads=2)
    rates: dict[str, list[float]] = {"process": [], "one": [], "two": []}
    spent: dict[str, list[float]] = {"process": [], "one": [], "two": []}
    for turn in range(options.rounds):
        data = folder / f"process-{turn}"
        with collection(data, model) as into:
            warm = IngestSettings(shard_size=8)
            ingest(into, lambda: embedder, open_sources([str(few)]), "few", settings=warm)
            sources = open_sources([str(source)])
            began, cpu = time.monotonic(), cpu_s()
            ingest(into, lambda: embedder, sources, "set", settings=settings)
            rates["process"].append(options.count / (time.monotonic() - began))
            spent["process"].append(cpu_s() - cpu)
        for name, count, threads in (("one", 1, 2), ("two", 2, 1)):
            worker = subprocess.Popen(
                [sys.executable, "-c", _WORKER, url, str(count), str(threads)], cwd=ROOT
            )
            try:
                with collection(folder / f"{name}-{turn}", model) as into:
                    # More shards than there are processes: all of them load the model.
                    ingest_with_workers(
                        into, open_sources([str(few)]), "few", redis=url, settings=warm
                    )
                    sources = open_sources([str(source)])
                    began, cpu = time.monotonic(), cpu_s()
                    ingest_with_workers(into, sources, "set", redis=url, settings=settings)
                    rates[name].append(options.count / (time.monotonic() - began))
                    spent[name].append(cpu_s() - cpu)
            finally:
                worker.terminate()
                worker.wait()
    return {
        "images_per_s": {name: [round(r, 1) for r in some] for name, some in rates.items()},
        "images_per_cpu_s": {
            name: [round(options.count / s, 1) for s in some] for name, some in spent.items()
        },
        "speed_beside_process": beside(rates),
        "work_beside_process": beside(spent),
    }


def beside(measured: dict[str, list[float]]) -> dict[str, object]:
    """Ratios to the process's of each round, and their median."""
    found: dict[str, object] = {}
    for name in ("one", "two"):
        ratios = [a / b for a, b in zip(measured[name], measured["process"], strict=True)]
        found[name] = [round(ratio, 3) for ratio in ratios]
        found[f"{name}, median"] = round(statistics.median(ratios), 3)
    return found


def cpu_s() -> float:
    """Processor time so far of this process and all living ones below it."""
    total, waiting = 0.0, [os.getpid()]
    while waiting:
        pid = waiting.pop()
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        for task in Path(f"/proc/{pid}/task").iterdir():
            waiting.extend(int(child) for child in (task / "children").read_text().split())
    return total


@contextmanager
def collection(data: Path, model: AttributionModel) -> Iterator[Collection]:
    """A new one."""
    with Collection.create(data, None, lambda: model) as opened:
        yield opened


class Times:
    """When each shard was taken in; a `search.ingestion.Progress`."""

    def __init__(self) -> None:
        self.at: list[float] = []
        self.cpu: list[float] = []

    def start(self, pending: int | None) -> None:
        """The clock starts."""
        self.advance(0)

    def advance(self, images: int) -> None:
        """A shard is in."""
        self.at.append(time.monotonic())
        self.cpu.append(time.thread_time())

    def building(self) -> None:
        """Nothing to do."""


def scheduling(shards: int, url: str, folder: Path) -> dict[str, object]:
    """Milliseconds a shard, of all and of each tenth; processor time is the coordinator's alone."""
    tars = folder / "tars"
    tars.mkdir()
    sources: list[Source] = []
    for i in range(shards):
        path = tars / f"{i:06d}.tar"
        path.touch()
        sources.append(TarSource(path))
    times = Times()
    ended = threading.Event()
    thread = threading.Thread(target=answer, args=(url, ended))
    thread.start()
    try:
        with collection(folder / "scheduled", find_model("efficientnet-lite0-clipart")) as into:
            report = ingest_with_workers(
                into, sources, "set", redis=url, settings=IngestSettings(), progress=times
            )
    finally:
        ended.set()
        thread.join()
    assert report.ingest.shards == shards
    part = max(1, shards // 10)

    def by_tenth(clock: list[float]) -> list[float]:
        return [round(1000 * (b - a) / part, 2) for a, b in pairwise(clock[::part])]

    return {
        "scheduled": shards,
        "ms_per_shard": round(1000 * (times.at[-1] - times.at[0]) / shards, 2),
        "ms_per_shard_by_tenth": by_tenth(times.at),
        "cpu_ms_per_shard": round(1000 * (times.cpu[-1] - times.cpu[0]) / shards, 2),
        "cpu_ms_per_shard_by_tenth": by_tenth(times.cpu),
    }


def answer(url: str, ended: threading.Event) -> None:
    """Be all workers: write a result of one reject for whatever is sent."""
    client = redis_client.Redis.from_url(url)
    while not ended.is_set():
        taken = client.brpop([QUEUE], timeout=1)
        if taken is None:
            continue
        body = json.loads(base64.b64decode(json.loads(taken[1])["body"]))
        order = read_order(body[0][0])
        origin = Origin(order.spec.origin, order.spec.signature)
        key = f"{Path(origin.path).stem}/image"
        reject = Reject(key, order.spec.name, RejectReason.NOT_AN_IMAGE)
        write_result(
            order.features,
            Result(
                number=order.spec.number,
                plan=order.plan,
                send=order.send,
                digest=order.digest,
                fingerprint=order.fingerprint,
                worker="nobody",
                seconds=0.0,
                outcomes=[Outcome(reject, origin)],
                tar=TarRow(origin.path, origin.signature, Path(origin.path).stem),
            ),
        )


if __name__ == "__main__":
    main()
