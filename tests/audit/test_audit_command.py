"""`attrib audit` as it is typed, with the shipped model and the examples."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from programs import wait_until
from typer.testing import CliRunner

from attrib.cli import app
from attrib.opened import ingest_into

EXAMPLES = Path(__file__).parents[2] / "examples"


def attrib(*arguments: object) -> Any:
    return CliRunner().invoke(app, [*map(str, arguments)], prog_name="attrib")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder of 48 example training images."""
    folder = tmp_path_factory.mktemp("training")
    (folder / "images").mkdir()
    files = sorted((EXAMPLES / "training" / "images").iterdir())
    for path in files[::12][:48]:
        shutil.copy(path, folder / "images")
    shutil.copy(EXAMPLES / "training" / "metadata.parquet", folder)
    ingest_into(folder / "data", [str(folder)], dataset="clipart")
    return folder / "data"


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 generated images with prompts, and a bad one."""
    folder = tmp_path_factory.mktemp("gallery") / "made"
    folder.mkdir()
    files = sorted(path for path in (EXAMPLES / "generated").rglob("*") if path.is_file())
    images = [path for path in files if path.suffix in (".jpg", ".png")][::12][:12]
    for number, path in enumerate(images):
        shutil.copy(path, folder / f"{number:02d}{path.suffix}")
    (folder / "bad.png").write_bytes(b"bad")
    prompts = {path.name: f"prompt of {path.name}" for path in folder.iterdir()}
    (folder / "prompts.json").write_text(json.dumps(prompts))
    return folder


@pytest.fixture(scope="module")
def done(data: Path, gallery: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    out = tmp_path_factory.mktemp("audit") / "report"
    return out, attrib("audit", gallery, "--data", data, "--out", out)


def table(out: Path, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(out / f"{name}.parquet").to_pylist()
    return rows


def test_it_says_what_came_of_it(done: tuple[Path, Any]) -> None:
    out, result = done
    assert result.exit_code == 0, result.stderr
    assert re.match(
        r"made: 12 images attributed to \d+ training images, 1 rejected\n"
        r"  1 rejected: not an image\n"
        r"remaining influence \d+\.\d% on average; effective sources \d+\.\d in the median\n",
        result.stdout,
    )
    assert "remaining influence\n" in re.sub(" +\n", "\n", result.stdout)
    assert result.stdout.endswith(
        f"a similarity-based estimate, not a causal proof\nreport: {out / 'report.html'}\n"
    )
    names = {path.name for path in out.iterdir()}
    assert names == {
        *(f"{name}.parquet" for name in ("attributions", "images", "creators", "rejects")),
        *("summary.json", "manifest.json", "report.html", ".plan.json"),
    }


def test_each_image_sums_to_one_and_keeps_its_prompt(done: tuple[Path, Any]) -> None:
    out, _ = done
    shares: dict[str, list[float]] = {}
    for line in table(out, "attributions"):
        shares.setdefault(line["image"], []).append(line["influence"])
    found = table(out, "images")
    assert len(found) == 12
    for row in found:
        total = math.fsum([row["remaining"], *shares[row["image"]]])
        assert math.isclose(total, 1, abs_tol=1e-9)
        assert row["prompt"] == f"prompt of {row['image']}"
    by_field: dict[str, list[float]] = {}
    for line in table(out, "creators"):
        by_field.setdefault(line["field"], []).append(line["share"])
    assert list(by_field) == ["creator", "licence", "dataset"]
    assert all(math.isclose(math.fsum(values), 1) for values in by_field.values())


def test_the_same_once_more_does_nothing(done: tuple[Path, Any], data: Path, gallery: Path) -> None:
    out, _ = done
    result = attrib("audit", gallery, "--data", data, "--out", out)
    assert result.exit_code == 0
    first, second, *_ = result.stdout.splitlines()
    assert first == f"{out} holds this audit already, finished: nothing was done"
    assert second.startswith("made: 12 images attributed to ")
    result = attrib("audit", gallery, "--data", data, "--out", out, "--json")
    assert json.loads(result.stdout)["was_finished"] is True
    result = attrib("audit", gallery, "--data", data, "--out", out, "--k", "3")
    assert result.exit_code == 2
    assert "--restart begins anew" in result.stderr


def test_without_says_what_is_left_out(data: Path, gallery: Path, tmp_path: Path) -> None:
    creators = {line["creator"]: 0 for line in table_of_training(data)}
    name = sorted(filter(None, creators))[0]
    result = attrib(
        *("audit", gallery, "--data", data, "--out", tmp_path / "out"),
        *("--without", f"creator={name}", "--by", "training_key"),
    )
    assert result.exit_code == 0, result.stderr
    assert f"as if the training images of creator={name} were not there\n" in result.stdout
    found = {line["creator"] for line in table(tmp_path / "out", "attributions")}
    assert found
    assert name not in found
    assert "training_key" in {line["field"] for line in table(tmp_path / "out", "creators")}


def table_of_training(data: Path) -> list[dict[str, Any]]:
    from embed.shards import read_shard

    return [{"creator": row.creator} for row in read_shard(data / "features" / "clipart", 0)[1]]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--out", "{tmp}/out", "--data", "{tmp}/none"], 1, "is no attrib data folder"),
        (["--out", "{gallery}/out"], 2, "is in the gallery"),
        (["--out", "{tmp}/out", "--k", "0"], 2, "k must be at least 1, not 0"),
        (["--out", "{tmp}/out", "--without", "creator"], 2, "write it as field=value"),
        (["--out", "{tmp}/out", "--by", "colour"], 2, "cannot sum by 'colour'"),
        (["--out", "{tmp}/out", "--threshold", "colour=1"], 2, "colour"),
        (["--out", "{tmp}/out", "--server", "http://127.0.0.1:9"], 1, "cannot reach the service"),
        ([], 2, "Missing option '--out'"),
        (["--out", "{tmp}/out", "--sign", "{tmp}/no.pem"], 2, "no.pem"),
    ],
)
def test_wrong_calls_end_in_one_line(
    arguments: list[str],
    code: int,
    told: str,
    data: Path,
    gallery: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("attrib.client._TRIES", 1)
    monkeypatch.setenv("ATTRIB_DATA", str(data))
    filled = [text.format(tmp=tmp_path, gallery=gallery) for text in arguments]
    result = attrib("audit", gallery, *filled)
    assert result.exit_code == code
    assert told in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_help_is_that_of_the_run_and_names_the_subcommands() -> None:
    for arguments in (["audit", "-h"], ["audit", "--help"]):
        result = attrib(*arguments)
        assert result.exit_code == 0
        assert result.stdout.startswith("Usage: attrib audit [OPTIONS] {GALLERY}")
        assert "--without FIELD=VALUE" in result.stdout


# -- over a service ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def service(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    copy = tmp_path_factory.mktemp("served") / "data"
    shutil.copytree(data, copy)
    log = copy.parent / "log"
    with log.open("w") as out:
        command = [sys.executable, "-m", "attrib", "serve", "--data", str(copy), "--port", "0"]
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        try:
            wait_until(lambda: "http://127.0.0.1:" in log.read_text(), 120)
            port = re.search(r"http://127\.0\.0\.1:(\d+)", log.read_text())
            assert port is not None
            yield f"http://127.0.0.1:{port[1]}"
        finally:
            process.terminate()
            process.wait(60)


def test_a_service_answers_the_same(
    service: str, done: tuple[Path, Any], gallery: Path, tmp_path: Path
) -> None:
    out, _ = done
    result = attrib("audit", gallery, "--server", service, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    here, there = table(out, "images"), table(tmp_path / "out", "images")
    assert [row["image"] for row in here] == [row["image"] for row in there]
    for mine, theirs in zip(here, there, strict=True):
        for name in ("path", "sha256", "prompt", "top_key", "flags", "width", "copy_of"):
            assert mine[name] == theirs[name]
        # Features may differ in their last bits: the service makes other batches.
        assert math.isclose(mine["top_influence"], theirs["top_influence"], rel_tol=1e-2)
    assert table(out, "rejects") == table(tmp_path / "out", "rejects")
    assert (tmp_path / "out" / "report.html").stat().st_size > 10_000
