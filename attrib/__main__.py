"""``attrib`` and ``python -m attrib``."""

from __future__ import annotations

import io
import sys

from attrib.cli import app


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # terminals that are not Unicode show "?"
    app(prog_name="attrib")


if __name__ == "__main__":
    main()
