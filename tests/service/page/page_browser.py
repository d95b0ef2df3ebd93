"""The service as a program, and what a browser makes of its page."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Page

REPOSITORY = Path(__file__).parents[3]
EXAMPLES = REPOSITORY / "examples"


@dataclass
class Seen:
    """What the browser complained of, and the paths that were refused."""

    complaints: list[str] = field(default_factory=list)
    refused: list[tuple[int, str]] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)


@contextmanager
def serving(data: Path, **environment: str) -> Iterator[str]:
    """`attrib serve` as a person starts it; yields its address, and stops it with SIGTERM."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "attrib", "serve", "--data", str(data), "--port", str(port)]
    command += ["--examples", str(EXAMPLES / "gallery")]
    log = data.parent / f"serve-{port}.log"
    with log.open("wb") as out:
        program = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env={**os.environ, **environment},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        try:
            _wait_until_ready(f"http://127.0.0.1:{port}/readyz", program, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            program.send_signal(signal.SIGTERM)
            try:
                program.wait(20)
            except subprocess.TimeoutExpired:
                program.kill()
                program.wait()


def _wait_until_ready(url: str, program: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 90
    while time.monotonic() < until:
        assert program.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except urllib.error.HTTPError as error:
            error.close()
        except OSError:
            pass
        time.sleep(0.1)
    pytest.fail(f"the service did not get ready: {log.read_text()}")


def watched(page: Page, seen: Seen) -> Page:
    """Notes every error of scripts, every breach of the policy and every refused request."""

    def console(message: object) -> None:
        text = str(getattr(message, "text", ""))
        kind = getattr(message, "type", "")
        if kind in ("error", "warning") and not text.startswith("Failed to load resource"):
            seen.complaints.append(text)

    page.set_default_timeout(15_000)
    page.on("console", console)
    page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    page.on("dialog", lambda dialog: seen.complaints.append(f"dialog {dialog.message}"))

    def asked(request: object) -> None:
        url = str(getattr(request, "url", ""))
        if not url.startswith("blob:"):
            seen.hosts.add(url.split("/")[2])

    def answered(response: object) -> None:
        if (status := getattr(response, "status", 0)) >= 400:
            seen.refused.append((status, "/" + str(getattr(response, "url", "")).split("/", 3)[3]))

    page.on("request", asked)
    page.on("response", answered)
    return page


def give(page: Page, image: Path) -> None:
    """Picks the file, and waits for its answer."""
    with page.expect_response("**/v1/attributions") as answer:
        page.set_input_files("#file", image)
    # Not the body: one that the page does not read never ends.
    assert answer.value.status == 200, page.locator("#error").inner_text()
    page.wait_for_selector("#wall .tile")
