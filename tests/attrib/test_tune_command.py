"""`attrib tune` as it is typed, on the example models with the real backbone."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from embed.model import load
from evaluation.cases import read_case
from evaluation.overlap import contents_of, facts_of

Run = Callable[..., "subprocess.CompletedProcess[str]"]

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
BACKBONE = "efficientnet-lite0-stages-48px"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The user's models and cached features, kept from test to test."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTRIB_HOME", str(home))


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Five of the example models to tune on and three to validate on, four images of each."""
    models = json.loads((EXAMPLES / "test_cases.json").read_text("utf-8"))[:8]
    for model in models:
        model["synth"] = {kind: paths[:2] for kind, paths in model["synth"].items()}
    folder = tmp_path_factory.mktemp("cases")
    (folder / "learn.json").write_text(json.dumps(models[:5]), encoding="utf-8")
    (folder / "check.json").write_text(json.dumps(models[5:]), encoding="utf-8")
    return folder / "learn.json", folder / "check.json"


@pytest.fixture
def options(training: Path, splits: tuple[Path, Path]) -> list[str | Path]:
    return ["--root", EXAMPLES, "--distractors", training, "--model", BACKBONE, "--steps", "20"]


def test_a_model_is_tuned_calibrated_and_kept(
    invoke: Run, splits: tuple[Path, Path], options: list[str | Path], home: Path
) -> None:
    learn, check = splits
    command = ["tune", learn, "--validation", check, *options, "--name", "mine"]
    done = invoke(*command)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"mine: linear mappers 1904 -> 512 on {BACKBONE}, best after ")
    assert lines[3] == (
        "  measured on 3 validation models, 12 generated images, "
        f"{lines[3].split()[-2]} distractors"
    )
    assert lines[-1] == f"kept in {home}/models/mine; use it with --model mine"
    model = load(home / "models" / "mine")
    assert model.calibrator.fitted_on.startswith("check (3 models, ")
    assert model.tuned_on == "learn (5 models)"
    case = read_case(learn, EXAMPLES)
    facts = facts_of([contents_of(one, EXAMPLES) for one in case.models])
    assert {name: model.card["tuning"][name] for name in facts} == facts
    assert len(facts["generated"]) == 20
    assert model.card["tuning"]["kinds"] == {"object": 5}
    measured = model.card["tuning"]["validation"]["map"]
    assert f"{measured['untuned']:.3f} untuned, {measured['tuned']:.3f} tuned;" in lines[1]
    worse = "ranks the exemplars of the validation models worse than its backbone"
    assert (worse in done.stderr) == (measured["tuned"] < measured["untuned"])
    scored = invoke(
        "evaluate", check, "--root", EXAMPLES, "--model", "mine", "--json",
        "--distractors", options[3], "--exclude", learn,
    )  # fmt: skip
    results = {one["attribution_model"]: one for one in json.loads(scored.stdout)["results"]}
    found = results["mine"]["cases"][0]["overall"]["average_precision"]["mean"]
    assert found == pytest.approx(measured["tuned"], abs=1e-9)

    again = invoke(*command[:-1], "again", "--json")
    assert json.loads(again.stdout)["tuning"] == model.card["tuning"]
    second = load(home / "models" / "again")
    assert second.feature_fingerprint == model.feature_fingerprint

    listed = invoke("models", "list", "--json")
    rows = {row["name"]: row for row in json.loads(listed.stdout)}
    assert rows["mine"]["tuned_on"] == "learn (5 models)"

    seen = invoke(
        "evaluate", learn, "--root", EXAMPLES, "--model", "mine", "--distractors", options[3]
    )
    assert seen.returncode == 2
    assert "mine was tuned on 5 of these models" in seen.stderr


def test_validation_models_are_split_off_where_none_are_named(
    invoke: Run, splits: tuple[Path, Path], options: list[str | Path], home: Path
) -> None:
    done = invoke("tune", splits[0], *options, "--name", "split", "--kind", "channel")
    assert done.returncode == 0, done.stderr
    model = load(home / "models" / "split")
    assert model.mappers.real_mapper.kind == "channel"
    assert model.card["tuning"]["validation"]["models"] == 1
    assert len(model.card["tuning"]["models"]) == 4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"--validation": "learn"}, "stands in tuning and validation"),
        ({"--name": "efficientnet-lite0"}, "is a backbone's name"),
        ({"--name": "efficientnet-lite0-clipart"}, "comes with attrib"),
        ({"--shrinkage": "-1"}, "shrinkage must be above 0"),
        ({"--temperature": "nan"}, "temperature must be above 0"),
        ({"--model": "nothing-like-it"}, "unknown model"),
    ],
)
def test_wrong_calls(
    invoke: Run,
    splits: tuple[Path, Path],
    options: list[str | Path],
    change: dict[str, str],
    said: str,
) -> None:
    chosen: dict[str, str | Path] = {"--name": "wrong", "--validation": "check"}
    chosen.update(zip(map(str, options[::2]), options[1::2], strict=True))
    chosen.update(change)
    chosen["--validation"] = splits[0] if chosen["--validation"] == "learn" else splits[1]
    done = invoke("tune", splits[0], *[word for pair in chosen.items() for word in pair])
    assert done.returncode == 2, done.stdout
    last = done.stderr.strip().splitlines()
    assert len(last) == 1
    assert said in last[0]


def test_show_gives_the_card_of_the_model_that_comes_with_attrib(invoke: Run) -> None:
    shown = json.loads(invoke("models", "show", "efficientnet-lite0-clipart", "--json").stdout)
    assert shown["card"]["tuning"]["settings"]["start"] == "aligned"
    assert shown["card"]["calibration"]["objective"] == "exact"
