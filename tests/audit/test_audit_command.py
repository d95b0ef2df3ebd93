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

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from folders import copy_folder
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
    count = sum(line["creator"] == name for line in table_of_training(data))
    images = "1 training image" if count == 1 else f"{count} training images"
    assert (
        f"as if the training images of creator={name} were not there: {images} left out, "
        f"{48 - count} remain\n"
    ) in result.stdout
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
        (
            ["--out", "{tmp}/out", "--without", "creator=Nobody Such"],
            2,
            "attrib: no training image has creator=Nobody Such: nothing would be left out; names "
            "are taken as they stand in the collection\n",
        ),
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
    monkeypatch.setattr("attrib.exchange._PATIENCE_S", 0)
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


@pytest.mark.parametrize(
    ("word", "meant"), [("verfy", "verify"), ("Verify", "verify"), ("dif", "diff")]
)
def test_a_slip_of_a_subcommand_is_told(
    word: str, meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = attrib("audit", word, "report/")
    assert result.exit_code == 2
    assert result.stderr == (
        f"attrib: there is no gallery {word!r}: did you mean `attrib audit {meant}`?\n"
    )
    Path(word).mkdir()  # a gallery may be called so
    assert "Missing option '--out'" in attrib("audit", word, "report/").stderr


def test_flags_are_told_in_the_order_of_the_report(
    data: Path, gallery: Path, tmp_path: Path
) -> None:
    result = attrib("audit", gallery, "--data", data, "--out", tmp_path / "out")
    titles = ["Near-copy", "One source", "One creator", "Nothing close", "Duplicate"]
    lines = [line.strip() for line in result.stdout.splitlines()]
    first = next(place for place, line in enumerate(lines) if line.endswith("Near-copy"))
    assert [line.split(maxsplit=1)[1] for line in lines[first : first + 5]] == titles


# -- over a service ----------------------------------------------------------------------------


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


def test_verify_names_what_is_gone_a_line_each(
    done: tuple[Path, Any], gallery: Path, tmp_path: Path
) -> None:
    out, _ = done
    shutil.copytree(gallery, tmp_path / "made")
    first, second, *_ = sorted(path.name for path in gallery.iterdir())
    (tmp_path / "made" / first).unlink()
    (tmp_path / "made" / second).unlink()
    result = attrib("audit", "verify", out, "--gallery", tmp_path / "made")
    assert result.exit_code == 0
    assert (
        "inputs     not checked  the gallery is not what it was: 2 gone\n"
        f"{'':24}gone: {first}\n{'':24}gone: {second}\n"
    ) in result.stdout
    result = attrib("audit", "verify", out, "--gallery", gallery, "--no-inputs")
    assert "the gallery was not read: that was not asked for" in result.stdout


def test_a_payout_in_the_report_does_not_block_it(
    done: tuple[Path, Any], data: Path, gallery: Path, tmp_path: Path
) -> None:
    out = tmp_path / "report"
    shutil.copytree(done[0], out)
    paid = attrib("payout", out, "--amount", "10", "--currency", "EUR", "--out", out / "pay.csv")
    assert paid.exit_code == 0
    again = attrib("audit", gallery, "--data", data, "--out", out)
    assert again.exit_code == 0
    assert again.stdout.startswith(f"{out} holds this audit already, finished: nothing was done\n")
    told = attrib("audit", "verify", out).stdout
    assert (
        "payouts    holds        1 payout lies here, not part of the audit, and follows from it\n"
        f"{'':24}pay.csv: payout of 10.00 EUR by creator, not part of the audit\n"
    ) in told
