"""The page in use: keyboard, screen reader, phone, errors, links that last, keys."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
from folders import copy_folder
from page_browser import EXAMPLES, Seen, give, serving, watched
from playwright.sync_api import Browser, Page, expect

# Resolves once the image is there, and fails where it cannot be shown.
WIDTH = "(image) => image.decode().then(() => image.naturalWidth)"


def test_keyboard_alone(page: Page, generated: Path) -> None:
    # Asked for early: a chooser that comes before the browser is told to hand it over is lost.
    page.on("filechooser", lambda chooser: None)
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    for _ in range(10):
        if page.evaluate("document.activeElement.id") == "file":
            break
        page.keyboard.press("Tab")
    expect(page.locator("#file")).to_be_focused()
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(generated)
    expect(page.locator("#headline")).to_be_focused()
    reached: list[str] = []
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate("document.activeElement.id || document.activeElement.className")
        )
        if "tile" in reached[-1]:
            break
    assert reached[:2] == ["view-wall", "view-table"]
    assert reached[-1] == "tile row"
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.rank") == "2"
    expect(page.locator("#readout")).to_contain_text("similarity")
    page.keyboard.press("End")
    assert page.evaluate("document.activeElement.className") == "tile remaining"
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    expect(page.locator("#details")).to_be_visible()
    page.locator("#details .actions button").last.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#details .rank")).to_have_text("Training image 2 of 50")
    page.keyboard.press("Escape")
    expect(page.locator("#details")).to_be_hidden()
    assert page.evaluate("document.activeElement.dataset.rank") == "1"


def test_result_is_announced(answered: Page) -> None:
    live = answered.locator("[role=status]")
    expect(live).to_contain_text("training images carry")
    expect(live).to_contain_text("Most influential:")


def test_theme_is_chosen_and_stays(page: Page, service: str) -> None:
    assert page.evaluate("document.documentElement.dataset.theme") == "light"
    page.get_by_role("button", name="Use dark colours").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(19, 22, 25)"
    page.goto(service)
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_busy_and_unreachable_can_be_tried_again(page: Page, generated: Path) -> None:
    kind = "urn:attrib:problem:busy"
    busy = {"type": kind, "title": "Too Many Requests", "detail": "The queue is full."}
    page.route(
        "**/v1/attributions",
        lambda route: route.fulfill(status=429, json=busy, headers={"Retry-After": "7"}),
    )
    page.set_input_files("#file", generated)
    error = page.get_by_role("alert")
    expect(error).to_contain_text("The service is busy.")
    expect(error).to_contain_text("The queue is full.")
    expect(error).to_contain_text("wait 7 s")
    page.unroute("**/v1/attributions")
    page.route("**/v1/attributions", lambda route: route.abort())
    error.get_by_role("button", name="Try again").click()
    expect(error).to_contain_text("The service cannot be reached.")
    page.unroute("**/v1/attributions")
    error.get_by_role("button", name="Try again").click()
    page.wait_for_selector("#wall .tile")
    expect(error).to_be_hidden()


def test_link_to_a_kept_answer(answered: Page, browser: Browser, service: str) -> None:
    answered.click("#copy-link")
    expect(answered.locator("#copy-link")).to_have_text("Copied")
    link = answered.evaluate("navigator.clipboard.readText()")
    assert link == answered.url
    context = browser.new_context()
    page = context.new_page()
    page.goto(link)
    expect(page.locator("#headline")).to_have_text(answered.locator("#headline").inner_text())
    expect(page.locator("#frozen")).to_be_visible()
    expect(page.locator("#k")).to_be_disabled()
    assert page.locator("#query-image").evaluate(WIDTH) > 0
    page.goto(f"{service}/#a={'0' * 64}")
    expect(page.get_by_role("alert")).to_contain_text("This answer is no longer kept.")
    expect(page.locator("#intake")).to_be_visible()
    context.close()


def test_link_to_an_answer_without_its_image(browser: Browser, service: str) -> None:
    """One that a program asked for with features: no broken picture, and a way to go on."""
    dim = httpx.get(f"{service}/v1/info").json()["index"]["dim"]
    features = [1.0] + [0.0] * (dim - 1)
    answer = httpx.post(f"{service}/v1/attributions", json={"features": features}).json()
    context = browser.new_context()
    page = context.new_page()
    page.goto(service + answer["links"]["page"])
    expect(page.locator("#query-none")).to_have_text("No picture of it is kept.")
    expect(page.locator("#query-image")).to_be_hidden()
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Give the image again").click()
    chooser.value.set_files(EXAMPLES / "generated" / "object-37-homes" / "media-1.png")
    expect(page.locator("#query-name")).to_have_text("media-1.png")
    expect(page.locator("#query-none")).to_be_hidden()
    expect(page.locator("#k")).to_be_enabled()
    expect(page.locator("#frozen")).to_be_hidden()
    context.close()


def test_back_and_forth(answered: Page) -> None:
    answered.click("#another")
    expect(answered.locator("#intake")).to_be_visible()
    answered.go_back()
    expect(answered.locator("#wall .tile").first).to_be_visible()
    expect(answered.locator("#k")).to_be_enabled()


def test_key_is_asked_for_and_used(
    browser: Browser, page_data: Path, generated: Path, tmp_path: Path
) -> None:
    # The other service has the data folder to itself.
    copy = copy_folder(page_data, tmp_path / "data")
    with serving(copy, ATTRIB_READ_KEYS="first-key,second-key") as url:
        context = browser.new_context()
        page = watched(context.new_page(), Seen())
        page.goto(url)
        dialog = page.locator("#key-dialog")
        expect(dialog).to_be_visible()
        page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
        page.set_input_files("#file", generated)
        expect(dialog).to_be_visible()
        page.click("#key-cancel")
        expect(page.get_by_role("alert")).to_contain_text("No key was given.")
        page.get_by_role("button", name="Try again").click()
        page.fill("#key", "wrong")
        page.keyboard.press("Enter")
        expect(dialog).to_contain_text("The last key was not accepted.")
        page.fill("#key", "second-key")
        page.keyboard.press("Enter")
        expect(dialog).to_be_hidden()
        page.wait_for_selector("#wall .tile")
        give(page, generated)
        image = page.locator("#wall .row img").first
        expect(image).to_have_attribute("src", re.compile("^blob:"))
        assert image.evaluate(WIDTH) > 0
        assert page.evaluate("localStorage.length") == 0
        assert page.evaluate("document.cookie") == ""
        page.reload()
        expect(page.locator("#headline")).to_contain_text("training images carry")
        expect(dialog).to_be_hidden()
        context.close()
