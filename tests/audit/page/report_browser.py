"""A report in a real Chromium, opened from disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from made_audit import each, made_picture
from playwright.sync_api import Browser, Page

from search.audit.report import write_report

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
OPTIONS = ["--no-sandbox", "--headless=new", "--disable-gpu", "--disable-dev-shm-usage"]
READY = "html[data-ready]"


def opened(browser: Browser, out: Path, **settings: Any) -> Page:
    """Another report, to be closed by the caller."""
    write_report(out, made_picture, each(made_picture))
    page = browser.new_page(**{"viewport": {"width": 1280, "height": 900}, **settings})
    page.set_default_timeout(15_000)
    page.goto((out / "report.html").as_uri())
    page.wait_for_selector(READY)
    return page


def keys(page: Page) -> list[str]:
    """Of the images that are listed."""
    return page.locator("#rows .open").all_inner_texts()
