"""`attrib dataset` as it is typed, and what it makes in `attrib tune` and `attrib evaluate`."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from attrib.cli import app
from attrib.commands.dataset import _name

Run = Callable[..., "subprocess.CompletedProcess[str]"]

JUDGE = "efficientnet-lite0-stages-48px"
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="module", autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Models and cached features stay out of the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATTRIB_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="module")
def invoke() -> Run:
    def attrib(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [str(argument) for argument in arguments]
        done = CliRunner().invoke(app, command, prog_name="attrib")
        return subprocess.CompletedProcess(command, done.exit_code, done.stdout, done.stderr)

    return attrib


@pytest.fixture(scope="module")
def options(pipeline_folder: Path, images_folder: Path) -> list[object]:
    return [
        "--generator", pipeline_folder, "--exemplars", images_folder, "--models", 7,
        "--per-model", 4, "--steps", 2, "--batch-size", 2, "--prior-images", 2,
        "--sampling-steps", 2, "--device", "cpu", "--judge", JUDGE,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def dataset(invoke: Run, options: list[object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("typed") / "set"
    done = invoke("dataset", "build", *options, "--out", out)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"{out}: 7 models (7 made now), 28 images"
    assert lines[-1] == f"card: {out / 'README.md'}"
    return out


def test_the_same_call_again_makes_nothing_and_says_so_in_json(
    invoke: Run, options: list[object], dataset: Path
) -> None:
    done = invoke("dataset", "build", *options, "--out", dataset, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    quality = json.loads((dataset / "quality.json").read_text())
    assert told == {
        "models": 7,
        "made": 0,
        "images": 28,
        "left_out": [
            "prompts of ours, left out: 19 of 80; pipeline does not read as far as <new1>",
            "15 of 28 prompts are longer than pipeline reads, their ends are cut off (first: "
            "'<new1> dog reflected in a puddle')",
        ],
        "failed": [model["id"] for model in quality["models"] if model["failed"]],
        "problems": [],
        "card": str(dataset / "README.md"),
    }


def test_check_and_card(invoke: Run, dataset: Path) -> None:
    done = invoke("dataset", "check", dataset, "--judge", JUDGE, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["problems"] == []
    assert len(found["models"]) == 7
    assert invoke("dataset", "card", dataset).stdout == f"{dataset / 'README.md'}\n"
    foreign = dataset / "synth" / "foreign.png"
    foreign.write_bytes(b"x")
    done = invoke("dataset", "check", dataset, "--judge", JUDGE)
    foreign.unlink()
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == (
        "attrib: synth/foreign.png does not belong to the dataset"
    )
    assert done.stderr.splitlines()[-1] == (
        f"attrib: {dataset} is not whole: 1 of its files is missing, changed or unknown"
    )


def test_a_build_of_what_is_not_whole_fails_and_says_so(
    invoke: Run, options: list[object], dataset: Path
) -> None:
    foreign = dataset / "synth" / "foreign.png"
    foreign.write_bytes(b"x")
    done = invoke("dataset", "build", *options, "--out", dataset, "--json")
    foreign.unlink()
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert told["problems"] == ["synth/foreign.png does not belong to the dataset"]
    assert "synth/foreign.png" in (dataset / "README.md").read_text()
    assert done.stderr.splitlines()[-1] == (
        f"attrib: {dataset} is not whole: 1 of its files is missing, changed or unknown"
    )


def test_a_generator_is_named_by_its_folder(
    pipeline_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _name(str(pipeline_folder)) == "pipeline"
    assert _name("someone/on-the-hub") == "someone/on-the-hub"
    monkeypatch.chdir(pipeline_folder)
    assert _name(".") == "pipeline"
    assert _name("./") == "pipeline"
    assert _name("unet/..") == "pipeline"


def test_a_model_is_tuned_on_it_and_evaluated_on_it(
    invoke: Run, dataset: Path, tmp_path: Path
) -> None:
    training = tmp_path / "distractors"
    training.mkdir()
    for path in sorted((EXAMPLES / "training" / "images").iterdir())[:40]:
        shutil.copy(path, training)
    done = invoke(
        "tune", dataset / "object_train.json", "--validation", dataset / "object_val.json",
        "--distractors", training, "--model", JUDGE, "--name", "mine", "--steps", 3,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = invoke(
        "evaluate", dataset / "object_test.json", "--model", "mine", "--distractors", training,
        "--exclude", dataset / "object_train.json", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = {one["attribution_model"]: one for one in json.loads(done.stdout)["results"]}
    precision = results["mine"]["cases"][0]["overall"]["average_precision"]["mean"]
    assert 0 < precision <= 1


def test_every_setting_can_be_typed(
    invoke: Run, pipeline_folder: Path, images_folder: Path, tmp_path: Path
) -> None:
    done = invoke(
        "dataset", "build", "--generator", pipeline_folder, "--exemplars", images_folder,
        "--out", tmp_path / "set", "--models", 2, "--per-model", 3, "--steps", 1,
        "--batch-size", 1, "--prior-images", 1, "--sampling-steps", 1, "--device", "cpu",
        "--judge", JUDGE, "--base-images", 3, "--no-augment", "--prior-weight", 0.5,
        "--splits", "0, 0,1", "--sampling-batch", 2, "--rank", 3, "--guidance", 2, "--seed", 5,
        "--learning-rate", 1e-4, "--gradient-checkpointing", "--method", "lora",
        "--exemplars-per-style", 4, "--threads", 1,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    plan = json.loads((tmp_path / "set" / "plan.json").read_text())
    assert plan["settings"] == {
        "base_images": 3,
        "class_field": None,
        "customization": {
            "alpha": 3,
            "augment": False,
            "batch_size": 1,
            "gradient_checkpointing": True,
            "learning_rate": 1e-4,
            "method": "lora",
            "optimizer": {
                **{"name": "AdamW", "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.01}
            },
            "prior_images": 1,
            "prior_weight": 0.5,
            "rank": 3,
            "rate": 1e-4,
            "steps": 1,
        },
        "exemplars_per_style": 4,
        "kind": "object",
        "models": 2,
        "per_model": 3,
        "sampling": {"batch_size": 2, "guidance": 2.0, "steps": 1},
        "seed": 5,
        "splits": [0.0, 0.0, 1.0],
    }
    assert plan["generator"]["threads"] == "1"
    assert [model["base_images"] for model in plan["models"]] == [3, 3]
    assert [path.name for path in (tmp_path / "set").glob("object_*")] == ["object_test.json"]
    weak = [line for line in done.stderr.splitlines() if "surely" in line]
    failed = json.loads((tmp_path / "set" / "quality.json").read_text())["models"]
    count = sum(model["failed"] for model in failed)
    assert weak == (
        [
            f"attrib: {count} of 2 models are not surely customized: the interval of their gain "
            "over the generator itself is not above 0; raise --steps or --learning-rate"
        ]
        if count
        else []
    )


def test_wrong_calls(invoke: Run, options: list[object], tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a cat\n")
    out = tmp_path / "set"
    call = ["dataset", "build", *options, "--out", out]
    for more, code, said in (
        (
            ["--generator", tmp_path],
            1,
            f"{tmp_path} is no diffusers pipeline: it has no model_index.json",
        ),
        (
            ["--prompts", prompts],
            2,
            f"{prompts}, line 1: a prompt needs one slot {{}} for <new1>, this has 0: 'a cat'",
        ),
        (["--prompts", tmp_path / "none"], 1, f"cannot read {tmp_path / 'none'}: No such file"),
        (["--out", prompts], 2, f"{prompts} is a file; name a folder with --out"),
        (["--learning-rate", "2"], 2, "a learning rate of 2 is not between 0 and 1"),
        (["--judge", "nobody"], 2, "nobody"),
        (["--splits", "1"], 2, "--splits '1' is not three shares, such as 0.6,0.15,0.25"),
        (["--splits", "nan,0,1"], 2, "splits are shares that sum to 1, not (nan, 0.0, 1.0)"),
        (["--splits", "0.5,0.5,0.5"], 2, "splits are shares that sum to 1, not (0.5, 0.5, 0.5)"),
        (["--prior-weight", "inf"], 2, "prior images and their weight cannot be negative"),
        (
            ["--prompts-from", "http://127.0.0.1:9/v1"],
            2,
            "--prompts-from and --prompts-model go together: an address, and a model",
        ),
        (
            ["--prompts-from", "http://h/v1", "--prompts-model", "m", "--prompts", prompts],
            2,
            "prompts are of a file or of an endpoint: --prompts or --prompts-from",
        ),
        (
            ["--prompts-from", "http://user:pw@h/v1", "--prompts-model", "m"],
            2,
            "--prompts-from takes an address without user, password and query",
        ),
        (
            ["--class-field", "genus"],
            2,
            "no exemplar can be chosen: images without a class word, left out: 9 "
            "(first: boat/2.png)",
        ),
    ):
        done = invoke(*call, *more)
        assert done.returncode == code, (more, done.stderr)
        assert len(done.stderr.splitlines()) == 1
        assert said in done.stderr
        assert not out.exists()
    done = invoke(*call, "--kind", "video")
    assert done.returncode == 2
    assert "'video' is not one of 'object', 'style'" in done.stderr
    done = invoke("dataset", "check", tmp_path)
    assert done.returncode == 1
    assert done.stderr == f"attrib: {tmp_path} holds no dataset of `attrib dataset build`\n"
    done = invoke("dataset", "card", tmp_path)
    assert (
        done.stderr == f"attrib: {tmp_path} holds no finished dataset of `attrib dataset build`\n"
    )
