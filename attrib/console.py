"""Tables, progress bars and plain text for terminals. Captions and names are hostile text."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

__all__ = ["Bar", "console", "counted", "plain", "print_json", "print_lines", "table"]

_PIPED_WIDTH = 100
_ROOM = 28  # columns of text that a cell keeps before the ones that may be cut give way


def console(*, stderr: bool = False) -> Console:
    """A console of the terminal's width, or of 100 columns where there is no terminal."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _PIPED_WIDTH
    return Console(stderr=stderr, width=width, highlight=False, markup=False, emoji=False)


def plain(text: object) -> str:
    """One line without control characters, so that no caption can drive the terminal."""
    shown = "".join(c if c.isprintable() else " " for c in str(text))
    return " ".join(shown.split())


def counted(count: int, noun: str) -> str:
    """``1 training image``, ``2 training images``."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def print_json(value: Any) -> None:  # noqa: ANN401 (JSON)
    """Print a JSON value; letters that are not ASCII are escaped unless Unicode is printed."""
    unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=not unicode) + "\n")


def print_lines(*lines: str) -> None:
    """Print lines as they are."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def table(
    columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[object]], *, title: str = ""
) -> None:
    """Print a table. `columns`: (heading, 'left', 'right' or 'cut'); 'cut' ones give way first."""
    from rich import box
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    out = console()
    cells = [[plain(cell) for cell in row] for row in rows]
    # Rich shrinks columns evenly; here the ones marked 'cut' give way, whatever they hold.
    widths = []
    for i, (heading, kind) in enumerate(columns):
        widest = max([len(heading), *(cell_len(row[i]) for row in cells)])
        widths.append(widest if kind == "cut" else min(widest, _ROOM))
    # SIMPLE_HEAD: three columns between two cells, and one before the first and after the last.
    spare = out.width - sum(widths) - 3 * len(columns) - 1
    for i, (heading, kind) in enumerate(columns):
        if kind == "cut" and spare < 0:
            kept = max(len(heading), widths[i] + spare)
            spare += widths[i] - kept
            widths[i] = kept
    drawn = Table(box=box.SIMPLE_HEAD, title=plain(title) or None, title_justify="left")
    for (heading, kind), width in zip(columns, widths, strict=True):
        drawn.add_column(
            heading,
            justify="right" if kind == "right" else "left",
            no_wrap=True,
            overflow="ellipsis",
            width=width,
        )
    for row in cells:
        drawn.add_row(*(Text(cell) for cell in row))
    out.print(drawn)


class Bar:
    """The progress of long work on stderr: a bar, images a second, remaining time.

    Args:
        doing: what is done with the images, for people.
        finishing: what comes after the last image.
        window_s: seconds that the rate is taken over; longer than from one advance to the next.
    """

    def __init__(
        self, doing: str = "embedding", finishing: str = "indexing ", window_s: float = 30
    ) -> None:
        self._doing = doing
        self._finishing = finishing
        self._window_s = window_s
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def start(self, pending: int | None) -> None:
        """So many images are to be done; None where that is not known beforehand."""
        if pending == 0:
            return
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            ProgressColumn,
            Task,
            TextColumn,
            TimeRemainingColumn,
        )
        from rich.text import Text

        class Rate(ProgressColumn):
            def render(self, task: Task) -> Text:
                speed = task.finished_speed or task.speed
                if not speed:
                    return Text("")
                return Text(f"{speed:,.0f} images/s" if speed >= 10 else f"{speed:.2g} images/s")

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            Rate(),
            TimeRemainingColumn(),
            console=console(stderr=True),
            speed_estimate_period=self._window_s,
        )
        self._task = self._progress.add_task(self._doing, total=pending)
        self._progress.start()

    def advance(self, images: int) -> None:
        """So many more images are done."""
        if self._progress is not None and self._task is not None:
            self._progress.advance(self._task, images)

    def building(self) -> None:
        """The images are done; the index, or what else there is to make of them, is being built."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, description=self._finishing)

    def stop(self) -> None:
        """Take the bar away; its last state stays on the screen."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
