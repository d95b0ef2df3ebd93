"""`attrib evaluate`, with the real default model on a part of the examples."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from embed.calibrator import Calibrator
from embed.embedder import Embedder
from embed.mapper import Mapper, MapperPair
from embed.model import AttributionModel
from embed.registry import find_model
from ingest.decode import DecodeLimits, decode

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Floats = NDArray[np.float64]

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
METRICS = ["recall_at_5", "recall_at_10", "recall_at_100", "average_precision"]


@pytest.fixture(scope="module")
def case_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six of the example models and a style, with four generated images each."""
    models = json.loads((EXAMPLES / "test_cases.json").read_text("utf-8"))
    models = [*models[:6], models[9]]
    for model in models:
        model["synth"] = {kind: paths[:2] for kind, paths in model["synth"].items()}
    path = tmp_path_factory.mktemp("cases") / "seven.json"
    path.write_text(json.dumps(models), "utf-8")
    return path


@pytest.fixture(scope="module")
def pictures(case_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 of the example training images, and copies of the exemplars of all ten models."""
    folder = tmp_path_factory.mktemp("distractors")
    exemplars = exemplars_of(EXAMPLES / "test_cases.json")
    others = sorted(set((EXAMPLES / "training" / "images").iterdir()) - exemplars)
    for file in [*others[:60], *exemplars]:
        shutil.copy(file, folder / file.name)
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def evaluated(
    invoke: Run, case_file: Path, pictures: Path, cache: Path, tmp_path: Path
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The evaluation of `case_file` among `pictures`, with further arguments."""

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        where = ("--root", EXAMPLES, "--distractors", pictures, "--cache", cache)
        nothing = ("--data", tmp_path / "no-data")
        return invoke("evaluate", case_file, *where, *nothing, *arguments)

    return run


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A model folder: other mappers, and a calibrator that was fitted on something."""
    backbone = find_model("efficientnet-lite0").backbone
    random = np.random.default_rng(0)
    sides = (Mapper.channel(random.uniform(0.2, 2, backbone.dim)) for _ in range(2))
    model = AttributionModel("mine", backbone, MapperPair(*sides), Calibrator(0.05, -0.02, "some"))
    model.save(tmp_path / "model")
    return tmp_path / "model"


def exemplars_of(path: Path) -> set[Path]:
    models = json.loads(path.read_text("utf-8"))
    return {EXAMPLES / file for model in models for file in model["exemplar"]}


def slow_metrics(models: list[dict[str, Any]], distractors: list[Path]) -> Floats:
    """(queries, metrics) by one sort of the whole gallery a query, of features made one by one."""
    backbone = find_model("efficientnet-lite0").backbone
    embedder = Embedder(backbone)
    seen: dict[Path, Floats] = {}

    def feature(path: Path) -> Floats:
        if path not in seen:
            image = decode(path.read_bytes(), DecodeLimits()).image
            pixels = backbone.preprocessing.apply(image)[None]
            base = embedder.embed(pixels).astype(np.float16).astype(np.float64)[0]
            seen[path] = base / np.linalg.norm(base)
        return seen[path]

    rows = []
    for model in models:
        own = [EXAMPLES / path for path in model["exemplar"]]
        gallery = np.stack([feature(path) for path in [*distractors, *own]])
        for path in [path for made in model["synth"].values() for path in made]:
            order = np.argsort(-(gallery @ feature(EXAMPLES / path)), stable=True)
            positions = np.flatnonzero(order >= len(distractors)) + 1
            recalls = [(positions <= k).mean() for k in (5, 10, 100)]
            rows.append([*recalls, (np.arange(1, len(own) + 1) / positions).mean()])
    return np.array(rows)


def test_figures_agree_with_a_slow_evaluation(
    evaluated: Run, case_file: Path, pictures: Path
) -> None:
    done = evaluated("--json")
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    assert content["schema"] == "attrib.evaluation/1"
    (result,) = content["results"]
    (case,) = result["cases"]
    # The exemplars of the seven are out, under whatever name; those of the other three are in.
    gone = {path.name for path in exemplars_of(case_file)}
    distractors = sorted(path for path in pictures.iterdir() if path.name not in gone)
    assert len(distractors) > 60
    facts = (case["case"], case["distractors"], case["models"], case["queries"])
    assert facts == ("seven", len(distractors), 7, 28)
    wanted = slow_metrics(json.loads(case_file.read_text("utf-8")), distractors).mean(axis=0)
    found = [case["overall"][metric]["mean"] for metric in METRICS]
    # Features of a batch and those of one image differ in their last bits of float16.
    assert found == pytest.approx(list(wanted), abs=0.01)
    assert 0 < found[0] < 1
    assert case["overall"]["recall_at_5"]["low"] < found[0] < case["overall"]["recall_at_5"]["high"]
    assert [part["label"] for part in case["by_kind"]] == ["object", "style"]
    assert result["calibration"] == {}


def test_the_exemplars_of_other_splits_are_taken_out(evaluated: Run) -> None:
    done = evaluated("--exclude", EXAMPLES, "--json")
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout)["results"]
    assert result["cases"][0]["distractors"] == 60


def test_tuned_beside_untuned(evaluated: Run, mine: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    arguments = ("--model", mine, "--through-index", "--by", "kind", "--out", out)
    done = evaluated(*arguments)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0][:7] == ["seven:", "28", "generated", "images", "of", "7", "models"]
    starts = [line[0] for line in lines if line]
    assert starts.index("efficientnet-lite0") < starts.index("mine")
    content = json.loads((out / "results.json").read_text("utf-8"))
    untuned, tuned = content["results"]
    interval = tuned["notes"]["minus_untuned"]["seven"]["average_precision"]
    means = [one["cases"][0]["overall"]["average_precision"]["mean"] for one in (untuned, tuned)]
    assert interval["mean"] == pytest.approx(means[1] - means[0], abs=1e-12)
    excludes = interval["low"] > 0 or interval["high"] < 0
    said = (
        f"mAP {interval['mean']:+.3f} [{interval['low']:+.3f}, {interval['high']:+.3f}] "
        f"({'excludes' if excludes else 'does not exclude'} zero)"
    )
    (words,) = (line for line in done.stdout.splitlines() if "minus" in line)
    assert words.startswith("seven: mine minus efficientnet-lite0: Recall@5 ")
    assert words.endswith(said)
    support = tuned["notes"]["calibration_scores"]["seven"]["scores"]["support_median"]
    heading = next(row for row, line in enumerate(lines) if line[-2:] == ["exemplars", "support"])
    assert lines[heading + 2][-1] == f"{support:,.0f}"
    assert any(line[:3] == ["Through", "an", "index:"] for line in lines)
    assert lines[-1] == ["report:", *str(out).split()]
    assert "## Through an index" in (out / "results.md").read_text("utf-8")

    again = evaluated(*arguments[:3], "--json")
    assert json.loads(again.stdout) == content
    alone = evaluated("--model", mine, "--no-untuned", "--json")
    (only,) = json.loads(alone.stdout)["results"]
    assert only["cases"] == tuned["cases"]
    assert only["notes"]["minus_untuned"] == {}


def test_two_reports_are_compared(
    invoke: Run, evaluated: Run, mine: Path, pictures: Path, case_file: Path, tmp_path: Path
) -> None:
    a, b, fewer = (tmp_path / name for name in ("a", "b", "fewer"))
    assert evaluated("--out", a).returncode == 0
    assert evaluated("--model", mine, "--out", b).returncode == 0
    done = invoke("evaluate", "--compare", a, b, "--json")
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    assert (content["a"], content["b"]) == ("efficientnet-lite0", "mine")
    noted = json.loads((b / "results.json").read_text("utf-8"))["results"][1]["notes"]
    for metric in METRICS:
        difference = content["cases"][0][metric]["difference"]
        assert difference == noted["minus_untuned"]["seven"][metric]
    table = invoke("evaluate", "--compare", a, b).stdout
    assert table.startswith("A = efficientnet-lite0, B = mine; ")
    same = invoke("evaluate", "--compare", b, b, "--model", "efficientnet-lite0", "--json")
    assert json.loads(same.stdout)["cases"][0]["recall_at_5"]["difference"]["mean"] == 0

    models = json.loads(case_file.read_text("utf-8"))
    (tmp_path / "some" / "seven.json").parent.mkdir()
    (tmp_path / "some" / "seven.json").write_text(json.dumps(models[:6]), "utf-8")
    arguments = ("--distractors", pictures, "--root", EXAMPLES, "--exclude", EXAMPLES)
    arguments = (*arguments, "--out", fewer, "--cache", tmp_path / "cache")
    assert invoke("evaluate", tmp_path / "some", *arguments).returncode == 0
    refused(
        invoke("evaluate", "--compare", a, fewer),
        2,
        f"{a} and {fewer} are about different generated images: 28 and 24, of which 24 are common; "
        "evaluate both on the same test cases",
    )


def test_the_data_folders_model_and_images(
    invoke: Run, built: Path, training: Path, case_file: Path, cache: Path
) -> None:
    arguments = ("--root", EXAMPLES, "--data", built, "--cache", cache, "--json")
    done = invoke("evaluate", case_file, *arguments)
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout)["results"]
    assert result["attribution_model"] == "efficientnet-lite0"
    exemplars = {path.read_bytes() for path in exemplars_of(case_file)}
    images = [path.read_bytes() for path in (training / "images").glob("*.jpg")]
    left = sum(image not in exemplars for image in images)
    assert left < len(images) == 49
    assert result["cases"][0]["distractors"] == left


# -- what is refused -------------------------------------------------------------------------------


def refused(done: subprocess.CompletedProcess[str], code: int, line: str) -> None:
    assert done.stderr == f"attrib: {line}\n"
    assert done.returncode == code
    assert done.stdout == ""


def test_wrong_calls(invoke: Run, case_file: Path, tmp_path: Path) -> None:
    nothing = tmp_path / "nothing"
    refused(
        invoke("evaluate"),
        2,
        "give AbC test cases, or --compare with the folders of two reports",
    )
    refused(
        invoke("evaluate", case_file, "--data", nothing),
        2,
        f"name the distractors with --distractors, or a data folder with --data; {nothing} is none",
    )
    refused(
        invoke("evaluate", case_file, "--compare", "a", "b"),
        2,
        "--compare takes the folders of two reports, and no test case",
    )
    three = ("--model", "x", "--model", "y", "--model", "z")
    refused(
        invoke("evaluate", "--compare", "a", "b", *three),
        2,
        "--compare takes one --model for both reports, or one for each",
    )
    one = invoke("evaluate", "--compare", "a")
    assert one.returncode == 2
    assert "Option '--compare' requires 2 arguments." in one.stderr
    refused(
        invoke("evaluate", "--compare", nothing, nothing),
        1,
        f"{nothing} has no results.parquet; it is not a report of an evaluation",
    )


def test_cases_that_do_not_hold(
    evaluated: Run, invoke: Run, case_file: Path, pictures: Path, cache: Path, tmp_path: Path
) -> None:
    def tried(case: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        where = ("--root", EXAMPLES, "--distractors", pictures, "--cache", cache)
        return invoke("evaluate", case, *where, "--data", tmp_path / "no-data", *arguments)

    text = tmp_path / "text.json"
    text.write_text("no JSON", "utf-8")
    refused(
        tried(text),
        1,
        f"{text} cannot be read as JSON: Expecting value: line 1 column 1 (char 0)",
    )
    models = json.loads(case_file.read_text("utf-8"))
    none = tmp_path / "none.json"
    none.write_text(json.dumps([{**models[0], "exemplar": []}]), "utf-8")
    refused(tried(none), 1, f"{none}: model {models[0]['model_id']} has no exemplar")
    lost = tmp_path / "lost.json"
    changed = {**models[0], "exemplar": ["training/gone.jpg"]}
    lost.write_text(json.dumps([changed, models[1]]), "utf-8")
    missing = f"lost: 1 of its image files are missing under {EXAMPLES} (training/gone.jpg)"
    refused(tried(lost), 1, f"{missing}; get them, or leave them out with --skip-missing")
    skipped = tried(lost, "--skip-missing", "--json")
    assert skipped.returncode == 0
    assert (
        f"attrib: lost: model {changed['model_id']}: left out: its exemplars are missing "
        "(training/gone.jpg)\n"
    ) in skipped.stderr
    assert json.loads(skipped.stdout)["results"][0]["cases"][0]["models"] == 1
    refused(
        evaluated("--model", "efficientnet-lite0", "--model", "efficientnet-lite0"),
        2,
        "two of the models are named efficientnet-lite0; evaluate each once",
    )


class Harm:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch harmed",)


def test_feature_files(invoke: Run, tmp_path: Path) -> None:
    random = torch.Generator().manual_seed(0)

    def saved(name: str, dim: int, **changes: Any) -> Path:
        exemplars = torch.randn(2, dim, generator=random)
        content = {
            "exemplar_tensors": exemplars,
            "exemplar_chunks": [(0, 1), (1, 2)],
            "synth_tensors": {"gpt": exemplars * 2},
            "synth_ids": {"gpt": [0, 1]},
            **changes,
        }
        torch.save(content, tmp_path / name)
        return tmp_path / name

    subset = tmp_path / "laion_subset.pth"
    feats = torch.randn(30, 1280, generator=random)
    torch.save({"feats": feats, "paths": [f"{i}.jpg" for i in range(30)]}, subset)
    arguments = ("--distractors", subset, "--data", tmp_path / "no-data", "--json")
    done = invoke("evaluate", saved("fine.pth", 1280), *arguments)
    assert done.returncode == 0, done.stderr
    (case,) = json.loads(done.stdout)["results"][0]["cases"]
    assert (case["distractors"], case["overall"]["average_precision"]["mean"]) == (30, 1)

    refused(
        invoke("evaluate", saved("narrow.pth", 768), *arguments),
        1,
        "narrow has features of 768 numbers, efficientnet-lite0 takes 1280; name a model on the "
        "backbone that they were made with",
    )
    broken = torch.full((2, 1280), float("nan"))
    refused(
        invoke("evaluate", saved("nan.pth", 1280, exemplar_tensors=broken), *arguments),
        1,
        "nan: 2 of 2 exemplars have features that are not finite",
    )
    code = tmp_path / "code.pth"
    code.write_bytes(pickle.dumps({"exemplar_tensors": Harm()}, protocol=2))
    refused(
        invoke("evaluate", code, *arguments),
        1,
        f"{code} is refused: its pickle carries code (posix.system); save the tensors as "
        "safetensors",
    )
    assert not Path("harmed").exists()
