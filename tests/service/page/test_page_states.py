"""Every state of the page: drawn as a picture, and looked at by axe."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from page_browser import Seen, give, watched
from playwright.sync_api import Browser, Page, Route, expect

ASK = "**/v1/attributions"


class Look:
    """Draws states of a page, and collects what axe finds in them."""

    def __init__(self, page: Page, folder: Path, ending: str) -> None:
        self.page, self.folder, self.ending = page, folder, ending
        self.faults: dict[str, list[str]] = {}

    def at(self, state: str, page: Page | None = None, *, whole: bool = False) -> None:
        """whole: as long as the page is, not as the window."""
        page = page or self.page
        if whole:
            page.evaluate("scrollTo(0, 0)")  # else what sticks is drawn where it was scrolled to
        page.wait_for_timeout(250)  # thumbnails, and what fades
        path = self.folder / f"page-{state}-{self.ending}.png"
        page.screenshot(path=path, full_page=whole)
        found = Axe().run(page).response["violations"]
        self.faults[state] = [
            f"{fault['id']}: {node['html'][:120]}"
            for fault in found
            if fault["impact"] != "minor"
            for node in fault["nodes"]
        ]
        width = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        if width > 0:
            self.faults[state].append(f"{width} pixels wider than the window")

    def clean(self) -> None:
        """Fails with all that was found."""
        assert {state: told for state, told in self.faults.items() if told} == {}


@pytest.fixture(params=["light", "dark"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[1280, 390])
def width(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def look(
    browser: Browser, service: str, screenshots: Path, scheme: str, width: int
) -> Iterator[Look]:
    context = browser.new_context(
        viewport={"width": width, "height": 844}, color_scheme=scheme, reduced_motion="reduce"
    )
    seen = Seen()
    page = watched(context.new_page(), seen)
    page.goto(service)
    page.wait_for_selector(".example")
    taken = Look(page, screenshots, f"{scheme}-{width}")
    yield taken
    context.close()
    assert seen.complaints == []
    taken.clean()


def held(page: Page) -> list[Route]:
    """Questions from now on wait, until `page.unroute(ASK)`."""
    routes: list[Route] = []
    page.route(ASK, lambda route: routes.append(route))
    return routes


def set_slider(page: Page, step: int) -> None:
    """Also where it is folded away."""
    page.locator("#k").evaluate(
        "(k, to) => { k.value = to; k.dispatchEvent(new Event('input', {bubbles: true})) }", step
    )


def test_beginning_and_waiting_and_refused(look: Look, generated: Path, tmp_path: Path) -> None:
    page = look.page
    look.at("beginning", whole=True)
    routes = held(page)
    page.set_input_files("#file", generated)
    expect(page.locator("#waiting")).to_be_visible()
    look.at("loading")
    routes[0].abort()
    page.unroute(ASK)
    expect(page.get_by_role("alert")).to_contain_text("cannot be reached")
    look.at("unreachable")
    broken = tmp_path / "holiday.png"
    broken.write_bytes(b"none")
    page.set_input_files("#file", broken)
    expect(page.get_by_role("alert")).to_contain_text("“holiday.png”")
    look.at("error-at-the-beginning")
    give(page, generated)
    page.set_input_files("#file", broken)
    expect(page.get_by_role("alert")).to_contain_text("“holiday.png”")
    look.at("error-over-an-answer")


def test_answers(look: Look, generated: Path) -> None:
    page = look.page
    give(page, generated)
    expect(page.locator("#near-count")).to_have_text("1 folded")
    look.at("answer", whole=True)
    if page.locator("#settings-fold summary").is_visible():
        page.click("#settings-fold summary")
        look.at("settings-open")
    held(page)
    set_slider(page, 3)
    expect(page.locator("#result")).to_have_attribute("aria-busy", "true")
    look.at("asking-anew")
    page.click("#view-table")
    look.at("asking-anew-table")
    page.click("#view-wall")
    page.unroute(ASK)
    expect(page.locator("#waiting")).to_be_hidden()
    set_slider(page, 8)
    expect(page.locator("#headline")).to_contain_text("50 training images")
    with page.expect_response(ASK):
        page.locator("#shares button.bar-name").nth(1).click()
    expect(page.locator("#summary")).to_contain_text("that the filter leaves out")
    look.at("filter", whole=True)
    page.click("#alone")
    look.at("enlarged")
    page.click("#zoomed button")
    page.fill("#filter-value", "third owners")
    page.keyboard.press("Enter")
    page.locator("#filters button").first.click()
    expect(page.locator("#unmatched button")).to_be_visible()
    look.at("filter-that-nothing-passes", whole=True)


def test_other_views(look: Look, browser: Browser, generated: Path, scheme: str) -> None:
    page = look.page
    give(page, generated)
    with page.expect_response(ASK):
        page.click("#group-by [data-field=licence]")
    expect(page.locator("#shares")).to_contain_text("public domain")
    look.at("grouped-by-licence", whole=True)
    page.click("#view-table")
    look.at("table", whole=True)
    page.locator("#table-view button").first.click()
    look.at("details")
    page.keyboard.press("Escape")
    other = browser.new_context(
        viewport=page.viewport_size, color_scheme=scheme, reduced_motion="reduce"
    )
    frozen = other.new_page()
    frozen.goto(page.url)
    expect(frozen.locator("#frozen")).to_be_visible()
    look.at("frozen-link", frozen, whole=True)
    if frozen.locator("#settings-fold summary").is_visible():
        frozen.click("#settings-fold summary")
        look.at("frozen-link-settings-open", frozen)
    other.close()
    page.route(ASK, lambda route: route.fulfill(status=401, json={}))
    page.click("#group-by [data-field=creator]")
    expect(page.locator("#key-dialog")).to_be_visible()
    look.at("key-dialog")
    page.click("#key-cancel")
    expect(page.get_by_role("alert")).to_contain_text("No key was given.")
