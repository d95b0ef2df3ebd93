"""What `benchmarks.service` measures with: a synthetic data folder, a process, light clients."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray
from PIL import Image

from benchmarks import synthetic
from embed.backbones import resolve
from embed.calibrator import Calibrator
from embed.embedder import Embedder
from embed.mapper import Mapper, MapperPair
from embed.model import AttributionModel
from embed.registry import find_model
from ingest.decode import decode
from search.collection import Collection

__all__ = ["Call", "Server", "calls_of", "data_folder", "images", "load", "post"]

MODEL = "efficientnet-lite0-clipart"
SUPPORT = 75
"""The median support that tau is chosen for, as in `benchmarks.query`."""
B = -0.02
SIDE = 512
IMAGES = 60
ROOT = Path(__file__).resolve().parents[1]
START_S = 300.0


def data_folder(cache: Path, n: int, backbone: str | None = None) -> Path:
    """A data folder of n synthetic training images; made once, its `built` file means done.

    `backbone`: in place of the model's, its features turned into ones of the same length.
    """
    root = cache / "-".join(["service", str(n), *([backbone] if backbone else [])])
    done = root / "built"
    if done.exists():
        return root
    shutil.rmtree(root, ignore_errors=True)
    started = time.perf_counter()
    print(f"building {n:,} x {synthetic.DIM} ...", flush=True)
    gap = _gap(n)
    calibrator = Calibrator(gap / -float(np.log(-B)), B)
    chosen = _with_backbone(backbone) if backbone else find_model(MODEL)
    model = replace(chosen, calibrator=calibrator)
    with Collection.create(root, model, lambda: model) as collection:
        features = collection.features([decode(data).image for data in images()])
        near = _near(features, gap)
        for block in synthetic.blocks("clustered", n):
            if (left := near[block.start : block.start + len(block.vectors)]).size:
                block.vectors[: len(left)] = left
            ids, records = synthetic.payloads(block)
            collection.index.upsert(ids, block.vectors, records)
        collection.index.build()
    done.write_text(f"{time.perf_counter() - started:.0f} s\n")
    print(f"built in {done.read_text().strip()}", flush=True)
    return root


def _with_backbone(name: str) -> AttributionModel:
    """A backbone under a linear map to `synthetic.DIM` numbers, the same for both sides.

    Random weights give all images nearly the same feature. The map takes away what they have in
    common, or every image would find what was put near any other.
    """
    backbone = resolve(name)
    embedder = Embedder(backbone)
    apply = backbone.preprocessing.apply
    base = embedder.embed(np.stack([apply(decode(data).image) for data in images()]))
    random = np.random.default_rng((0, 10))
    weight = np.linalg.qr(random.standard_normal((backbone.dim, synthetic.DIM)))[0].T
    linear = Mapper("linear", {"weight": weight, "bias": -weight @ base.mean(axis=0)}, backbone.dim)
    model = AttributionModel(f"{name}-mapped", backbone, MapperPair(linear, linear))
    return model.with_weights(embedder.weights_hash)


def _gap(n: int) -> float:
    """Similarity that the `SUPPORT`-th nearest is below the nearest, median of queries."""
    queries = synthetic.queries("clustered", 64, seed=0)
    best = np.full((len(queries), SUPPORT + 1), -1.0, np.float32)
    for block in synthetic.blocks("clustered", n):
        both = np.hstack([best, queries @ block.vectors.T])
        best = -np.partition(-both, SUPPORT, axis=1)[:, : SUPPORT + 1]
    return float(np.median(best.max(axis=1) - best.min(axis=1)))


def _near(features: NDArray[np.float32], gap: float) -> NDArray[np.float32]:
    """Training images near those of `images`, so that their supports are as large as the others'.

    The nearest is as similar as 0.95, the `SUPPORT`-th by `gap` less; twice as many in all.
    """
    random = np.random.default_rng((0, 9))
    steps = np.arange(2 * SUPPORT, dtype=np.float32)
    similarity = np.maximum(0.95 - gap * steps / SUPPORT, 0)[None, :, None]
    across = random.standard_normal((len(features), len(steps), features.shape[1]), np.float32)
    across -= (across @ features[:, :, None]) * features[:, None, :]
    across /= np.linalg.norm(across, axis=2, keepdims=True)
    near: NDArray[np.float32] = similarity * features[:, None, :]
    near += np.sqrt(1 - similarity**2) * across
    return near.reshape(-1, features.shape[1])


def images() -> list[bytes]:
    """The generated images of the examples as PNG files of 512 x 512."""
    files = []
    for path in sorted((ROOT / "examples" / "generated").rglob("media-*.png"))[:IMAGES]:
        picture = decode(path.read_bytes()).image
        file = io.BytesIO()
        picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(file, "PNG")
        files.append(file.getvalue())
    return files


class Server:
    """`attrib serve` as a process of its own, on 127.0.0.1.

    Attributes:
        ready_s: from the start of the process until it was ready.
    """

    def __init__(self, root: Path) -> None:
        command = [sys.executable, "-m", "attrib", "serve", "--data", str(root), "--port", "0"]
        began = time.perf_counter()
        self._log = (root / "serve.log").open("ab")
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self._log, text=True
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if "listens on" not in line:
            self.close()
            raise SystemExit(f"attrib serve did not start; {root / 'serve.log'} says why")
        self.ready_s = time.perf_counter() - began
        self.port = int(line.rsplit(":", 1)[1])

    def connect(self) -> http.client.HTTPConnection:
        """One keep-alive connection."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)

    def memory(self) -> dict[str, int]:
        """Resident bytes of the service, and of the process that holds its index."""
        service = psutil.Process(self._process.pid)
        children = service.children(recursive=True)
        return {
            "service": service.memory_info().rss,
            # Pages of files, which the system takes back as it likes, are not the process' own.
            "service_own": service.memory_full_info().uss,
            "index_own": sum(child.memory_full_info().uss for child in children),
        }

    def close(self) -> None:
        """End it in good order."""
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(60)
        self._process.kill()
        self._process.wait()
        self._log.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


@dataclass(frozen=True)
class Call:
    """A request that is ready to be sent."""

    body: bytes
    content_type: str


def calls_of(queries: NDArray[np.float32] | Sequence[bytes]) -> list[Call]:
    """A `POST /v1/attributions` each: of features (queries, dim), or of image files."""
    if isinstance(queries, np.ndarray):
        return [
            Call(json.dumps({"features": query.tolist()}).encode(), "application/json")
            for query in queries
        ]
    head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
    kind = "multipart/form-data; boundary=x"
    return [Call(head + image + b"\r\n--x--\r\n", kind) for image in queries]


def post(connection: http.client.HTTPConnection, call: Call) -> float:
    """Send one and read the answer; seconds."""
    headers = {"Content-Type": call.content_type}
    began = time.perf_counter()
    connection.request("POST", "/v1/attributions", call.body, headers)
    response = connection.getresponse()
    body = response.read()
    took = time.perf_counter() - began
    if response.status != 200:
        raise SystemExit(f"the service answered {response.status}: {body[:300]!r}")
    return took


def load(
    server: Server, calls: Sequence[Call], clients: int, total: int, note: Callable[[int], None]
) -> tuple[list[float], float, list[str]]:
    """`total` requests from clients that ask again as soon as they are answered.

    Returns the seconds of each, of all together, and what went wrong. `note` is told how many are
    done, in one of the clients' threads at a time.
    """
    numbers = iter(range(total))
    turn = threading.Lock()
    times: list[float] = []
    errors: list[str] = []

    def client() -> None:
        connection = server.connect()
        while True:
            with turn:
                number = next(numbers, None)
            if number is None:
                break
            try:
                took = post(connection, calls[number % len(calls)])
            except (OSError, http.client.HTTPException, SystemExit) as exc:
                errors.append(str(exc) or type(exc).__name__)
                connection.close()
                continue
            with turn:
                times.append(took)
                note(len(times))
        connection.close()

    threads = [threading.Thread(target=client) for _ in range(clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times, time.perf_counter() - began, errors


@contextmanager
def opened(root: Path) -> Iterator[Collection]:
    """The same data folder in this process, its model loaded and warm."""
    with Collection.open(root, wait_s=30) as collection:
        collection.embedder()
        yield collection


def cpus() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))
