from __future__ import annotations

import re
import shlex
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from attrib import reference
from attrib.cli import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *(
            page
            for room in ("examples", "benchmarks", "deploy")
            for page in ROOT.glob(f"{room}/*.md")
        ),
    ]
)
LINK = re.compile(r"""\]\(([^)\s]+)[^)]*\)|(?:src|href)="([^"]+)\"""")
FENCE = re.compile(r"^```[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    kept = str.maketrans("", "", string.punctuation.replace("-", "").replace("_", ""))
    return {
        title.strip().lower().translate(kept).replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }


def broken_links(page: Path) -> Iterator[str]:
    for groups in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        link = groups[0] or groups[1]
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        inside = target.exists() and target.is_relative_to(ROOT)
        named = not anchor or target.suffix != ".md" or (inside and anchor in anchors(target))
        if not (inside and named):
            yield link


def commands(page: Path) -> Iterator[list[str]]:
    """The words of every `attrib ...` line in the code blocks of a page."""
    for block in FENCE.findall(page.read_text(encoding="utf-8")):
        for line in block.replace("\\\n", " ").splitlines():
            lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars=True)
            lexer.whitespace_split = True
            if not re.match(r"(\$ )?attrib( |$)", line):
                continue
            words: list[str] = []
            for word in lexer:
                if set(word) <= set("();<>|&"):
                    break
                words.append(word)
            yield words[1:]


def fault(command: Any, words: list[str], parent: Any = None) -> str | None:
    """What the command line says against these words, without running anything."""
    settings = command.context_settings
    context = command.context_class(command, info_name=command.name, parent=parent, **settings)
    try:
        _, rest, _ = command.make_parser(context).parse_args(list(words))
    except Exception as exc:  # click's UsageError: of click itself, or of the copy inside Typer
        return str(getattr(exc, "message", exc))
    if not hasattr(command, "get_command") or not rest:
        return None
    below = command.get_command(context, rest[0])
    return fault(below, rest[1:], context) if below else f"No such command {rest[0]!r}."


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    assert list(broken_links(page)) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_shown_is_one_that_exists(page: Path) -> None:
    attrib = typer.main.get_command(app)
    faults = {shlex.join(words): fault(attrib, words) for words in commands(page)}
    assert {line: said for line, said in faults.items() if said} == {}


def test_readme_shows_the_commands_of_the_main_job() -> None:
    shown = {words[0] for words in commands(ROOT / "README.md") if words}
    assert {"ingest", "query"} <= shown


def test_a_command_or_an_option_that_does_not_exist_is_noticed() -> None:
    attrib = typer.main.get_command(app)
    assert fault(attrib, ["query", "a.png", "--k", "12"]) is None
    assert fault(attrib, ["query", "-h"]) is None
    assert fault(attrib, ["query", "a.png", "--kay", "12"]) is not None
    assert fault(attrib, ["quarry", "a.png"]) == "No such command 'quarry'."


def test_the_examples_in_the_readme_exist() -> None:
    for words in commands(ROOT / "README.md"):
        for word in words:
            if word.startswith("examples/") and not set(word) & set("*{"):
                assert (ROOT / word).exists(), word


def test_the_command_reference_is_what_the_help_texts_say() -> None:
    assert reference.main(["--check"]) == 0


def test_a_command_reference_that_differs_is_one_line_and_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "docs" / "commands.md"
    monkeypatch.setattr(reference, "PAGE", page)
    assert reference.main(["--check"]) == 1
    assert capsys.readouterr().err == (
        "docs/commands.md is not what the help texts say: run make docs\n"
    )
    assert reference.main([]) == 0
    assert reference.main(["--check"]) == 0
    page.write_text(page.read_text() + "more\n")
    assert reference.main(["--check"]) == 1


def test_the_command_reference_is_plain_and_the_same_everywhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    wide = reference.render()
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert reference.render() == wide
    assert "\x1b" not in wide
    assert "│" not in wide
    assert str(Path.home()) not in wide
    assert all(len(line) <= reference.WIDTH for line in wide.splitlines())
