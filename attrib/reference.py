"""The command reference, docs/commands.md: written from the help texts of the commands themselves.

``python -m attrib.reference`` writes it, ``python -m attrib.reference --check`` fails where the
page on disk differs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

__all__ = ["main", "render"]

PAGE = Path(__file__).resolve().parents[1] / "docs" / "commands.md"
WIDTH = 100

HEADER = """\
# Commands

What `attrib COMMAND --help` says, for every command. This page is generated: change the help texts
in `attrib/`, then run `make docs`.
"""


def render() -> str:
    """The whole page."""
    import typer.main

    from attrib.cli import app

    sections = [HEADER]
    for name, text in _helps(typer.main.get_command(app), "attrib", None):
        sections.append(f"## {name}\n\n```text\n{text}\n```\n")
    return "\n".join(sections)


def _helps(
    command: Any,  # noqa: ANN401 - of click itself, or of the copy inside newer Typer
    name: str,
    parent: Any,  # noqa: ANN401
) -> Iterator[tuple[str, str]]:
    """Full name and plain help of a click command and of all below it, in the order of its help."""
    command.rich_markup_mode = None  # plain text: no boxes, no colours
    settings = command.context_settings | {"terminal_width": WIDTH, "max_content_width": WIDTH}
    context = command.context_class(command, info_name=name, parent=parent, **settings)
    lines = command.get_help(context).strip().splitlines()
    yield context.command_path, "\n".join(line.rstrip() for line in lines)
    if hasattr(command, "list_commands"):
        for below in command.list_commands(context):
            child = command.get_command(context, below)
            if not child.hidden:
                yield from _helps(child, below, context)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page, or check it; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m attrib.reference", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, compare only")
    check = parser.parse_args(arguments).check
    text = render()
    if not check:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text:
        sys.stderr.write(f"docs/{PAGE.name} is not what the help texts say: run make docs\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
