"""``attrib`` and ``python -m attrib``."""

from __future__ import annotations

from attrib.cli import app


def main() -> None:
    """Run the command line."""
    app(prog_name="attrib")


if __name__ == "__main__":
    main()
