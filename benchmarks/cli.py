"""How long `attrib --help` takes, beside an interpreter that does nothing.

python -m benchmarks.cli [--rounds R]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure in turn, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--cache", type=Path, help="folder for the result (cli.json)")
    options, _ = parser.parse_known_args(arguments)
    ways = {
        "python": [sys.executable, "-c", "pass"],
        "attrib --help": [sys.executable, "-m", "attrib", "--help"],
        "attrib query --help": [sys.executable, "-m", "attrib", "query", "--help"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds + 1):
        for name, command in ways.items():
            began = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds[name].append(time.perf_counter() - began)
    result = {
        name: {"median_s": round(statistics.median(s[1:]), 3), "min_s": round(min(s[1:]), 3)}
        for name, s in seconds.items()
    }
    print(json.dumps(result, indent=2))
    if options.cache:
        options.cache.mkdir(parents=True, exist_ok=True)
        (options.cache / "cli.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
