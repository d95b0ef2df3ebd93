"""The wall, the table and the shares say what the service answered."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from page_browser import give
from playwright.sync_api import Page, expect

TILES = """() => [...document.querySelectorAll("#wall .tile")].map((tile) => {
  const box = tile.getBoundingClientRect();
  return {kind: tile.classList[1], rank: tile.dataset.rank, influence: +tile.dataset.influence,
          x: box.x, y: box.y, width: box.width, height: box.height};
})"""


def answer_of(page: Page) -> dict[str, Any]:
    """The kept answer behind the link of the page."""
    identity = page.evaluate("location.hash").removeprefix("#a=")
    return page.evaluate("(id) => fetch('/v1/attributions/' + id).then((r) => r.json())", identity)


def test_area_is_influence(answered: Page) -> None:
    tiles = answered.evaluate(TILES)
    wall = answered.evaluate(
        "() => { const b = document.getElementById('wall').getBoundingClientRect();"
        " return [b.width, b.height] }"
    )
    whole = wall[0] * wall[1]
    total = sum(tile["influence"] for tile in tiles)
    assert total == pytest.approx(1, abs=1e-6)
    assert sum(tile["width"] * tile["height"] for tile in tiles) == pytest.approx(whole, rel=0.01)
    for tile in tiles:
        expected = tile["influence"] / total * whole
        slack = 2 * (tile["width"] + tile["height"]) + 4
        assert abs(tile["width"] * tile["height"] - expected) <= slack, tile


def test_rows_and_remaining_are_everything(answered: Page) -> None:
    answered.uncheck("#near")
    answer = answer_of(answered)
    tiles = answered.evaluate(TILES)
    shown = sum(row["influence"] for row in answer["rows"])
    assert shown + answer["remaining"] == pytest.approx(1, abs=1e-6)
    ranked = [tile for tile in tiles if tile["kind"] == "row"]
    by_rank = {str(row["rank"]): row["influence"] for row in answer["rows"]}
    assert len(ranked) >= 3
    for tile in ranked:
        assert tile["influence"] == by_rank[tile["rank"]]
    remaining = [tile["influence"] for tile in tiles if tile["kind"] == "remaining"]
    assert remaining == [answer["remaining"]]


def test_table_has_every_row_as_text(answered: Page) -> None:
    answered.uncheck("#near")
    answer = answer_of(answered)
    answered.click("#view-table")
    rows = answered.locator("#table-view tbody tr")
    assert rows.count() == len(answer["rows"]) == 50
    expect(rows.first).to_contain_text(f"{answer['rows'][0]['influence'] * 100:.1f} %")
    expect(answered.locator("#table-view tfoot")).to_contain_text("remaining influence")
    expect(answered.locator("#wall-view")).to_be_hidden()
    with answered.expect_response("**/v1/attributions"):
        answered.locator("#k").fill("1")  # the second step: two images
    expect(rows).to_have_count(2)
    answered.click("#view-wall")
    expect(answered.locator("#wall .tile")).to_have_count(3)


def test_folded_images_can_be_enlarged_and_left_again(answered: Page) -> None:
    answered.click("#wall .folded")
    expect(answered.locator("#zoomed")).to_contain_text("Enlarged:")
    first = answered.evaluate(TILES)[0]
    assert int(first["rank"]) > 1
    answered.click("#zoomed button")
    assert answered.evaluate(TILES)[0]["rank"] == "1"
    assert answered.evaluate("document.activeElement.className") == "tile folded"


def test_images_alone_where_much_remains(answered: Page) -> None:
    with answered.expect_response("**/v1/attributions"):
        answered.locator("#k").fill("1")  # the second step: two images
    expect(answered.locator("#headline")).to_contain_text("2 training images carry")
    assert [tile["kind"] for tile in answered.evaluate(TILES)].count("remaining") == 1
    answered.click("#alone")
    expect(answered.locator("#zoomed")).to_contain_text("Enlarged: 2 images")
    tiles = answered.evaluate(TILES)
    assert [tile["kind"] for tile in tiles] == ["row", "row"]
    areas = [tile["width"] * tile["height"] for tile in tiles]
    influences = [tile["influence"] for tile in tiles]
    assert areas[0] / areas[1] == pytest.approx(influences[0] / influences[1], rel=0.01)
    answered.click("#zoomed button")
    assert len(answered.evaluate(TILES)) == 3


def test_equal_images_are_one_tile_with_a_count(page: Page, answered: Page) -> None:
    answer = answer_of(answered)
    twins = [row for row in answer["rows"] if len(row["owners"]) == 2]
    assert len(twins) == 1
    label = answered.locator(f"#wall [data-rank='{twins[0]['rank']}']").get_attribute("aria-label")
    assert label is not None
    assert label.endswith("2 equal copies")
    answered.click(f"#wall [data-rank='{twins[0]['rank']}']")
    expect(answered.locator("#details")).to_contain_text("2 equal copies, each with its record")
    expect(answered.locator("#details")).to_contain_text("Another Owner")


def test_fewer_images_leave_more_remaining(answered: Page) -> None:
    before = answer_of(answered)["remaining"]
    with answered.expect_response("**/v1/attributions"):
        answered.locator("#k").fill("3")  # the fourth step: five images
    expect(answered.locator("#headline")).to_contain_text("5 training images carry")
    after = answer_of(answered)
    assert len(after["rows"]) == 5
    assert after["remaining"] > before


def test_filter_from_the_shares_and_away_again(answered: Page) -> None:
    name = answered.locator("#shares button.bar-name").nth(1)
    creator = name.inner_text()
    with answered.expect_response("**/v1/attributions"):
        name.click()
    expect(answered.locator("#filters li")).to_have_count(1)
    expect(answered.locator("#result")).to_have_attribute("aria-busy", "false")
    answer = answer_of(answered)
    assert list(answer["where"]) == ["creator"]
    for row in answer["rows"]:
        assert creator in [owner["creator"] for owner in row["owners"]]
    with answered.expect_response("**/v1/attributions"):
        answered.click("#filters button")
    expect(answered.locator("#headline")).to_contain_text("50 training images carry")


def test_shares_by_licence(answered: Page) -> None:
    with answered.expect_response("**/v1/attributions"):
        answered.click("#group-by button[data-field=licence]")
    expect(answered.locator("#group-by button[data-field=licence]")).to_have_attribute(
        "aria-pressed", "true"
    )
    expect(answered.locator("#shares li").first).to_contain_text("public domain")
    groups = answer_of(answered)["groups"]
    assert answered.locator("#shares li").count() == len(groups)


def test_method_in_words(answered: Page) -> None:
    answer = answer_of(answered)
    expected = {"exact": "was compared", "complete": "were found", "estimated": "95 % confidence"}
    expect(answered.locator("#method")).to_contain_text(expected[answer["method"]])
    expect(answered.locator("#method")).to_contain_text(answer["model"])
    expect(answered.locator("#summary")).to_contain_text("not shown")


def test_interval_is_told_where_the_shares_are_estimates(page: Page) -> None:
    words = page.evaluate(
        """async () => {
          const words = await import("/assets/words.js");
          const answer = {method: "estimated", population: 12345678, support: null, where: {},
                          remaining: 0.4, remaining_interval: [0.38, 0.4231]};
          return [words.methodInWords(answer), words.remainingInWords(answer)];
        }"""
    )
    assert "12,345,678 training images" in words[0]
    assert "95 % confidence" in words[0]
    assert words[1].startswith("40.0 % (38.0 % to 42.3 %) of the influence")


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0 %"),
        (1e-12, "0 %"),
        (0.00001, "< 0.01 %"),
        (0.0012, "0.12 %"),
        (0.25, "25.0 %"),
        (0.9999, "> 99.9 %"),
        (1 - 1e-12, "100 %"),
        (1, "100 %"),
    ],
)
def test_percentages(page: Page, share: float, text: str) -> None:
    said = page.evaluate("(s) => import('/assets/words.js').then((w) => w.percent(s))", share)
    assert said == text


def test_treemap_of_many_kinds(page: Page) -> None:
    found = page.evaluate(
        """async () => {
          const { squarify } = await import("/assets/treemap.js");
          let state = 7;
          const random = () => (state = (state * 48271) % 2147483647) / 2147483647;
          const cases = [];
          for (let i = 0; i < 200; i += 1) {
            const n = 1 + Math.floor(random() * 60);
            const values = Array.from({ length: n }, () => random() ** (1 + 8 * random()) + 1e-9);
            values.sort((a, b) => b - a);
            cases.push({ values, tiles: squarify(values, 300 + 900 * random(), 500) });
          }
          const values = [6, 6, 4, 3, 2, 2, 1];
          cases.push({ values, tiles: squarify(values, 6, 4) });
          return cases;
        }"""
    )
    for case in found:
        values, tiles = case["values"], case["tiles"]
        assert len(values) == len(tiles)
        area = sum(tile["width"] * tile["height"] for tile in tiles)
        for value, tile in zip(values, tiles, strict=True):
            share = value / sum(values)
            assert tile["width"] * tile["height"] / area == pytest.approx(share, rel=1e-4)
            assert min(tile["x"], tile["y"]) >= 0
            assert tile["y"] + tile["height"] <= 500 + 1e-3
    # The worked example of Bruls, Huizing and van Wijk: 6 x 4, the first column 6 + 6 is 3 wide.
    worked = found[-1]["tiles"]
    assert worked[0] == {"x": 0, "y": 0, "width": 3, "height": 2}
    assert worked[1] == {"x": 0, "y": 2, "width": 3, "height": 2}
    assert worked[2]["width"] == pytest.approx(12 / 7)


def test_picked_dropped_pasted_and_example_images(page: Page, generated: Path) -> None:
    data = json.dumps(list(generated.read_bytes()))
    transfer = page.evaluate_handle(
        f"""() => {{
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array({data})], "dropped.png", {{type: "image/png"}}));
          return data;
        }}"""
    )
    with page.expect_response("**/v1/attributions") as answer:
        page.dispatch_event("body", "dragenter", {"dataTransfer": transfer})
        expect(page.locator("#veil")).to_be_visible()
        page.dispatch_event("body", "drop", {"dataTransfer": transfer})
    assert answer.value.json()["query"].endswith("dropped.png")
    expect(page.locator("#veil")).to_be_hidden()
    dropped = answer.value.json()["rows"]

    page.click("#another")
    with page.expect_response("**/v1/attributions") as answer:
        page.evaluate(
            "(data) => document.dispatchEvent(new ClipboardEvent('paste',"
            " {clipboardData: data, bubbles: true}))",
            transfer,
        )
    assert answer.value.json()["rows"] == dropped

    page.click("#home")
    with page.expect_response("**/v1/attributions") as answer:
        page.locator(".example").first.click()
    expect(page.locator("#headline")).to_have_text(re.compile(r"training images? carr"))
    assert answer.value.status == 200


def test_a_thumbnail_that_cannot_be_had_stays_a_name(page: Page, generated: Path) -> None:
    """However often the wall is laid out anew: never a broken image."""
    page.route("**/thumbnail", lambda route: route.fulfill(status=404, json={}))
    give(page, generated)
    broken = """() => [...document.querySelectorAll("main img")].filter(
      (image) => image.src && image.complete && image.naturalWidth === 0).length"""
    tiles = page.locator("#wall .row")
    expect(page.locator("#wall .no-picture")).to_have_count(tiles.count())
    for width in (1100, 500, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        expect(page.locator("#wall img")).to_have_count(0)
        assert page.evaluate(broken) == 0
        expect(page.locator("#wall .no-picture bdi").first).to_contain_text("flag")
    page.uncheck("#near")
    expect(page.locator("#wall img")).to_have_count(0)
    page.check("#near")
    page.click("#view-table")
    page.locator("#table-view tr").filter(has_text="near-equal").locator("button").click()
    expect(page.locator("#details .member .no-picture")).to_have_count(2)
    assert page.locator("#details img").count() == 0
    # Another answer tries again.
    page.keyboard.press("Escape")
    page.unroute("**/thumbnail")
    page.click("#view-wall")
    page.locator("#k").fill("3")
    expect(page.locator("#wall img")).to_have_count(5)
