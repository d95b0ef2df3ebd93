"""A report with names that mean harm, and a real Chromium that opens it from disk."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

# Helper modules that lie beside the tests are imported by their names.
sys.path.append(str(Path(__file__).parent))

from made_audit import each, made_picture, make_audit
from report_browser import CHROMIUM, OPTIONS, READY

from search.audit.report import write_report


@pytest.fixture(scope="session")
def audit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 generated images, some names and captions of which mean harm; a few without pictures."""
    out = make_audit(
        tmp_path_factory.mktemp("report") / "audit", 120, 11, hostile=True, unanswered=1
    )
    write_report(
        out,
        lambda key: None if key.endswith("7.png") else made_picture(key),
        each(lambda name: None if name.endswith("7") else made_picture(name)),
    )
    return out


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # For a module only: as long as it lives, its event loop is this thread's.
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield chromium
        chromium.close()


@pytest.fixture
def complaints() -> list[str]:
    return []


@pytest.fixture
def page(
    browser: Browser, audit: Path, complaints: list[str], request: pytest.FixtureRequest
) -> Iterator[Page]:
    """The report, opened without a network; at the end Chromium had nothing to complain of."""
    settings = {"viewport": {"width": 1280, "height": 900}, "locale": "en-GB"}
    context = browser.new_context(**{**settings, **getattr(request, "param", {})})
    context.set_offline(True)
    opened = context.new_page()
    opened.set_default_timeout(15_000)
    asked: list[str] = []
    opened.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("dialog", lambda dialog: complaints.append(f"dialog {dialog.message}"))
    opened.on("request", lambda sent: asked.append(sent.url))
    opened.goto((audit / "report.html").as_uri())
    opened.wait_for_selector(READY)
    opened.wait_for_selector(".pair img")
    yield opened
    context.close()
    assert complaints == []
    assert {url.split(":")[0] for url in asked} <= {"file", "data"}
    assert [url for url in asked if url.startswith("file:")] == [(audit / "report.html").as_uri()]
