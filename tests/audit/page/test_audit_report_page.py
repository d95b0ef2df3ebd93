"""The report in a real Chromium, opened from disk."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from axe_playwright_python.sync_playwright import Axe
from changed_audit import images_of
from made_records import HOSTILE
from playwright.sync_api import Browser, Page, expect
from report_browser import keys

from search.audit.tables import IMAGES


def column(page: Page, label: str) -> list[float]:
    texts = page.locator(f"#rows td[data-label='{label}']").all_inner_texts()
    return [float(text.replace("%", "").replace("<", "").replace(">", "")) for text in texts]


def test_opens_from_disk_with_everything_on_it(page: Page) -> None:
    expect(page).to_have_title("Attribution audit of gallery")
    expect(page.locator("#lead")).to_contain_text(
        "120 generated images compared with the 300 training images of the collection clipart"
    )
    expect(page.locator("#plots svg")).to_have_count(3)
    expect(page.locator("#flags .flag")).to_have_count(5)
    expect(page.locator("#rows tr")).to_have_count(50)
    expect(page.locator("#method-words")).to_contain_text("not a causal proof")
    expect(page.locator("#method-words")).to_contain_text("estimated (")
    assert "null" not in page.locator("main").inner_text()
    assert "undefined" not in page.locator("main").inner_text()
    assert "NaN" not in page.locator("main").inner_text()
    drawn = page.evaluate("[...document.images].filter((i) => i.naturalWidth > 0).length")
    assert drawn > 60


def test_search_finds_by_key_prompt_creator_and_flag(page: Page, audit: Path) -> None:
    table = pq.read_table(audit / IMAGES).to_pylist()
    page.fill("#words", "00042")
    assert keys(page) == ["00042.png"]
    page.fill("#words", "  OWL   flag ")
    expected = [
        line["image"] for line in table if {"owl", "flag"} <= set(line["prompt"].lower().split())
    ]
    assert [key for key in keys(page) if key in expected] == expected
    assert expected
    creator = next(line["main_creator"] for line in reversed(table) if line["main_creator"])
    page.fill("#words", creator.lower())
    found = int(page.locator("#found").inner_text().split()[0])
    assert found >= images_of(audit, creator) > 0
    page.fill("#words", "")
    page.select_option("#flag", "near-copy")
    assert keys(page) == [
        " ".join(line["image"].split()) for line in table if "near-copy" in line["flags"]
    ]
    page.fill("#words", "no such words")
    expect(page.locator("#found")).to_contain_text("No image has all of these words")
    assert keys(page) == []


def test_sorts_by_every_number_both_ways(page: Page) -> None:
    for name, label in [
        ("remaining", "Remaining"),
        ("effective", "Effective sources"),
        ("top", "Top influence"),
        ("similarity", "Similarity"),
    ]:
        page.click(f"[data-sort={name}]")
        expect(page.locator("th[aria-sort=descending]")).to_contain_text(label)
        down = column(page, label)
        assert down == sorted(down, reverse=True)
        assert len(set(down)) > 20
        page.click("#order")
        expect(page.locator("th[aria-sort=ascending]")).to_contain_text(label)
        up = column(page, label)
        assert up == sorted(up)
        assert up[0] < down[-1]
    page.select_option("#sort", "order")
    assert keys(page)[20:22] == ["00020.png", "00021.png"]


def test_pages_go_through_all_images(page: Page) -> None:
    seen = keys(page)
    page.click("#pages >> text=Next")
    seen += keys(page)
    page.click("#pages >> text=Last")
    expect(page.locator("#found")).to_have_text("120 images, 101 to 120 shown")
    seen += keys(page)
    assert len(seen) == len(set(seen)) == 120


def test_wall_s_areas_are_the_shares(page: Page) -> None:
    page.fill("#words", "00060.png")
    page.click("#rows .open")
    page.wait_for_selector("#opened .tile")
    tiles = page.evaluate(
        """() => [...document.querySelectorAll("#opened .tile")].map((tile) => {
          const box = tile.getBoundingClientRect();
          return [Number(tile.dataset.influence), box.width * box.height];
        })"""
    )
    assert sum(share for share, _ in tiles) == pytest.approx(1, abs=1e-4)
    whole = sum(area for _, area in tiles)
    for share, area in tiles:
        assert area / whole == pytest.approx(share, abs=0.01)
    remaining = page.locator("#opened .tile.remaining")
    expect(remaining).to_have_count(1)
    expect(page.locator("#opened .source-rest").last).to_contain_text("remaining influence")


def test_opens_goes_on_and_closes_by_keyboard(page: Page) -> None:
    page.select_option("#sort", "similarity")
    first, second, *_ = keys(page)
    page.locator("#rows .open").first.focus()
    page.keyboard.press("Enter")
    title = page.locator("#opened-title")
    expect(title).to_have_text(first)
    expect(title).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(title).to_have_text(second)
    expect(title).to_be_focused()
    page.keyboard.press("ArrowLeft")
    expect(title).to_have_text(first)
    page.locator("#opened button.tile").first.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#opened .source").first).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#opened")).not_to_be_visible()
    expect(page.locator("#rows .open").first).to_be_focused()


def test_flagged_images_stand_beside_their_training_image(page: Page, audit: Path) -> None:
    table = pq.read_table(audit / IMAGES).to_pylist()
    copies = [line for line in table if "near-copy" in line["flags"]]
    section = page.locator(".flag").first
    expect(section.locator("h3")).to_contain_text(f"Near-copy {len(copies)} images")
    expect(section).to_contain_text("Threshold: score >= 0.9")
    expect(section).to_contain_text("Error rate: not measured: made up.")
    best = max(copies, key=lambda line: line["copy_score"])
    pair = section.locator(".pair").first
    expect(pair.locator("strong")).to_have_text(f"score {best['copy_score']:.3f}")
    expect(pair.locator(".pair-names bdi").first).to_have_text(" ".join(best["image"].split()))
    expect(pair.locator(".pair-pictures > *")).to_have_count(2)
    pair.locator("button").click()
    expect(page.locator("#opened-title")).to_have_text(" ".join(best["image"].split()))
    expect(page.locator("#opened dt").filter(has_text="Copy of")).to_have_count(1)


def test_flagged_images_beyond_the_first_are_shown_on_demand(page: Page, audit: Path) -> None:
    table = pq.read_table(audit / IMAGES).to_pylist()
    number = sum("one-creator" in line["flags"] for line in table)
    section = page.locator(".flag").nth(2)
    expect(section.locator(".pair")).to_have_count(8)
    section.get_by_role("button", name="Show").click()
    expect(section.locator(".pair")).to_have_count(min(number, 32))


def test_shares_as_bars_and_table_and_search_by_creator(page: Page) -> None:
    view = page.locator(".share-view[data-field=creator]")
    expect(view.locator(".share-remaining")).to_be_visible()
    expect(view.locator(".share-unknown")).to_be_visible()
    expect(view.locator(".share-remaining .bar-name")).to_have_text("Remaining influence")
    view.locator("summary").click()
    rows = view.locator("tbody tr")
    assert rows.count() == view.locator(".share-bar").count()
    page.click("#fields [data-field=licence]")
    expect(view).not_to_be_visible()
    expect(page.locator(".share-view[data-field=licence]")).to_be_visible()
    page.click("#fields [data-field=creator]")


def test_plots_tell_their_numbers(page: Page) -> None:
    plot = page.locator(".plot").nth(1)
    plot.locator("summary").click()
    cells = plot.locator("tbody tr").first.locator("td").all_inner_texts()
    plot.locator(".hit").first.hover()
    name = plot.locator("tbody th").first.inner_text()
    expect(plot.locator(".plot-readout")).to_have_text(f"{name}: {cells[0]} images ({cells[1]})")
    total = sum(int(each) for each in plot.locator("tbody td:nth-child(2)").all_inner_texts())
    assert total == 120
    assert page.locator(".plot .median").count() == 3
    for plot in page.locator(".plot").all():
        at = float(plot.locator(".median").get_attribute("x1") or "nan")
        assert 44 <= at <= 368  # between the axes


def test_hostile_texts_are_text(page: Page) -> None:
    page.fill("#words", "onerror")
    assert any("<img src=x onerror=" in key for key in keys(page))
    page.fill("#words", "")
    for number in range(len(HOSTILE)):
        page.locator("#rows .open").nth(number).click()
        page.wait_for_selector("#opened .source")
        page.keyboard.press("Escape")
    page.wait_for_timeout(200)
    assert page.evaluate("document.title") == "Attribution audit of gallery"
    inside = "main script, main [onerror], main [onload], main iframe, dialog script"
    assert page.locator(inside).count() == 0
    assert page.locator("main a:not([href^='#'])").count() == 0
    assert "\u202e" not in page.locator("main").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


@pytest.mark.parametrize(
    "page",
    [
        {"color_scheme": "light"},
        {"color_scheme": "dark"},
        {"viewport": {"width": 320, "height": 700}, "has_touch": True},
    ],
    ids=["light", "dark", "phone"],
    indirect=True,
)
def test_nothing_serious_for_axe_and_nothing_spills(page: Page, complaints: list[str]) -> None:
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    for summary in page.locator("summary:visible").all():
        summary.click()
    found = Axe().run(page).response["violations"]
    page.locator("#rows .open").nth(20).click()
    page.wait_for_selector("#opened .tile")
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert (
        page.evaluate("(d => d.scrollWidth - d.clientWidth)(document.getElementById('opened'))")
        <= 0
    )
    found += Axe().run(page).response["violations"]
    serious = [
        (each["id"], [node["html"][:200] for node in each["nodes"][:3]])
        for each in found
        if each["impact"] in ("moderate", "serious", "critical")
    ]
    assert serious == []


def test_theme_can_be_chosen(page: Page) -> None:
    theme = "document.documentElement.dataset.theme"
    assert page.evaluate(theme) == "light"
    page.click("#theme")
    assert page.evaluate(theme) == "dark"


def test_prints_with_everything_unfolded(page: Page, tmp_path: Path) -> None:
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    expect(page.locator("#finder")).not_to_be_visible()
    for field in ("creator", "licence", "dataset"):
        expect(page.locator(f".share-view[data-field={field}] table")).to_be_visible()
    page.set_viewport_size({"width": 700, "height": 1000})  # about A4 between the margins
    wide = page.evaluate(
        """[...document.querySelectorAll("table")]
          .filter((t) => t.getBoundingClientRect().right > innerWidth + 1).length"""
    )
    assert wide == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() == 0
    page.emulate_media(media="screen")
    pdf = page.pdf(format="A4")
    assert pdf.startswith(b"%PDF-")
    assert len(pdf) > 100_000


def test_report_that_is_cut_off_says_so(browser: Browser, audit: Path, tmp_path: Path) -> None:
    whole = (audit / "report.html").read_text("utf-8")
    cut = tmp_path / "cut.html"
    cut.write_text(whole[: whole.index('id="index-0"') - 40], encoding="utf-8")
    page = browser.new_page()
    page.goto(cut.as_uri())
    expect(page.locator("#error")).to_contain_text("a part of its data is missing")
    expect(page.locator("#plots svg")).to_have_count(3)
    page.close()
