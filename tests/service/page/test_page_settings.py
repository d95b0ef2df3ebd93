"""Controls say what the answer beside them was asked with, whatever fails or comes late."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from page_browser import give
from playwright.sync_api import Browser, Page, Route, expect

ASK = "**/v1/attributions"
STEP_OF = {5: "3", 10: "4"}  # of the slider


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    file = tmp_path / "broken.png"
    file.write_bytes(b"no picture at all")
    return file


@contextmanager
def asking(page: Page) -> Iterator[dict[str, list[str]]]:
    """Waits for a question; afterwards what it asked, by field. The image is its file's name."""
    page.evaluate(
        """() => {
          const send = window.fetch;
          window.asked = new Promise((done) => {
            window.fetch = (path, options) => {
              if (options?.method === "POST") {
                window.fetch = send;
                done([...options.body].map(([name, value]) => [name, value.name ?? value]));
              }
              return send(path, options);
            };
          });
        }"""
    )
    fields: dict[str, list[str]] = {}
    yield fields
    for name, value in page.evaluate("window.asked"):
        fields.setdefault(name, []).append(value)


def filtered(page: Page) -> str:
    """Filters by the second name among the shares; what the headline says then."""
    with page.expect_response(ASK):
        page.locator("#shares button.bar-name").nth(1).click()
    expect(page.locator("#summary")).to_contain_text("that the filter leaves out")
    return page.locator("#headline").inner_text()


def hold_first(page: Page) -> list[Route]:
    """Holds the next question back; those after it go through."""
    held: list[Route] = []

    def handle(route: Route) -> None:
        if held:
            route.continue_()
        else:
            held.append(route)

    page.route(ASK, handle)
    return held


def wait_for(page: Page, held: list[Route]) -> Route:
    for _ in range(100):
        if held:
            return held[0]
        page.wait_for_timeout(50)
    pytest.fail("nothing was asked")


def refused(route: Route) -> None:
    route.fulfill(status=503, json={"type": "urn:attrib:problem:index-failed", "detail": "down"})


def test_a_broken_image_leaves_the_answer_with_its_image_and_filter(
    answered: Page, broken: Path
) -> None:
    headline = filtered(answered)
    chip = answered.locator("#filters bdi").inner_text()
    place = answered.url
    answered.set_input_files("#file", broken)
    answered.get_by_role("button", name="Dismiss").click()
    expect(answered.locator("#headline")).to_have_text(headline)
    expect(answered.locator("#filters bdi")).to_have_text(chip)
    expect(answered.locator("#query-name")).to_have_text("object-2.png")
    assert answered.url == place
    with asking(answered) as asked:
        answered.locator("#k").fill(STEP_OF[5])
    assert asked["image"] == ["object-2.png"]
    assert asked["where"] == [chip.replace(": ", "=")]
    expect(answered.locator("#headline")).to_contain_text(re.compile("^[1-5] training image"))


def test_settings_that_failed_go_back_and_can_be_tried_again(answered: Page) -> None:
    error = answered.get_by_role("alert")
    answered.route(ASK, refused)
    with answered.expect_response(ASK):
        answered.locator("#k").fill(STEP_OF[5])
    expect(error).to_contain_text("The search index does not answer.")
    expect(answered.locator("#k-value")).to_have_text("50")
    with answered.expect_response(ASK):
        answered.locator("#shares button.bar-name").first.click()
    expect(answered.locator("#filters li")).to_have_count(0)
    with answered.expect_response(ASK):
        answered.click("#group-by [data-field=licence]")
    with answered.expect_response(ASK):
        answered.click("#exact")
    expect(answered.locator("#exact")).not_to_be_checked()
    expect(answered.locator("#headline")).to_contain_text("50 training images carry")
    with answered.expect_response(ASK):
        answered.locator("#k").fill(STEP_OF[10])
    expect(answered.locator("#k-value")).to_have_text("50")
    answered.unroute(ASK)
    with asking(answered) as asked:
        error.get_by_role("button", name="Try again").click()
    assert asked["k"] == ["10"]
    # Those had failed, too, and were not asked for again.
    assert asked["group_by"] == ["creator"]
    assert "exact" not in asked
    assert "where" not in asked
    expect(answered.locator("#headline")).to_contain_text("10 training images carry")
    expect(answered.locator("#k-value")).to_have_text("10")


def test_settings_moved_while_a_new_image_is_asked_for_are_of_that_image(
    answered: Page, generated: Path
) -> None:
    held = hold_first(answered)
    other = generated.with_name("object-1.png")
    answered.set_input_files("#file", other)
    wait_for(answered, held)
    expect(answered.locator("#query-name")).to_have_text("object-2.png")
    with asking(answered) as asked:
        answered.locator("#k").fill(STEP_OF[5])
    assert asked["image"] == [other.name]
    expect(answered.locator("#query-name")).to_have_text("object-1.png")
    expect(answered.locator("#headline")).to_contain_text("5 training images carry")


def test_an_answer_that_comes_late_does_not_move_the_slider(answered: Page) -> None:
    held = hold_first(answered)
    answered.locator("#k").fill(STEP_OF[5])
    first = wait_for(answered, held)
    answered.evaluate(
        """() => { const k = document.getElementById("k"); k.value = "4";
                  k.dispatchEvent(new Event("input", {bubbles: true})); }"""
    )
    first.continue_()
    expect(answered.locator("#headline")).to_contain_text("10 training images carry")
    expect(answered.locator("#k-value")).to_have_text("10")


def test_going_back_is_not_undone_by_what_was_under_way(answered: Page) -> None:
    answered.click("#another")
    held = hold_first(answered)
    answered.locator(".example").first.click()
    late = wait_for(answered, held)
    answered.go_back()
    expect(answered.locator("#query-name")).to_have_text("object-2.png")
    expect(answered.locator("#waiting")).to_be_hidden()
    late.continue_()
    answered.wait_for_timeout(800)
    expect(answered.locator("#query-name")).to_have_text("object-2.png")


def test_comparing_with_all_stays_on_the_way_back(answered: Page) -> None:
    with asking(answered) as asked:
        answered.check("#exact")
    assert asked["exact"] == ["true"]
    expect(answered.locator("#result")).to_have_attribute("aria-busy", "false")
    answered.click("#another")
    with answered.expect_response(ASK):
        answered.locator(".example").first.click()
    expect(answered.locator("#query-name")).not_to_have_text("object-2.png")
    answered.uncheck("#exact")
    expect(answered.locator("#result")).to_have_attribute("aria-busy", "false")
    answered.go_back()
    answered.go_back()
    expect(answered.locator("#query-name")).to_have_text("object-2.png")
    expect(answered.locator("#exact")).to_be_checked()
    with asking(answered) as asked:
        answered.locator("#k").fill(STEP_OF[5])
    assert asked["exact"] == ["true"]


@pytest.mark.parametrize("exact", [True, False])
def test_an_answer_that_says_whether_all_were_compared_is_believed(
    answered: Page, browser: Browser, exact: bool
) -> None:
    def say(route: Route) -> None:
        answer: dict[str, Any] = route.fetch().json()
        route.fulfill(json={**answer, "exact": exact})

    context = browser.new_context()
    page = context.new_page()
    page.route(re.compile("/v1/attributions/[0-9a-f]+$"), say)
    page.goto(answered.url)
    expect(page.locator("#frozen")).to_be_visible()
    assert page.is_checked("#exact") is exact
    context.close()


def test_names_to_choose_from_are_of_the_field(answered: Page) -> None:
    names = "options => options.map((option) => option.value)"
    options = answered.locator("#filter-values option")
    assert "Third Owner" in options.evaluate_all(names)
    answered.select_option("#filter-field", "licence")
    assert sorted(options.evaluate_all(names)) == ["CC0", "public domain"]
    answered.select_option("#filter-field", "dataset")
    assert options.evaluate_all(names) == ["clipart"]
    with answered.expect_response(ASK):
        answered.click("#group-by [data-field=licence]")
    expect(answered.locator("#shares")).to_contain_text("public domain")
    answered.select_option("#filter-field", "creator")
    # Still those of the answer before, though the shares are now of licences.
    assert "Third Owner" in options.evaluate_all(names)


def test_capitals_do_not_matter_where_the_name_is_known(answered: Page) -> None:
    answered.fill("#filter-value", " third  OWNER ")
    with asking(answered) as asked:
        answered.keyboard.press("Enter")
    assert asked["where"] == ["creator=Third Owner"]
    expect(answered.locator("#headline")).to_contain_text("1 training image carries")
    expect(answered.locator("#filters bdi")).to_have_text("creator: Third Owner")


def test_a_name_that_is_unknown_is_said_to_be_so(answered: Page) -> None:
    answered.fill("#filter-value", "third owners")
    answered.click("#filter-add")
    words = answered.locator("#unmatched")
    expect(words).to_contain_text("No creator seen so far is written “third owners”.")
    expect(words).to_contain_text("exactly as it stands in the training set, capitals included")
    expect(answered.locator("[role=status]")).to_contain_text("“third owners”")
    words.get_by_role("button", name="Third Owner").click()
    expect(answered.locator("#headline")).to_contain_text("1 training image carries")
    expect(answered.locator("#filters li")).to_have_count(1)
    expect(words).to_be_hidden()
    # Two names that are right, of which no image has both.
    answered.select_option("#filter-field", "licence")
    answered.fill("#filter-value", "Public Domain")
    answered.click("#filter-add")
    expect(words).to_contain_text("Each name is right")


def test_a_new_image_begins_without_filters(answered: Page, generated: Path) -> None:
    filtered(answered)
    give(answered, generated.with_name("object-1.png"))
    expect(answered.locator("#query-name")).to_have_text("object-1.png")
    expect(answered.locator("#filters li")).to_have_count(0)
    expect(answered.locator("#headline")).to_contain_text("50 training images carry")
