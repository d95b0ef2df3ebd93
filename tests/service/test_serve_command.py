"""`attrib serve` as a process of its own: how it starts, ends, and is killed."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
from typer.testing import CliRunner

from attrib.cli import app

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def serving(data: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-m", "attrib", "serve", "--data", str(data), "--port", "0"]
    with subprocess.Popen(
        [*command, *options],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("attrib listens on http://127.0.0.1:"), line
            yield process, line.split()[-1]
        finally:
            process.kill()
            process.communicate()


def test_what_was_accepted_is_finished_before_it_ends(own: Path, generated: Path) -> None:
    images = [("image", path.read_bytes()) for path in sorted(generated.parent.glob("*.png"))] * 4
    lines: list[str] = []
    begun = threading.Event()

    def ask(address: str) -> None:
        with httpx.stream("POST", f"{address}/v1/attributions:batch", files=images) as response:
            for line in response.iter_lines():
                lines.append(line)
                begun.set()

    with serving(own) as (process, address):
        asking = threading.Thread(target=ask, args=(address,))
        asking.start()
        assert begun.wait(60)
        process.send_signal(signal.SIGTERM)
        asking.join(60)
        assert process.wait(60) == 0
    assert len(lines) == 64
    assert not [line for line in lines if '"error"' in line]
    # The folder was let go of in good order.
    assert CliRunner().invoke(app, ["info", "--data", str(own)]).exit_code == 0


def test_killed_and_started_again_it_needs_no_repair(own: Path, generated: Path) -> None:
    image = {"image": generated.read_bytes()}

    def ask(address: str) -> Any:
        return httpx.post(f"{address}/v1/attributions", files=image, timeout=60).json()["rows"]

    with serving(own) as (process, address):
        before = ask(address)
        failing = threading.Thread(target=lambda: _suppressed(ask, address))
        failing.start()
        process.kill()
        process.wait()
        failing.join()
    with serving(own) as (_, address):
        assert ask(address) == before


def _suppressed(ask: Any, address: str) -> None:
    with suppress(httpx.TransportError):
        ask(address)


def test_what_cannot_be_served_ends_in_one_line(own: Path, tmp_path: Path) -> None:
    def fails(*options: str) -> str:
        command = [sys.executable, "-m", "attrib", "serve", *options]
        done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=120)
        assert done.returncode in (1, 2)
        assert done.stdout == ""
        assert "Traceback" not in done.stderr
        return done.stderr.splitlines()[-1]

    none = str(tmp_path / "none")
    assert fails("--data", none, "--port", "0").startswith(f"attrib: {none} is no attrib data")
    assert fails("--data", str(own), "--examples", none) == (
        f"attrib: {none} is no folder; --examples takes one with generated images"
    )
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        line = fails("--data", str(own), "--port", port)
        assert line == f"attrib: cannot listen on 127.0.0.1:{port}: is something else there?"


def test_not_ready_until_loaded(own: Path) -> None:
    from search.service.server import Service
    from search.service.settings import ServiceSettings

    service = Service(own, ServiceSettings(port=0))
    transport = httpx.ASGITransport(app=service._server.config.app)  # type: ignore[arg-type]

    async def ask() -> list[httpx.Response]:
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            paths = ("/healthz", "/readyz", "/v1/info")
            return [await client.get(path) for path in paths]

    import asyncio

    health, ready, info = asyncio.run(ask())
    service.engine.close()
    assert health.status_code == 200
    for response in (ready, info):
        assert response.status_code == 503
        assert response.headers["retry-after"] == "2"
        assert response.json()["type"] == "urn:attrib:problem:not-ready"
