"""What the report tells and shows, in a real Chromium: whose picture, which words, how many."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from changed_audit import images_of, with_late_creators, with_summary
from made_audit import make_audit
from playwright.sync_api import Browser, Page, expect
from report_browser import keys, opened

from search.audit.tables import ATTRIBUTIONS, CREATORS, IMAGES


def test_median_stands_in_its_bar_where_bars_grow(browser: Browser, tmp_path: Path) -> None:
    out = make_audit(tmp_path / "audit", 100, 5)
    table = pq.read_table(out / IMAGES)
    values = [1.1] * 40 + [1.75] * 30 + [float(n) for n in range(2, 32)]
    place = table.schema.get_field_index("effective_sources")
    pq.write_table(table.set_column(place, "effective_sources", [values]), out / IMAGES)
    page = opened(browser, out)
    plot = page.locator(".plot").first
    plot.locator("summary").click()
    rows = plot.locator("tbody th").all_inner_texts()
    assert rows[:4] == ["1 to 1.2", "1.2 to 1.5", "1.5 to 2", "2 to 2.5"]
    bar, median = plot.locator(".column").nth(2), plot.locator(".median")
    left, width, at = (
        float(of.get_attribute(name) or "nan")
        for of, name in ((bar, "x"), (bar, "width"), (median, "x1"))
    )
    assert left + width * 0.4 < at < left + width * 0.6  # 1.75 of 1.5 to 2
    expect(plot.locator("svg")).to_contain_text("(steps grow)")
    page.close()


def test_words_are_found_in_the_name_of_one_creator(page: Page, audit: Path) -> None:
    """Not the first name of one, and the last name of another."""
    table = pq.read_table(audit / CREATORS).to_pylist()
    names = [
        line["value"] for line in table if line["field"] == "creator" and line["kind"] == "known"
    ]
    first, last = names[2].split()[0], names[5].split()[0]
    assert not any(first in name and last in name for name in names)
    page.fill("#words", f"{first} {last}")
    assert keys(page) == []
    page.fill("#words", " ".join(reversed(names[2].split())))
    assert int(page.locator("#found").inner_text().split()[0]) == images_of(audit, names[2])


def test_a_creator_s_images_are_listed_as_the_table_counts_them(page: Page, audit: Path) -> None:
    view = page.locator(".share-view[data-field=creator]")
    view.locator("> button").click()  # the others of them
    view.locator("summary").click()
    told = dict(
        zip(
            view.locator("tbody th").all_inner_texts(),
            view.locator("tbody td:nth-child(4)").all_inner_texts(),
            strict=True,
        )
    )
    buttons = view.locator("button.bar-name")
    assert buttons.count() > 15
    counts = set()
    for button in buttons.all()[:12]:
        name = button.inner_text()
        button.click()
        expect(page.locator("#only")).to_contain_text(f"Images that {' '.join(name.split())} has")
        found = page.locator("#found").inner_text().split()[0]
        assert found == told[name], name
        counts.add(found)
    assert len(counts) > 5
    page.fill("#words", "000")  # among them
    assert 0 < int(page.locator("#found").inner_text().split()[0]) < int(found)
    page.fill("#words", "")
    page.click("#only button")
    expect(page.locator("#only")).not_to_be_visible()
    expect(page.locator("#found")).to_have_text("120 images, 1 to 50 shown")


def test_picture_beside_a_flagged_image_is_by_whom_the_words_name(
    browser: Browser, tmp_path: Path
) -> None:
    out = make_audit(tmp_path / "audit", 60, 4)
    late = with_late_creators(out, 2)
    page = opened(browser, out)
    section = page.locator(".flag").nth(2)
    while section.locator("> button").is_visible():
        number = section.locator(".pair").count()
        section.locator("> button").click()
        expect(section.locator(".pair").nth(number)).to_be_visible()
    pairs = section.locator(".pair").all()
    assert len(pairs) > 30
    seen = 0
    for pair in pairs:
        words, names = pair.locator("strong").inner_text(), pair.locator(".one-line")
        assert words.split(" from ", 1)[1] == names.last.inner_text()
        if (line := late.get(names.first.inner_text())) is not None:
            assert names.nth(2).inner_text() == (line["caption"] or line["training_key"])
            expect(pair.locator(".pair-other img")).to_be_visible()
            seen += 1
    assert seen == len(late) > 20
    page.close()


def test_copy_that_is_not_the_top_source_stands_beside_near_copy_alone(
    browser: Browser, tmp_path: Path
) -> None:
    out = make_audit(tmp_path / "audit", 40, 3, creators=40)
    lines: dict[str, list[dict[str, object]]] = {}
    for line in pq.read_table(out / ATTRIBUTIONS).to_pylist():
        lines.setdefault(line["image"], []).append(line)
    images = pq.read_table(out / IMAGES)
    table = images.to_pylist()
    name, own = next((key, own) for key, own in lines.items() if own[-1]["rank"] >= 4)
    copied = own[-1]
    for line in table:
        line["flags"] = []
        if line["image"] == name:
            line |= {"copy_of": copied["training_id"], "copy_score": 0.99}
            line["flags"] = ["near-copy", "nothing-close", "one-source"]
    pq.write_table(type(images).from_pylist(table, images.schema), out / IMAGES)
    page = opened(browser, out)
    shown = [
        page.locator(".flag").nth(place).locator(".pair .one-line").nth(2).inner_text()
        for place in (0, 1, 3)
    ]
    called = [line["caption"] or line["training_key"] for line in (copied, own[0], own[0])]
    assert shown == called
    assert called[0] != called[1]
    page.close()


@pytest.mark.parametrize(("fitted_on", "tuned_on"), [("", ""), ("pairs", "pairs"), ("pairs", None)])
def test_model_that_is_not_tuned_or_fitted_is_told(
    browser: Browser, tmp_path: Path, fitted_on: str, tuned_on: str | None
) -> None:
    out = with_summary(
        make_audit(tmp_path / "audit", 6),
        calibrator={"fitted_on": fitted_on},
        model={"tuned_on": tuned_on},
    )
    page = opened(browser, out)
    method, facts = page.locator("#method-words"), page.locator("#audited-facts")
    caveat = page.locator(".caveat")
    if fitted_on:
        expect(facts).to_contain_text("Fittedon pairs")
        expect(method).not_to_contain_text("not fitted")
        expect(caveat).not_to_contain_text("default settings")
    else:
        expect(facts).to_contain_text("Fittedno: shares rest on default settings")
        expect(method).to_contain_text("A calibrator, which was not fitted on examples here, turns")
        expect(caveat).to_contain_text("rests on default settings")
    if tuned_on == "":
        expect(method).to_contain_text("a general image model that was not tuned for attribution")
        expect(caveat).to_contain_text("The model was not tuned for attribution.")
    else:
        expect(caveat).not_to_contain_text("not tuned")
        words = "by a model that was tuned" if tuned_on else "by an attribution model."
        expect(method).to_contain_text(words)
    page.close()


def test_words_for_people_who_do_not_program(page: Page) -> None:
    facts = page.locator("#audited-facts")
    expect(facts).to_contain_text("Near-copy: score 0.9")
    expect(facts).to_contain_text("One source: 50 % of the influence")
    expect(facts).to_contain_text("Pictures were compared for near-copies from a similarity of")
    expect(facts).to_contain_text("below the nearest one's carries nothing (b -0.02)")
    expect(facts).to_contain_text("looked up in an index (")
    for text in (facts.inner_text(), page.locator("#flags").inner_text()):
        for word in ("near_copy", "look_from", "look-from", "one_source", "0.00000"):
            assert word not in text
    files = page.locator("#method-words")
    for name in ("manifest.json", "manifest.sig", "summary.json", "attributions.parquet"):
        expect(files.locator("dt", has_text=name)).to_have_count(1)


def test_search_that_compared_all_is_told_so(browser: Browser, tmp_path: Path) -> None:
    out = with_summary(
        make_audit(tmp_path / "audit", 6),
        totals={"methods": {"exact": 6}},
        calibrator={"b": 1.4924604859702134e-06},
    )
    page = opened(browser, out)
    facts = page.locator("#audited-facts")
    expect(facts).to_contain_text("every training image was compared with each generated image")
    expect(facts).not_to_contain_text("index (")
    expect(facts).to_contain_text("every training image carries a little at least (b 1.49 × 10⁻⁶)")
    page.close()


def test_one_image_has_no_intervals(browser: Browser, tmp_path: Path) -> None:
    page = opened(browser, make_audit(tmp_path / "audit", 1))
    view = page.locator(".share-view[data-field=creator]")
    hints = set(view.locator(".bar-head .hint").all_inner_texts())
    assert hints == {"no interval (one image)"}
    assert view.locator(".whisker").count() == 0
    view.locator("summary").click()
    assert set(view.locator("tbody td:nth-child(3)").all_inner_texts()) == {"–"}
    page.close()


def test_numbers_stay_with_their_sign(page: Page) -> None:
    broken = page.evaluate(
        r"""() => {
          const main = document.querySelector("main");
          const walker = document.createTreeWalker(main, NodeFilter.SHOW_TEXT);
          const places = "#flags, #rows, #figures, .share-view, .plot-readout";
          const found = [];
          while (walker.nextNode()) {
            const { data, parentElement } = walker.currentNode;
            if (parentElement.closest(places) && /[0-9] %/.test(data)) found.push(data);
          }
          return found;
        }"""
    )
    assert broken == []
    page.locator("#rows .open").nth(20).click()
    page.wait_for_selector("#opened .tile")
    assert " %" not in page.locator("#opened").inner_text()


def test_large_tiles_show_the_whole_picture(page: Page) -> None:
    page.click("[data-sort=top]")
    page.locator("#rows .open").first.click()
    page.wait_for_selector("#opened .tile img")
    fits = page.evaluate(
        """() => [...document.querySelectorAll("#opened .tile img")].map((image) => {
          const { width, height } = image.getBoundingClientRect();
          return [Math.min(width, height), getComputedStyle(image).objectFit];
        })"""
    )
    assert max(fits)[0] >= 240
    for side, fit in fits:
        assert fit == ("contain" if side >= 240 else "cover")


@pytest.mark.parametrize(
    ("page", "each_row"),
    [
        ({"viewport": {"width": width, "height": 900}}, number)
        for width, number in ((1280, 6), (1100, 3), (900, 3), (390, 2))
    ],
    indirect=["page"],
)
def test_figures_stand_in_rows_of_as_many(page: Page, each_row: int) -> None:
    tops = page.evaluate(
        "[...document.querySelectorAll('.figure')].map((f) => f.getBoundingClientRect().top)"
    )
    assert sorted(tops.count(top) for top in set(tops)) == [each_row] * (6 // each_row)


def test_print_says_how_much_of_the_gallery_it_holds(page: Page) -> None:
    page.emulate_media(media="print")
    heading = page.locator("#images-title")
    expect(heading).to_have_text("All images – 1 to 50 of 120 printed")
    expect(heading.locator("span")).to_be_visible()
    flagged = page.locator(".flag").nth(2).locator("h3")
    assert " – 8 of " in flagged.inner_text()
    page.emulate_media(media="screen")
    expect(heading.locator("span")).not_to_be_visible()
    page.click("#pages >> text=Next")
    expect(heading).to_contain_text("51 to 100 of 120 printed")
    page.fill("#words", "0005")
    expect(heading).to_contain_text("1 to 10 of 10 printed that were searched for, among 120")
    page.fill("#words", "")
    page.click("#pages >> text=Show all 120 on one page")
    expect(page.locator("#rows tr")).to_have_count(120)
    expect(heading).to_have_text("All images")
    page.click("#pages >> text=Show 50 a page")
    expect(page.locator("#rows tr")).to_have_count(50)
