"""`attrib audit` as it is typed, with the shipped model and the examples."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from example_audit import attrib, example_data, example_gallery, table, table_of_training


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
