"""What goes wrong is said in plain words, with the name of the image that it went wrong with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from page_browser import Seen
from playwright.sync_api import Page, expect

from ingest.errors import RejectReason

ASK = "**/v1/attributions"


def told(page: Page) -> list[str]:
    """The lines of the error."""
    return [line.inner_text() for line in page.locator("#error p").all()]


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (
            b"no picture at all",
            ["“holiday.png” is not an image.", "Give a PNG, JPEG or WebP file."],
        ),
        (None, ["“holiday.png” is cut off.", "Its end is missing: get the file anew."]),
        (b"", ["“holiday.png” is empty.", "Give a PNG, JPEG or WebP file."]),
    ],
)
def test_a_file_that_is_no_image_is_named(
    page: Page, generated: Path, tmp_path: Path, content: bytes | None, lines: list[str]
) -> None:
    file = tmp_path / "holiday.png"
    file.write_bytes(generated.read_bytes()[:1000] if content is None else content)
    page.set_input_files("#file", file)
    error = page.get_by_role("alert")
    expect(error).to_be_visible()
    said = told(page)
    assert said[0] == lines[0]
    assert said[1].startswith(lines[1])
    assert error.get_by_role("button", name="Try again").count() == 0
    error.get_by_role("button", name="Dismiss").click()
    expect(error).to_be_hidden()
    expect(page.locator("#intake")).to_be_visible()


def test_other_files_and_large_ones_are_not_even_sent(
    page: Page, generated: Path, tmp_path: Path, seen: Seen
) -> None:
    expect(page.locator("#collection")).to_contain_text("training images")
    posts: list[str] = []
    page.on("request", lambda request: posts.append(request.method))
    text = tmp_path / "notes.txt"
    text.write_text("words")
    page.set_input_files("#file", text)
    error = page.get_by_role("alert")
    expect(error).to_contain_text("“notes.txt” is not an image.")
    assert told(page)[1] == "It is text/plain. Give a PNG, JPEG or WebP file."
    large = tmp_path / "large.png"
    large.write_bytes(generated.read_bytes() + bytes(40 << 20))
    page.set_input_files("#file", large)
    expect(error).to_contain_text("“large.png” is too large.")
    assert told(page)[1] == "It has 40 MiB; this service takes up to 32 MiB."
    page.fill("#url", "no address")
    page.click("#address button")
    expect(error).to_contain_text("An address begins with https:// or http://.")
    assert "POST" not in posts
    assert seen.refused == []


def test_an_address_is_named_with_why_it_cannot_be_had(page: Page) -> None:
    page.fill("#url", "http://127.0.0.1:1/image.png")
    with page.expect_response(ASK) as answer:
        page.click("#address button")
    assert answer.value.json()["type"] == "urn:attrib:problem:not-a-public-address"
    expect(page.get_by_role("alert")).to_be_visible()
    title, help_ = told(page)
    assert title == "“http://127.0.0.1:1/image.png” is not on the public web."
    assert help_.startswith("The service fetches from there only.")
    assert "only those of the public internet are fetched" in help_  # what the service said besides


def test_a_name_that_means_harm_is_text(page: Page, tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)>" + "x" * 100 + ".png"
    file = tmp_path / name
    file.write_bytes(b"none")
    page.set_input_files("#file", file)
    error = page.get_by_role("alert")
    expect(error).to_contain_text("“<img src=x onerror=alert(1)>xxx")
    assert "…" in told(page)[0]
    assert error.locator("img").count() == 0


@pytest.mark.parametrize(
    ("status", "body", "title", "again"),
    [
        (413, {"type": "urn:attrib:problem:more-bytes-than-the-limit"}, "“A” is too large.", False),
        (413, "<html>nginx</html>", "“A” is too large.", False),
        (422, {"type": "urn:attrib:problem:timed-out"}, "“A” did not come in time.", True),
        (503, {"type": "urn:attrib:problem:timed-out"}, "The answer took too long.", True),
        (422, {"type": "urn:attrib:problem:no-connection"}, "“A” cannot be reached.", True),
        (422, {"type": "urn:attrib:problem:wrong-call"}, "The service does not take “A”.", False),
        (503, {"type": "urn:attrib:problem:not-ready"}, "The service is still starting.", True),
        (429, {"type": "urn:attrib:problem:constructor"}, "The service is busy.", True),
        (500, {"type": "urn:attrib:problem:fault"}, "The service failed.", True),
        (502, "<html>nginx</html>", "The service cannot answer now.", True),
        (400, {"type": 7, "title": {"a": 1}}, "The service does not take “A”.", False),
    ],
)
def test_titles_are_never_phrases_of_http(
    page: Page, generated: Path, status: int, body: Any, title: str, again: bool
) -> None:
    phrase = {"title": "Unprocessable Entity", "status": status, "detail": "as the service says"}
    text = body if isinstance(body, str) else json.dumps({**phrase, **body})
    page.route(ASK, lambda route: route.fulfill(status=status, body=text))
    page.set_input_files("#file", generated)
    error = page.get_by_role("alert")
    expect(error).to_be_visible()
    lines = told(page)
    assert lines[0] == title.replace("A", generated.name) if "“A”" in title else title
    if not isinstance(body, str):
        assert "as the service says" in lines[1]
    assert (error.get_by_role("button", name="Try again").count() == 1) is again


def test_every_reason_of_the_service_has_a_title(page: Page) -> None:
    of_lists = {"key used twice in one dataset", "source cut off", "unusable features"}
    of_lists |= {"other content than listed", "timed out"}  # the latter stands apart, for its 503
    kinds = [reason.value.replace(" ", "-") for reason in RejectReason if reason not in of_lists]
    titles = page.evaluate(
        """async (kinds) => {
          const { inWords } = await import("/assets/problems.js");
          return kinds.map((kind) =>
            inWords({ kind, status: 422, detail: kind.replaceAll("-", " "), about: "A" }));
        }""",
        kinds,
    )
    for kind, words in zip(kinds, titles, strict=True):
        assert "“A”" in words["title"], kind
        assert words["title"] != "The service does not take “A”.", kind
        assert words["detail"], kind
        assert "(" not in words["detail"], kind  # the kind's own words are not said twice
