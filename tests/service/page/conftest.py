"""A real service over a real ingest, and a real Chromium that looks at its page."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

# Helper modules that lie beside the tests are imported by their names.
sys.path.append(str(Path(__file__).parent))

from page_browser import EXAMPLES, REPOSITORY, Seen, give, serving, watched

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")

HOSTILE = {
    # The most influential image of `GENERATED`, and others by the same creator.
    "46a7235b5d48": {
        "caption": "<img src=x onerror=\"document.title='run'\"> flag",
        "creator": "\"><script>document.title='run'</script>",
        "url": "javascript:document.title='run'",
    },
    "1121bf9f7764": {
        "caption": '=HYPERLINK("https://evil.example")',
        "creator": "Brett\u202eRoper",
        "url": 'https://images.example/a?b=<c>&d="e"',
    },
    "2819b95e22b3": {"url": "data:text/html,<script>alert(1)</script>", "caption": "x" * 1500},
}
TWIN = "a4e15c4a30fc"
SAVED_AGAIN = "1121bf9f7764"


@pytest.fixture(scope="session")
def generated() -> Path:
    return EXAMPLES / "generated" / "style-71-brett-roper" / "object-2.png"


@pytest.fixture(scope="session")
def page_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """70 training images, one twice, one saved again, some with metadata that means harm."""
    folder = tmp_path_factory.mktemp("page") / "clipart"
    folder.mkdir()
    rows = pq.read_table(EXAMPLES / "training" / "metadata.parquet").to_pylist()
    rows.sort(key=lambda row: (row["creator"] != "Brett Roper", row["file"]))
    names = [*HOSTILE, TWIN]
    chosen = rows[:66] + [row for row in rows[66:] if Path(row["file"]).stem in names]
    for row in chosen:
        stem = Path(row["file"]).stem
        fields = {name: row[name] for name in ("caption", "creator", "licence")}
        copies = [(stem, {})] + ([("twin", {"creator": "Another Owner"})] if stem == TWIN else [])
        for name, other in copies:
            shutil.copy(EXAMPLES / "training" / row["file"], folder / f"{name}.jpg")
            record = {**fields, **HOSTILE.get(name, {}), **other}
            (folder / f"{name}.json").write_text(json.dumps(record))
    with Image.open(folder / f"{SAVED_AGAIN}.jpg") as image:
        image.resize((180, 180)).save(folder / "again.jpg", quality=60)
    (folder / "again.json").write_text(json.dumps({"creator": "Third Owner", "licence": "CC0"}))
    data = folder.parent / "data"
    ingest = ["ingest", str(folder), "--data", str(data), "--model", "efficientnet-lite0-clipart"]
    subprocess.run(
        [sys.executable, "-m", "attrib", *ingest], cwd=REPOSITORY, check=True, capture_output=True
    )
    return data


@pytest.fixture(scope="session")
def service(page_data: Path) -> Iterator[str]:
    with serving(page_data) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # For a module only: as long as it lives, its event loop is this thread's.
    options = ["--no-sandbox", "--headless=new", "--disable-gpu", "--disable-dev-shm-usage"]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield chromium
        chromium.close()


@pytest.fixture
def screenshots(tmp_path: Path) -> Path:
    """Where states of the page are drawn to: kept where ATTRIB_SCREENSHOTS names a folder."""
    folder = Path(os.environ.get("ATTRIB_SCREENSHOTS", tmp_path)).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def page(browser: Browser, service: str, seen: Seen) -> Iterator[Page]:
    """The page, open; at the end the browser must have had nothing to complain of."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, locale="en-GB")
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=service)
    opened = watched(context.new_page(), seen)
    opened.goto(service)
    yield opened
    context.close()
    assert seen.complaints == []
    assert seen.hosts == {service.split("/")[2]}


@pytest.fixture
def answered(page: Page, generated: Path) -> Page:
    """The page with the answer to a generated image."""
    give(page, generated)
    return page
