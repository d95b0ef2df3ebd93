"""`attrib audit --server` and its verification, beside the same on a data folder."""

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

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from example_audit import attrib, example_data, example_gallery, table, table_of_training
from folders import copy_folder
from programs import wait_until


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return example_data(tmp_path_factory.mktemp("training"))


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return example_gallery(tmp_path_factory.mktemp("gallery") / "made")


@pytest.fixture(scope="module")
def done(data: Path, gallery: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    out = tmp_path_factory.mktemp("audit") / "report"
    return out, attrib("audit", gallery, "--data", data, "--out", out)


def test_fields_and_what_is_left_out_over_a_service(
    service: str, data: Path, gallery: Path, tmp_path: Path
) -> None:
    name = next(line["creator"] for line in table_of_training(data) if line["creator"])
    options = ("--by", "category", "--without", f"creator={name}")
    asked = {"here": ("--data", data), "there": ("--server", service)}
    told = {
        place: attrib("audit", gallery, *who, "--out", tmp_path / place, *options)
        for place, who in asked.items()
    }
    assert told["there"].exit_code == 0, told["there"].stderr
    (said, expected) = (
        [line for line in told[place].stdout.splitlines() if "left out" in line]
        for place in ("there", "here")
    )
    assert len(said) == 1
    assert said == expected
    shares = [
        {
            line["value"]: (round(line["share"], 3), line["training_images"])
            for line in table(tmp_path / place, "creators")
            if line["field"] == "category"
        }
        for place in asked
    ]
    assert len(shares[0]) > 3
    assert shares[0] == shares[1]
    out = tmp_path / "refused"
    for option, value, message in (
        (
            "--by",
            "categry",
            "cannot group by 'categry': no training image has it; they have caption,",
        ),
        ("--without", "creator=Nobody", "no training image has creator=Nobody: nothing would be"),
        ("--without", "category=x", "cannot filter by 'category': the fields to filter by are"),
    ):
        result = attrib("audit", gallery, "--server", service, "--out", out, option, value)
        assert result.exit_code == 2
        assert result.stderr.startswith(f"attrib: {message}")
        assert result.stderr.count("\n") == 1
        assert not out.exists()


@pytest.fixture(scope="module")
def service(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    copy = copy_folder(data, tmp_path_factory.mktemp("served") / "data")
    log = copy.parent / "log"
    with log.open("w") as out:
        command = [sys.executable, "-m", "attrib", "serve", "--data", str(copy), "--port", "0"]
        command.append("--show-paths")
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
    paths = [
        {row["training_id"]: row["path"] for row in table(folder, "attributions")}
        for folder in (out, tmp_path / "out")
    ]
    both = paths[0].keys() & paths[1].keys()
    assert both
    assert all(Path(paths[0][key]).is_absolute() for key in both)
    assert [paths[0][key] for key in both] == [paths[1][key] for key in both]
    assert (tmp_path / "out" / "report.html").stat().st_size > 10_000


def checks(result: Any) -> dict[str, tuple[str, str]]:
    """State and words by name."""
    return {
        one["name"]: (one["state"], one["words"]) for one in json.loads(result.stdout)["checks"]
    }


def test_a_service_attributes_the_sample_again(
    service: str, done: tuple[Path, Any], data: Path, gallery: Path, tmp_path: Path
) -> None:
    out, _ = done
    asked = ("audit", "verify", out, "--gallery", gallery, "--sample", "5")
    local = attrib(*asked, "--data", data)
    result = attrib(*asked, "--server", service)
    assert result.exit_code == local.exit_code == 0, result.stderr
    told = [re.sub(r"[\d.e-]+ of influence", "", text.stdout) for text in (local, result)]
    told = [re.sub(r"records  .*\n", "", text) for text in told]
    assert told[0] == told[1]  # the same lines, but for the rounding of features
    assert (
        "records    not checked  a service tells no training records by themselves: those of the "
        "sample are compared with its answers, the others were not\n"
    ) in result.stdout
    assert "sample     holds        5 of 12 images, drawn at random, were attributed" in told[1]
    assert result.stdout.endswith(f"{out} holds, as far as it was checked\n")

    altered = tmp_path / "altered"
    shutil.copytree(out, altered)
    give_to_others(altered)
    result = attrib("audit", "verify", altered, "--gallery", gallery, "--server", service, "--json")
    assert result.exit_code == 1
    state, words = checks(result)["sample"]
    assert state == "fails"
    assert "of 12 of 12 images attributed again, 2 moved by more than 1% of influence: " in words


def give_to_others(report: Path) -> None:
    """Have two images change their answers; hashes and sums stay right."""
    from search.audit.manifest import write_manifest

    first, second = (row["image"] for row in table(report, "images")[:2])
    other = {first: second, second: first}
    lines = table(report, "attributions")
    images = table(report, "images")
    order = [row["image"] for row in images]
    for line in lines:
        line["image"] = other.get(line["image"], line["image"])
    lines.sort(key=lambda line: order.index(line["image"]))
    own = ("image", "path", "sha256", "prompt", "metadata", "width", "height")
    kept = [{name: row[name] for name in own} for row in images[:2]]
    images[:2] = [{**images[1], **kept[0]}, {**images[0], **kept[1]}]
    for name, rows in (("attributions", lines), ("images", images)):
        path = report / f"{name}.parquet"
        pq.write_table(pa.Table.from_pylist(rows, pq.read_schema(path)), path)
    write_manifest(report)


def test_a_service_that_cannot_answer_for_the_audit(
    service: str,
    done: tuple[Path, Any],
    data: Path,
    gallery: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, _ = done
    changed = tmp_path / "changed"
    shutil.copytree(out, changed)
    summary = json.loads((changed / "summary.json").read_text())
    fingerprint = summary["model"]["feature_fingerprint"]
    summary["model"]["feature_fingerprint"] = "of-another"
    (changed / "summary.json").write_text(json.dumps(summary))
    result = attrib("audit", "verify", changed, "--gallery", gallery, "--server", service, "--json")
    state, words = checks(result)["sample"]
    assert state == "not checked"
    name = summary["model"]["name"]
    assert words == (
        f"no image was attributed again: the audit was made with model {name} (of-another), and "
        f"the service has {name} ({fingerprint})"
    )
    result = attrib("audit", "verify", out, "--server", service, "--data", data)
    assert result.exit_code == 2
    assert result.stderr == "attrib: --data and --server do not go together: name one of them\n"
    monkeypatch.setenv("ATTRIB_SERVER", "http://127.0.0.1:9")
    monkeypatch.setattr("attrib.exchange._PATIENCE_S", 0)
    assert attrib("audit", "verify", out, "--data", data).exit_code == 0
    result = attrib("audit", "verify", out)
    assert result.exit_code == 1
    assert result.stderr.startswith("attrib: cannot reach the service at http://127.0.0.1:9: ")
    assert result.stderr.count("\n") == 1


def test_a_service_that_allows_less(
    service: str, data: Path, gallery: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert attrib("audit", gallery, "--data", data, "--out", out, "--k", "1001").exit_code == 0
    result = attrib("audit", "verify", out, "--gallery", gallery, "--server", service)
    assert result.exit_code == 0
    assert (
        "sample     not checked  no image was attributed again: the service does not allow what "
        "the audit asked: k must be "
    ) in result.stdout
