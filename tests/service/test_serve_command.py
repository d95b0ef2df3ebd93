"""`attrib serve` as a process of its own: how it starts, ends, and is killed."""

from __future__ import annotations

import logging
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from service_process import ROOT, serving
from typer.testing import CliRunner

from attrib.cli import app


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
    line = fails("--data", str(own), "--host", "nosuchhost.invalid")
    assert line == (
        "attrib: cannot listen on nosuchhost.invalid:8723: no address is known of the host "
        "nosuchhost.invalid"
    )
    line = fails("--data", str(own), "--host", "192.0.2.1")  # of nobody
    assert line == (
        "attrib: cannot listen on 192.0.2.1:8723: this machine does not have the address 192.0.2.1"
    )


def test_not_ready_until_loaded(own: Path, caplog: pytest.LogCaptureFixture) -> None:
    from search.service.server import Service
    from search.service.settings import ServiceSettings

    service = Service(own, ServiceSettings(port=0))
    transport = httpx.ASGITransport(app=service._server.config.app)  # type: ignore[arg-type]

    async def ask() -> list[httpx.Response]:
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            paths = ("/healthz", "/readyz", "/v1/info")
            return [await client.get(path) for path in paths]

    import asyncio

    with caplog.at_level(logging.INFO, "attrib.service"):
        health, ready, info = asyncio.run(ask())
    told = [record.fields["path"] for record in caplog.records if record.message == "request"]  # type: ignore[attr-defined]
    assert told == ["/v1/info"]  # who waits asks every few seconds: that is no line of the log
    service.engine.close()
    assert health.status_code == 200
    for response in (ready, info):
        assert response.status_code == 503
        assert response.headers["retry-after"] == "2"
        assert response.json()["type"] == "urn:attrib:problem:not-ready"
