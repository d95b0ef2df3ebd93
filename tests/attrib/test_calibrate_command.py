"""`attrib calibrate`, with the real default model on a part of the examples."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's models and cached features."""
    monkeypatch.setenv("ATTRIB_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="module")
def cases(exemplar: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of the example models, with four generated images each."""
    models = json.loads((EXAMPLES / "test_cases.json").read_text("utf-8"))
    here = [model for model in models if model["exemplar"] == [f"training/{exemplar}"]]
    models = [*here, *(model for model in models if model not in here)][:2]
    for model in models:
        model["synth"] = {kind: paths[:2] for kind, paths in model["synth"].items()}
    path = tmp_path_factory.mktemp("cases") / "two.json"
    path.write_text(json.dumps(models), encoding="utf-8")
    return path


def info(invoke: Run, data: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(invoke("info", "--data", data, "--json").stdout)
    return facts


def test_a_collection_calibrates_itself(run: Run, invoke: Run, own: Path, generated: Path) -> None:
    before = info(invoke, own)
    done = run("calibrate", "--self", "--data", own, "--samples", "20")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line[:16].strip() for line in lines[:7]] == [
        "fitted on",
        "calibrator",
        "divergence",
        "as answered",
        "on exemplars",
        "support",
        "error",
    ]
    said = "itself: 20 augmented images of 49 in clipart (self-calibration)"
    assert lines[0] == f"fitted on        {said}"
    assert lines[-1] == f"stored in {own}"
    after = info(invoke, own)
    assert after["calibrator"]["fitted_on"] == said
    assert after["calibrator"]["tau"] != before["calibrator"]["tau"]
    assert after["feature_fingerprint"] == before["feature_fingerprint"]
    assert after["images"] == before["images"]
    (answer,) = json.loads(invoke("query", generated, "--data", own, "--json").stdout)
    assert answer["calibrator"]["fitted_on"] == said


def test_json_has_the_fit_and_a_dry_run_stores_nothing(invoke: Run, own: Path) -> None:
    before = info(invoke, own)
    command = ("calibrate", "--self", "--data", own, "--samples", "12", "--dry-run", "--json")
    done = invoke(*command)
    assert done.returncode == 0, done.stderr
    fit = json.loads(done.stdout)
    assert fit["objective"] == "exact"
    assert fit["kl_after"] <= fit["kl_softmax"]
    assert fit["calibrator"]["b"] >= 0
    assert fit["finite"]["b"] < 0
    assert fit["queries"] == 12
    assert fit["gallery"] == 49
    assert 0 <= fit["reliability"]["error"] <= 1
    assert fit["stored_in"] == ""
    assert info(invoke, own)["fingerprint"] == before["fingerprint"]
    with_cut_off = json.loads(invoke(*command, "--finite").stdout)
    assert with_cut_off["objective"] == "published"
    assert with_cut_off["calibrator"]["b"] < 0


def some_training(folder: Path, first: int, count: int) -> Path:
    """Some of the example training images, without their metadata."""
    folder.mkdir()
    files = sorted((EXAMPLES / "training" / "images").iterdir())
    for file in files[first : first + count]:
        shutil.copy(file, folder)
    return folder


def test_an_ingest_calibrates_the_collection_once(invoke: Run, tmp_path: Path) -> None:
    data, one = tmp_path / "data", some_training(tmp_path / "one", 0, 64)
    done = invoke("ingest", one, "--data", data, "--no-calibrate", "--json")
    assert done.returncode == 0, done.stderr
    left = json.loads(done.stdout)
    assert (left["calibrated"], left["calibrator"]["fitted_on"]) == (False, "")
    said = "itself: 64 augmented images of 64 in one (self-calibration at ingest)"
    done = invoke("ingest", one, "--data", data)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"one: 0 ingested, 64 unchanged; {data} now holds 64 training images",
        f"calibrated on {said}",
    ]
    first = info(invoke, data)
    assert first["calibrator"]["fitted_on"] == said
    assert first["calibrator"]["b"] >= 0
    again = json.loads(invoke("ingest", one, "--data", data, "--json").stdout)
    assert (again["calibrated"], again["calibrator"]) == (False, first["calibrator"])
    two = some_training(tmp_path / "two", 64, 63)
    grown = json.loads(invoke("ingest", two, "--data", data, "--json").stdout)
    assert (grown["total"], grown["calibrated"]) == (127, False)
    three = some_training(tmp_path / "three", 127, 1)
    twice = json.loads(invoke("ingest", three, "--data", data, "--json").stdout)
    assert (twice["total"], twice["calibrated"], twice["calibration_error"]) == (128, True, "")
    assert twice["calibrator"]["fitted_on"] == (
        "itself: 128 augmented images of 128 in one, three, two (self-calibration at ingest)"
    )
    assert info(invoke, data)["calibrator"] == twice["calibrator"]


def test_an_ingest_that_cannot_calibrate_is_one(invoke: Run, tmp_path: Path) -> None:
    data, one = tmp_path / "data", some_training(tmp_path / "one", 0, 64)
    assert invoke("ingest", one, "--data", data, "--no-calibrate").returncode == 0
    shutil.rmtree(one)
    shutil.rmtree(data / "features" / "one" / "thumbnails")
    two = some_training(tmp_path / "two", 64, 2)
    done = invoke("ingest", two, "--data", data)
    assert done.returncode == 0
    assert done.stdout == f"two: 2 ingested; {data} now holds 66 training images\n"
    assert (
        "attrib: not calibrated: files or thumbnails are left of 2 drawn images, 64 are needed; "
        f"all images are in, and `attrib calibrate --self --data {data}` tries again\n"
    ) in done.stderr
    assert info(invoke, data)["calibrator"]["fitted_on"] == ""


def test_a_calibrator_of_the_models_is_kept(invoke: Run, tmp_path: Path) -> None:
    data, one = tmp_path / "data", some_training(tmp_path / "one", 0, 64)
    done = invoke("ingest", one, "--data", data, "--model", "efficientnet-lite0-clipart")
    assert done.returncode == 0, done.stderr
    assert "calibrated" not in done.stdout
    assert info(invoke, data)["calibrator"]["fitted_on"].startswith("object_val ")


def test_test_cases_calibrate_the_collection(
    invoke: Run, own: Path, cases: Path, home: Path, training: Path
) -> None:
    done = invoke("calibrate", cases, "--root", EXAMPLES, "--data", own, "--json", "--finite")
    assert done.returncode == 0, done.stderr
    fit = json.loads(done.stdout)
    exemplars = {
        path for model in json.loads(cases.read_text("utf-8")) for path in model["exemplar"]
    }
    there = [path for path in exemplars if (training / path.removeprefix("training/")).is_file()]
    assert there
    # No exemplar is a distractor, nor is the copy of one, which has another name.
    left = 49 - len(there) - 1
    assert fit["calibrator"]["fitted_on"] == f"two (2 models, {left} distractors)"
    assert (fit["queries"], fit["models"]) == (8, 2)
    assert fit["calibrator"]["b"] < 0
    assert fit["kl_after"] <= fit["kl_before"]
    assert fit["stored_in"] == str(own)
    assert info(invoke, own)["calibrator"] == fit["calibrator"]


def test_test_cases_calibrate_a_models_folder(
    invoke: Run, own: Path, cases: Path, home: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    assert invoke("models", "export", "efficientnet-lite0", folder).returncode == 0
    before = info(invoke, own)
    done = invoke("calibrate", cases, "--root", EXAMPLES, "--data", own, "--model", folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"stored in {folder}"
    shown = json.loads(invoke("models", "show", folder, "--json").stdout)
    assert shown["calibrator"]["fitted_on"].startswith("two (2 models, ")
    assert info(invoke, own)["fingerprint"] == before["fingerprint"]


def test_wrong_calls(invoke: Run, built: Path, cases: Path, tmp_path: Path) -> None:
    def wrong(code: int, line: str, *arguments: str | Path) -> None:
        done = invoke("calibrate", *arguments)
        assert done.stderr == f"attrib: {line}\n"
        assert done.returncode == code
        assert done.stdout == ""

    one = "give AbC test cases, or --self to calibrate without any; one of the two"
    wrong(2, one, "--data", built)
    wrong(2, one, cases, "--self", "--data", built)
    alone = "--self takes its model and images from --data alone"
    wrong(2, alone, "--self", "--data", built, "--model", "efficientnet-lite0")
    both = "the exact objective has no cut-off; leave one of the two out"
    wrong(2, both, "--self", "--data", built, "--objective", "exact", "--finite")
    backbone = (
        "'efficientnet-lite0' is a backbone, whose calibrator cannot be stored; leave --model out "
        "to calibrate the data folder's collection, or add --dry-run"
    )
    wrong(2, backbone, cases, "--root", EXAMPLES, "--data", built, "--model", "efficientnet-lite0")
    nothing = tmp_path / "nothing"
    line = f"{nothing} is no attrib data folder; make one with `attrib ingest SOURCE --data"
    done = invoke("calibrate", "--self", "--data", nothing)
    assert done.returncode == 1
    assert done.stderr == f"attrib: {line} {nothing}`\n"
