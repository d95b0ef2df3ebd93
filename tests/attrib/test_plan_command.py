"""``attrib plan`` as it is typed: what it prints, and what it refuses."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable

import pytest

from attrib.commands.plan import _bytes, _duration
from workers.capacity_sources import CODE_BITS, GPUS

Run = Callable[..., "subprocess.CompletedProcess[str]"]

LAION = ("--images", "400e6", "--model", "clip-vitb32", "--quantization", "binary", "--m", "6")


def test_a_plan_shows_figures_formulas_and_where_the_numbers_come_from(invoke: Run) -> None:
    done = invoke("plan", "--images", "2.3e9", "--model", "dino-vitb16", "--gpu", "rtx4090")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == (
        "2,300,000,000 training images, dino-vitb16 (768 numbers, float16), turbo4, m 16, 1 replica"
    )
    codes = next(line for line in lines if line.startswith("  turbo4 codes"))
    assert " ".join(codes.split()) == (
        "turbo4 codes 901.60 GB (839.68 GiB) 2.3e+09 points x (768 x 4 / 8 + 8) bytes"
    )
    hours = next(line for line in lines if line.startswith("  GPU-hours"))
    assert "237.2  2.3e+09 images / (2992.79 images/s x 0.9)" in hours
    for basis in ("measured", "published", "assumed"):
        assert f": {basis};" in done.stdout
    assert all(len(line) <= 100 or "https://" in line for line in lines)


def test_every_mark_has_its_note(invoke: Run) -> None:
    out = invoke("plan", *LAION, "--gpu", "rtx3090").stdout
    figures, notes = out.split("Where the numbers come from\n")
    used = {int(mark) for mark in re.findall(r"\[(\d+)\]", figures)}
    noted = [int(mark) for mark in re.findall(r"^  \[(\d+)\] ", notes, re.MULTILINE)]
    assert used == set(noted)
    assert noted == list(range(1, len(noted) + 1))


def test_json_has_the_same_figures_with_their_coefficients(invoke: Run) -> None:
    done = invoke("plan", *LAION, "--no-filters", "--json")
    planned = json.loads(done.stdout)
    assert planned["model"] == "clip-vitb32"
    assert planned["figures"]["ram.codes"] == {
        "title": "binary codes",
        "value": 25.6e9,
        "unit": "bytes",
        "formula": "4e+08 points x (512 x 1 / 8 + 0) bytes",
        "rests_on": ["code_binary"],
    }
    assert planned["figures"]["ram.total"]["value"] == 60.8e9
    assert planned["figures"]["ingest.gpu_hours"]["value"] is None
    for figure in planned["figures"].values():
        assert set(figure["rests_on"]) <= set(planned["coefficients"])


def test_the_help_names_every_device_and_quantization(invoke: Run) -> None:
    words = " ".join(invoke("plan", "--help").stdout.split())
    named = [*GPUS, *CODE_BITS]
    assert [name for name in named if name not in words] == []


@pytest.mark.parametrize("images", ["1e6", "1000000", "1,000,000", "1_000_000"])
def test_numbers_are_read_as_people_write_them(invoke: Run, images: str) -> None:
    planned = json.loads(invoke("plan", "--images", images, "--json").stdout)
    assert planned["figures"]["ingest.shards"]["value"] == 977


def test_a_rate_of_ones_own_serves_any_device_and_model(invoke: Run) -> None:
    done = invoke(
        *("plan", "--images", "36e5", "--model", "dino-vitb16", "--gpu", "h100"),
        *("--images-per-second", "1000", "--gpus", "4", "--json"),
    )
    figures = json.loads(done.stdout)["figures"]
    assert figures["ingest.gpu_hours"]["value"] == 1.0
    assert figures["ingest.embedding"]["value"] == 900.0


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ("--images", "0"),
            "--images '0' will not do: write a whole number above 0, such as 2.3e9",
        ),
        (
            ("--images", "-4"),
            "--images '-4' will not do: write a whole number above 0, such as 2.3e9",
        ),
        (
            ("--images", "many"),
            "--images 'many' will not do: write a whole number above 0, such as 2.3e9",
        ),
        (
            ("--images", "inf"),
            "--images 'inf' will not do: write a whole number above 0, such as 2.3e9",
        ),
        (
            ("--images", "1.5"),
            "--images '1.5' will not do: write a whole number above 0, such as 2.3e9",
        ),
        (
            ("--images", "1e6", "--model", "clip-vitb23"),
            "unknown model 'clip-vitb23'; did you mean 'clip-vitb32'? "
            "`attrib models list` shows all",
        ),
        (
            ("--images", "1e6", "--gpu", "abacus"),
            "no figures for a GPU 'abacus'; choose one of a100, rtx3090, rtx4090, rtx5090, "
            "rtxpro6000-maxq, cpu, or give --images-per-second",
        ),
        (
            ("--images", "1e6", "--model", "clip-vitb32", "--gpu", "H100"),
            "no published images per second of clip-vitb32 on h100 are known; there are some for "
            "rtx3090, rtx4090, rtx5090, rtxpro6000-maxq; measure yours and give "
            "--images-per-second",
        ),
        (
            ("--images", "1e6", "--model", "dinov2-vitb14", "--gpu", "a100"),
            "no published images per second of dinov2-vitb14 on a100 are known; measure yours and "
            "give --images-per-second",
        ),
        (
            ("--images", "1e6", "--images-per-second", "0"),
            "images_per_second must be above 0, not 0",
        ),
        (
            ("--images", "1e6", "--quantization", "turbo8"),
            "no quantization 'turbo8'; choose one of none, int8, turbo4, turbo2, turbo1, binary",
        ),
        (
            ("--images", "1e6", "--node-disk-gib", "0.1"),
            "a node's disk of 0.1 GiB holds not even the 3.3 GiB that merging a segment takes",
        ),
    ],
)
def test_wrong_calls(invoke: Run, arguments: tuple[str, ...], line: str) -> None:
    done = invoke("plan", *arguments)
    assert done.stderr == f"attrib: {line}\n"
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB (0.98 KiB)"),
        (2**30, "1.07 GB (1.00 GiB)"),
        (3.5e15, "3.50 PB (3.11 PiB)"),
        (2e18, "2,000.00 PB (1,776.36 PiB)"),
    ],
)
def test_bytes_are_decimal_and_binary(value: float, shown: str) -> None:
    assert _bytes(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.0056, "5.6 ms"),
        (1.5, "1.5 s"),
        (119, "119.0 s"),
        (120, "2.0 min"),
        (7200, "2.0 h"),
        (259_200, "3.0 days"),
    ],
)
def test_durations(seconds: float, shown: str) -> None:
    assert _duration(seconds) == shown
