"""Near-equal images are one tile, and can be told apart again."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from page_browser import Seen, give, watched
from playwright.sync_api import Browser, Page, expect


def answer_of(page: Page) -> dict[str, Any]:
    identity = page.evaluate("location.hash").removeprefix("#a=")
    return page.evaluate("(id) => fetch('/v1/attributions/' + id).then((r) => r.json())", identity)


def pair_in(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """The image and the one that was saved again, the more influential first."""
    names = ("1121bf9f7764.jpg", "again.jpg")
    pair = [row for row in answer["rows"] if row["owners"][0]["key"].endswith(names)]
    assert len(pair) == 2
    return pair


def influences(page: Page) -> list[float]:
    tiles = page.locator("#wall .tile").evaluate_all(
        "tiles => tiles.map(t => +t.dataset.influence)"
    )
    return list(tiles)


def row_button(page: Page, rank: int) -> Any:
    return page.locator("#table-view tbody tr").filter(
        has=page.locator("td:first-child").get_by_text(str(rank), exact=True)
    )


def test_near_equal_images_are_one_tile_whose_share_is_theirs(answered: Page) -> None:
    answer = answer_of(answered)
    first, second = pair_in(answer)
    assert first["sha256"] != second["sha256"]
    expect(answered.locator("#near-count")).to_have_text("1 folded")
    assert sum(influences(answered)) == pytest.approx(1, abs=1e-6)
    tile = answered.locator(f"#wall [data-rank='{first['rank']}']")
    together = first["influence"] + second["influence"]
    assert float(tile.get_attribute("data-influence") or 0) == pytest.approx(together)
    assert (tile.get_attribute("aria-label") or "").endswith("2 near-equal images")
    assert answered.locator(f"#wall [data-rank='{second['rank']}']").count() == 0
    answered.click("#view-table")
    assert answered.locator("#table-view tbody tr").count() == len(answer["rows"]) - 1
    expect(row_button(answered, first["rank"])).to_contain_text("2 near-equal images")


def test_details_tell_of_each_with_its_own_share_and_owner(answered: Page) -> None:
    pair = pair_in(answer_of(answered))
    answered.click("#view-table")
    row_button(answered, pair[0]["rank"]).locator("button").click()
    details = answered.locator("#details")
    together = sum(row["influence"] for row in pair)
    expect(details).to_contain_text(f"{together * 100:.{1 if together >= 0.01 else 2}f} %")
    members = details.locator(".member")
    expect(members).to_have_count(2)
    for member, row in zip((members.nth(0), members.nth(1)), pair, strict=True):
        expect(member).to_contain_text(row["sha256"])
        expect(member).to_contain_text(f"similarity {row['similarity']:.4f}")
        assert member.locator("img").evaluate("i => i.decode().then(() => i.naturalWidth)") > 0
    expect(details).to_contain_text("Third Owner")
    with answered.expect_response("**/v1/attributions"):
        details.get_by_role("button", name="Show only Third Owner").click()
    expect(answered.locator("#headline")).to_contain_text("1 training image carries")


def test_the_switch_tells_them_apart_and_folds_them_again(answered: Page) -> None:
    answer = answer_of(answered)
    answered.click("#view-table")
    rows = answered.locator("#table-view tbody tr")
    answered.uncheck("#near")
    expect(rows).to_have_count(len(answer["rows"]))
    expect(answered.locator("#near-count")).to_have_text("1 to fold")
    answered.click("#view-wall")
    assert sum(influences(answered)) == pytest.approx(1, abs=1e-6)
    answered.focus("#near")
    answered.keyboard.press("Space")
    answered.click("#view-table")
    expect(rows).to_have_count(len(answer["rows"]) - 1)


def test_json_and_csv_have_every_image(answered: Page, tmp_path: Path) -> None:
    answer = answer_of(answered)
    expect(answered.locator("#near-count")).to_have_text("1 folded")
    answered.click("#copy-json")
    expect(answered.locator("#copy-json")).to_have_text("Copied")
    # Behind a link an image may go by another name, or none.
    copied = json.loads(answered.evaluate("navigator.clipboard.readText()"))
    assert {**copied, "query": ""} == {**answer, "query": ""}
    with answered.expect_download() as download:
        answered.click("#save-csv")
    download.value.save_as(tmp_path / "rows.csv")
    table = list(csv.reader(io.StringIO((tmp_path / "rows.csv").read_text("utf-8-sig"))))
    assert len(table) == 1 + len(answer["rows"]) + 1


def test_nothing_is_offered_where_nothing_is_near_equal(answered: Page) -> None:
    with answered.expect_response("**/near-equal"):
        answered.locator("#k").fill("1")  # the second step: two images
    expect(answered.locator("#near-count")).to_have_text("none here")
    expect(answered.locator("#near")).to_be_disabled()


def test_late_news_fold_what_is_shown_and_none_leave_it(page: Page, generated: Path) -> None:
    held: list[Any] = []
    page.route("**/near-equal", lambda route: held.append(route))
    give(page, generated)
    rows = page.locator("#table-view tbody tr")
    expect(page.locator("#near-field")).to_be_hidden()
    assert rows.count() == 50
    held[0].continue_()
    expect(page.locator("#near-count")).to_have_text("1 folded")
    assert rows.count() == 49
    page.unroute("**/near-equal")
    page.route("**/near-equal", lambda route: route.fulfill(status=429, json={}))
    with page.expect_response("**/near-equal"):
        page.locator("#k").fill("9")
    expect(page.locator("#headline")).not_to_contain_text("50 training images")
    expect(page.locator("#near-field")).to_be_hidden()
    assert sum(influences(page)) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 320])
def test_nothing_serious_for_axe_in_the_details_of_several(
    browser: Browser, service: str, generated: Path, scheme: str, width: int, screenshots: Path
) -> None:
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
    )
    seen = Seen()
    page = watched(context.new_page(), seen)
    page.goto(service)
    give(page, generated)
    expect(page.locator("#near-count")).to_have_text("1 folded")
    page.screenshot(path=screenshots / f"page-near-{scheme}-{width}.png")
    page.click("#view-table")
    page.locator("#table-view tr").filter(has_text="near-equal").locator("button").click()
    expect(page.locator("#details .member")).to_have_count(2)
    page.wait_for_timeout(200)
    page.screenshot(path=screenshots / f"page-near-details-{scheme}-{width}.png")
    found = Axe().run(page).response["violations"]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()
    assert [fault["id"] for fault in found if fault["impact"] != "minor"] == []
    assert seen.complaints == []
