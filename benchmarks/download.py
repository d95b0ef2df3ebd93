"""How much of a bare httpx loop's speed the download keeps, from a server on this machine.

    python -m benchmarks.download [--count N] [--hosts H] [--rounds R] [--delay-ms D]

The server (a process of its own) answers every request with the same JPEG, after a delay if one is
asked for. Three ways over the same URLs, with as many requests at a time, in turn, R times:

    bare      httpx.AsyncClient in a loop with one semaphore: nothing is checked
    checked   the download of `attrib ingest`: every name looked up and its addresses checked,
              robots.txt of every host, opt-outs, limits, retries, order
    records   the same through `UrlListSource.records`, with `--keep-images`

Each host is a name of its own for this machine (``h7.localhost``, looked up by the benchmark), so
that the limit per host and robots.txt cost what they would.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import httpx

from ingest.download import Downloader
from ingest.download_fetch import Downloaded
from ingest.download_settings import DownloadSettings
from ingest.record import ImageRecord
from ingest.url_source import UrlListSource

ROOT = Path(__file__).resolve().parents[1]
MAX_BYTES = 64 * 1024 * 1024


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--hosts", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--delay-ms", type=float, default=0)
    parser.add_argument("--concurrency", type=int, default=DownloadSettings().concurrency)
    options = parser.parse_args(arguments)
    image = min((ROOT / "examples" / "training" / "images").glob("*.jpg")).read_bytes()
    mine, theirs = multiprocessing.Pipe()
    serving = multiprocessing.get_context("spawn").Process(
        target=serve, args=(theirs, image, options.delay_ms / 1000), daemon=True
    )
    serving.start()
    port = mine.recv()
    urls = [f"http://h{i % options.hosts}.localhost:{port}/{i}" for i in range(options.count)]
    settings = DownloadSettings(concurrency=options.concurrency, allow_private=True)
    ways: dict[str, Callable[[], int]] = {
        "bare": lambda: asyncio.run(bare(urls, options.concurrency, port)),
        "checked": lambda: checked(urls, settings),
        "records": lambda: records(urls, settings),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, way in ways.items():
            began = time.perf_counter()
            done = way()
            rates[name].append(done / (time.perf_counter() - began))
            assert done == options.count, f"{name}: {done} of {options.count}"
    serving.kill()
    result = {
        "images": options.count,
        "hosts": options.hosts,
        "bytes": len(image),
        "delay_ms": options.delay_ms,
        "images_per_s": {name: round(statistics.median(r), 1) for name, r in rates.items()},
        "beside_bare": {
            name: [round(a / b, 3) for a, b in zip(r, rates["bare"], strict=True)]
            for name, r in rates.items()
        },
    }
    print(json.dumps(result, indent=2))


async def here(host: str, port: int) -> list[str]:
    """Every name is this machine."""
    return ["127.0.0.1"]


async def bare(urls: list[str], concurrency: int, port: int) -> int:
    """The least that httpx can be made to do; returns how many answers came."""
    slots = asyncio.Semaphore(concurrency)
    limits = httpx.Limits(max_connections=2 * concurrency, max_keepalive_connections=concurrency)
    async with httpx.AsyncClient(limits=limits, timeout=20, trust_env=False) as client:

        async def fetch(url: str) -> int:
            host = url.split("/")[2]
            async with slots:
                answer = await client.get(
                    url.replace(host, f"127.0.0.1:{port}"), headers={"Host": host}
                )
                return int(answer.status_code == 200 and bool(answer.content))

        return sum(await asyncio.gather(*map(fetch, urls)))


def checked(urls: list[str], settings: DownloadSettings) -> int:
    """The download as it is used."""
    downloader = Downloader(settings, MAX_BYTES, here)
    try:
        outcomes = downloader.outcomes([(url, "") for url in urls])
        return sum(isinstance(outcome, Downloaded) for outcome in outcomes)
    finally:
        downloader.close()


def records(urls: list[str], settings: DownloadSettings) -> int:
    """The same from a list, its images kept."""
    with tempfile.TemporaryDirectory() as folder:
        listing = Path(folder) / "urls.txt"
        listing.write_text("\n".join(urls))
        keeping = DownloadSettings(
            concurrency=settings.concurrency,
            allow_private=True,
            keep_images=Path(folder) / "kept",
        )
        source = UrlListSource(listing, MAX_BYTES, None, keeping, here)
        try:
            items = list(source.items())
            return sum(isinstance(record, ImageRecord) for record in source.records(items))
        finally:
            source.close()


def serve(ready: Connection, image: bytes, delay_s: float) -> None:
    """Answer every request until killed; the port goes to `ready`."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
    found = head % len(image) + image
    missing = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                request = await reader.readuntil(b"\r\n\r\n")
                if delay_s:
                    await asyncio.sleep(delay_s)
                writer.write(missing if request.startswith(b"GET /robots.txt") else found)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def run() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=1024)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


if __name__ == "__main__":
    main()
