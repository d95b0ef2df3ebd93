"""Captions and creators are text, links are checked, and nothing comes from another host."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from pathlib import Path

import httpx
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

PAGE = Path(__file__).parents[3] / "search" / "page"


def test_hostile_captions_and_creators_are_text(answered: Page, service: str) -> None:
    assert (
        answered.locator("#wall [data-rank='1']")
        .get_attribute("aria-label")
        .endswith(
            "<img src=x onerror=\"document.title='run'\"> flag, by "
            "\"><script>document.title='run'</script>"
        )
    )
    expect(answered.locator("#shares li").filter(has_text="<script>")).to_have_count(1)
    answered.click("#wall [data-rank='1']")
    details = answered.locator("#details")
    expect(details.locator("h2")).to_have_text("<img src=x onerror=\"document.title='run'\"> flag")
    expect(details).to_contain_text("javascript:document.title='run'")
    assert details.locator("a").count() == 0
    answered.keyboard.press("Escape")
    answered.click("#view-table")
    answered.wait_for_timeout(200)
    assert answered.locator("main script, main [onerror], main iframe").count() == 0
    assert answered.evaluate("document.title") != "run"


def test_links_are_of_the_web_only(answered: Page) -> None:
    links = answered.evaluate(
        """async () => {
          const { outwardLink } = await import("/assets/dom.js");
          const given = ["https://a.example/x", "http://a.example/", "javascript:alert(1)",
            "JAVASCRIPT:alert(1)", " javascript:alert(1)", "data:text/html,x", "//a.example/x",
            "/v1/info", "file:///etc/passwd", "vbscript:x", "blob:https://a.example/1", "", "\\u0000https://a"];
          return given.map((address) => {
            const made = outwardLink(address);
            return [made.tagName, made.getAttribute("href"), made.getAttribute("rel")];
          });
        }"""
    )
    rel = "noopener noreferrer nofollow"
    assert links[0] == ["A", "https://a.example/x", rel]
    assert links[1] == ["A", "http://a.example/", rel]
    assert [link[0] for link in links[2:12]] == ["SPAN"] * 10
    answered.click("#view-table")
    answered.locator("#table-view button").filter(has_text="=HYPERLINK").click()
    link = answered.locator("#details a")
    expect(link).to_have_attribute("href", "https://images.example/a?b=%3Cc%3E&d=%22e%22")
    expect(link).to_have_attribute("rel", rel)


def test_direction_marks_and_long_captions_do_not_spill(answered: Page) -> None:
    expect(answered.locator("#shares li").filter(has_text="Brett Roper").first).to_be_visible()
    assert "\u202e" not in answered.locator("main").inner_text()
    answered.click("#view-table")
    assert answered.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    long = answered.locator("#table-view button").filter(has_text="xxx")
    expect(long).to_have_text("x" * 150 + "…")
    long.click()
    expect(answered.locator("#details dd").filter(has_text="xxx")).to_have_text("x" * 1500)


def test_policy_is_strict_and_the_page_keeps_to_it(page: Page, service: str) -> None:
    response = page.goto(service)
    assert response is not None
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for file in PAGE.glob("*.js"):
        source = file.read_text()
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert word not in source, file
    index = (PAGE / "index.html").read_text()
    assert " style=" not in index
    assert "<style" not in index
    assert " onclick=" not in index


def test_the_page_weighs_what_the_documentation_says() -> None:
    text = (PAGE.parents[1] / "docs" / "service.md").read_text()
    said = re.search(r"(\d+) kB in all \((\d+) kB compressed\)", text)
    assert said is not None
    files = [file.read_bytes() for file in PAGE.iterdir() if file.is_file()]
    whole = sum(map(len, files))
    sent = sum(len(gzip.compress(file, 9, mtime=0)) for file in files)
    assert [round(whole / 1000), round(sent / 1000)] == [int(size) for size in said.groups()]


def test_csv_json_and_picture(answered: Page, tmp_path: Path) -> None:
    answered.click("#copy-json")
    expect(answered.locator("#copy-json")).to_have_text("Copied")
    answer = json.loads(answered.evaluate("navigator.clipboard.readText()"))
    with answered.expect_download() as saved:
        answered.click("#save-csv")
    assert saved.value.suggested_filename == "attribution-of-object-2.csv"
    text = Path(saved.value.path()).read_text("utf-8-sig")
    lines = list(csv.DictReader(io.StringIO(text)))
    assert len(lines) == len(answer["rows"]) + 1
    assert sum(float(line["influence"]) for line in lines) == pytest.approx(1, abs=1e-6)
    assert float(lines[0]["similarity"]) == answer["rows"][0]["similarity"]
    assert lines[-1]["key"] == "remaining influence"
    # What a spreadsheet would take for a formula is kept from being one.
    assert any(line["caption"].startswith("'=HYPERLINK(") for line in lines)
    with answered.expect_download() as saved:
        answered.click("#save-picture")
    assert saved.value.suggested_filename == "attribution-of-object-2.png"
    with Image.open(saved.value.path()) as picture:
        assert picture.size == (1600, 1182)
        colours = picture.convert("RGB").resize((160, 118)).getcolors(20_000)
        assert colours is not None
        assert len(colours) > 200  # thumbnails were drawn, not grey boxes


def test_a_picture_of_a_filtered_answer_says_so(answered: Page) -> None:
    def dark() -> int:
        with answered.expect_download() as saved:
            answered.click("#save-picture")
        with Image.open(saved.value.path()) as picture:
            line = picture.convert("L").crop((204, 152, 1550, 178))
        return sum(line.histogram()[:100])

    assert dark() == 0
    with answered.expect_response("**/v1/attributions"):
        answered.locator("#shares button.bar-name").nth(1).click()
    expect(answered.locator("#summary")).to_contain_text("that the filter leaves out")
    assert dark() > 100


def test_no_picture_is_hot_linked(browser: Browser, service: str, generated: Path) -> None:
    """A row without a thumbnail shows what it is called, and nothing is fetched for it."""
    context = browser.new_context()
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))

    with generated.open("rb") as file:
        answer = httpx.post(f"{service}/v1/attributions", files={"image": file}).json()
    for row in answer["rows"]:
        row["thumbnail"] = None
        row["owners"][0]["url"] = "https://images.example/picture.jpg"
    page.route("**/v1/attributions", lambda route: route.fulfill(json=answer))
    page.goto(service)
    page.set_input_files("#file", generated)
    page.wait_for_selector("#wall .tile")
    expect(page.locator("#wall .no-picture bdi").first).to_contain_text("flag")
    page.click("#wall [data-rank='1']")
    expect(page.locator("#details")).to_contain_text("No picture of this training image is kept")
    expect(page.locator("#details a").first).to_have_attribute(
        "href", "https://images.example/picture.jpg"
    )
    assert [url for url in asked if not url.startswith((service, "blob:"))] == []
    context.close()
