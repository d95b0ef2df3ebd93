"""The page on narrow screens: nothing spills, and the wall is seen while settings change."""

from __future__ import annotations

from pathlib import Path

import pytest
from page_browser import Seen, give, watched
from playwright.sync_api import Browser, Page, expect

SEEN = """(selector) => {
  const box = document.querySelector(selector).getBoundingClientRect();
  return Math.max(0, Math.min(box.bottom, innerHeight) - Math.max(box.top, 0)) / box.height;
}"""


@pytest.mark.parametrize("width", [320, 768])
def test_narrow(browser: Browser, service: str, generated: Path, width: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": 640}, has_touch=True)
    seen = Seen()
    page = watched(context.new_page(), seen)
    page.goto(service)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    give(page, generated)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.locator("#settings-fold summary").tap()
    page.locator("#shares button.bar-name").first.tap()
    expect(page.locator("#filters li")).to_have_count(1)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.locator("#wall .tile").first.tap()
    expect(page.locator("#details")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()
    assert seen.complaints == []


@pytest.fixture
def phone(answered: Page) -> Page:
    answered.set_viewport_size({"width": 390, "height": 844})
    expect(answered.locator("#settings-fold summary")).to_be_visible()
    return answered


def test_the_wall_is_seen_while_the_slider_moves(phone: Page) -> None:
    expect(phone.locator("#k")).to_be_hidden()
    summary = phone.locator("#settings-fold summary")
    expect(summary).to_have_text("Settings 50 images")
    summary.click()
    summary.evaluate("element => element.scrollIntoView()")
    assert phone.evaluate(SEEN, "#k") == 1
    assert phone.evaluate(SEEN, "#wall") > 0.9
    with phone.expect_response("**/v1/attributions"):
        phone.locator("#k").fill("3")
    expect(phone.locator("#headline")).to_contain_text("5 training images carry")
    assert phone.evaluate(SEEN, "#k") == 1
    assert phone.evaluate(SEEN, "#wall") > 0.9
    expect(summary).to_have_text("Settings 5 images")


def test_what_is_set_is_read_while_the_settings_are_folded(phone: Page) -> None:
    name = phone.locator("#shares button.bar-name").nth(1)
    creator = name.inner_text()
    with phone.expect_response("**/v1/attributions"):
        name.click()
    expect(phone.locator("#settings-fold summary")).to_have_text(f"Settings 50 images · {creator}")
    expect(phone.locator("#filters")).to_be_hidden()


def test_the_keyboard_goes_as_the_eye_does(phone: Page) -> None:
    phone.focus("#view-wall")
    reached = []
    for _ in range(12):
        phone.keyboard.press("Tab")
        element = "document.activeElement"
        reached.append(phone.evaluate(f"{element}.id || {element}.className || {element}.tagName"))
    at = [reached.index(name) for name in ("view-table", "SUMMARY", "tile row", "copy-link")]
    assert at == sorted(at)
    phone.focus("#settings-fold summary")
    phone.keyboard.press("Enter")
    phone.keyboard.press("Tab")
    expect(phone.locator("#k")).to_be_focused()


def test_turning_the_screen_keeps_what_is_open_and_focused(phone: Page) -> None:
    phone.click("#settings-fold summary")
    phone.focus("#filter-value")
    phone.set_viewport_size({"width": 1280, "height": 800})
    expect(phone.locator("#rail #settings")).to_be_visible()
    expect(phone.locator("#settings-fold summary")).to_be_hidden()
    expect(phone.locator("#filter-value")).to_be_focused()
    phone.set_viewport_size({"width": 390, "height": 844})
    expect(phone.locator("#result #settings")).to_be_visible()
    expect(phone.locator("#k")).to_be_visible()
    expect(phone.locator("#filter-value")).to_be_focused()
    phone.click("#settings-fold summary")
    phone.set_viewport_size({"width": 1280, "height": 800})
    expect(phone.locator("#k")).to_be_visible()
