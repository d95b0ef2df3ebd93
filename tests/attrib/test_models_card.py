"""Model cards: what `attrib models card` prints, and the figures that `--write-card` puts in."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from embed.calibrator import Calibrator
from embed.model import load, save_calibrator, save_card
from embed.registry import export_model, find_model
from evaluation.card_page import card_page
from ingest.errors import ModelError

Run = Callable[..., "subprocess.CompletedProcess[str]"]

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
SHIPPED = "efficientnet-lite0-clipart"


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder of one's own with the model that comes with attrib, without figures of a test."""
    export_model(SHIPPED, tmp_path / "mine")
    model = load(tmp_path / "mine")
    # The shipped model was tuned on some of the example models.
    tuning = {**model.card["tuning"], "generated": [], "exemplars": []}
    save_card(tmp_path / "mine", {"tuning": tuning})
    return tmp_path / "mine"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("distractors")
    for file in sorted((EXAMPLES / "training" / "images").iterdir())[:24]:
        shutil.copy(file, folder / file.name)
    return folder


@pytest.fixture(scope="module")
def case_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = json.loads((EXAMPLES / "test_cases.json").read_text("utf-8"))
    models = [*models[:2], models[9]]
    for model in models:
        model["synth"] = {kind: paths[:1] for kind, paths in model["synth"].items()}
    path = tmp_path_factory.mktemp("cases") / "three.json"
    path.write_text(json.dumps(models), "utf-8")
    return path


@pytest.fixture
def evaluated(
    invoke: Run, case_file: Path, pictures: Path, tmp_path: Path
) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        where = ("--root", EXAMPLES, "--distractors", pictures, "--cache", tmp_path / "cache")
        nothing = ("--data", tmp_path / "no-data")
        return invoke("evaluate", case_file, *where, *nothing, *arguments)

    return run


def section(page: str, title: str) -> str:
    return page.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0].strip()


def test_the_page_in_the_docs_is_the_card_of_the_model_that_comes_with_attrib(
    invoke: Run, tmp_path: Path
) -> None:
    page = (ROOT / "docs" / "models" / f"{SHIPPED}.md").read_text("utf-8")
    done = invoke("models", "card", SHIPPED)
    assert done.returncode == 0, done.stderr
    hint = f"run: attrib models card {SHIPPED} --out docs/models/{SHIPPED}.md"
    assert done.stdout == page, hint
    out = tmp_path / "new" / "card.md"
    written = invoke("models", "card", SHIPPED, "--out", out)
    assert written.stdout == f"{SHIPPED}'s card written to {out}\n"
    assert out.read_text("utf-8") == page


def test_the_shipped_card_says_what_a_card_has_to_say() -> None:
    model = find_model(SHIPPED)
    page = card_page(model)
    assert f"| fingerprint | `{model.fingerprint}` |" in page
    assert "46 customized models (35 object, 11 style)" in section(page, "What it was tuned on")
    assert "| shrinkage | 3.0 |" in section(page, "Hyperparameters")
    assert "| objective | exact |" in section(page, "Calibrator")
    assert "(+0.028 to +0.206)" in section(page, "Validation")
    test = section(page, "Test")
    for case, found in model.card["test"].items():
        assert found["fingerprint"] == model.fingerprint
        mean = found["metrics"]["recall_at_5"]["mean"]
        assert f"| `{SHIPPED}` | {mean:.3f} (" in test.split(f"### {case}\n")[1]
    assert "changed since" not in test
    assert "64 px" in section(page, "Domain and limits")
    assert "attrib tune object_train.json style_train.json" in section(page, "How to make it again")


def test_cards_of_models_of_which_little_is_known(invoke: Run) -> None:
    done = invoke("models", "card", "efficientnet-lite0")
    assert done.returncode == 0, done.stderr
    page = done.stdout
    assert section(page, "What it was tuned on").startswith("Nothing: ")
    assert section(page, "Calibrator") == "Not fitted: percentages rest on default settings."
    assert section(page, "Hyperparameters") == "Not recorded."
    assert "\n\n\n" not in page
    official = card_page(replace(find_model("efficientnet-lite0"), tuned_on="mapper.pth"))
    assert section(official, "What it was tuned on") == "mapper.pth. More is not recorded."


def test_figures_of_a_test_are_kept(evaluated: Run, invoke: Run, mine: Path) -> None:
    before = load(mine)
    done = evaluated("--model", mine, "--write-card", "--json")
    assert done.returncode == 0, done.stderr
    after = load(mine)
    assert after.full_fingerprint == before.full_fingerprint
    assert after.card["tuning"] == before.card["tuning"]
    untuned, tuned = json.loads(done.stdout)["results"]
    found = after.card["test"]["three"]
    facts = {name: found[name] for name in ("models", "kinds", "queries", "distractors")}
    distractors = tuned["cases"][0]["distractors"]
    wanted = {"models": 3, "kinds": {"object": 2, "style": 1}, "queries": 6}
    assert facts == {**wanted, "distractors": distractors}
    for kept, result in ((found, tuned), (found["untuned"], untuned)):
        overall = result["cases"][0]["overall"]
        assert kept["metrics"] == {name: overall[name] for name in kept["metrics"]}
        assert len(kept["metrics"]) == 4
    noted = tuned["notes"]["minus_untuned"]["three"]
    for metric, ends in found["minus_untuned"].items():
        assert ends == {end: noted[metric][end] for end in ("mean", "low", "high")}
    scores = tuned["notes"]["calibration_scores"]["three"]
    error = scores["expected_calibration_error"]
    assert found["calibration"]["expected_calibration_error"] == error

    page = invoke("models", "card", mine).stdout
    test = section(page, "Test")
    assert f"3 models (2 object, 1 style), 6 generated images, {distractors} distractors." in test
    assert "Fewer than 6 models" in test
    interval = tuned["cases"][0]["overall"]["average_precision"]
    ends = f"{interval['mean']:.3f} ({interval['low']:.3f} to {interval['high']:.3f}) |"
    assert ends in test
    assert f"expected calibration error {error:.3f};" in test

    save_card(mine, {**after.card, "test": {**after.card["test"], "older": found}})
    told = evaluated("--model", mine, "--write-card", "--no-untuned")
    assert told.stdout.endswith(f"card: {mine}\n")
    kept = load(mine).card["test"]
    assert kept["older"] == found
    assert kept["three"]["metrics"] == found["metrics"]
    assert "untuned" not in kept["three"]


def test_figures_of_another_calibrator_are_marked(evaluated: Run, mine: Path) -> None:
    assert evaluated("--model", mine, "--write-card").returncode == 0
    measured = load(mine).fingerprint
    assert "changed since" not in card_page(load(mine))
    # What the card says of the fit is of the former calibrator, and goes.
    save_card(mine, {**load(mine).card, "calibration": find_model(SHIPPED).card["calibration"]})
    assert "| objective | exact |" in card_page(load(mine))
    model = save_calibrator(mine, Calibrator(0.1, -0.5, "other images"))
    assert load(mine).card == model.card
    page = card_page(model)
    assert f"Measured when the model had the fingerprint `{measured}`" in section(page, "Test")
    assert "| objective |" not in page
    assert "within 0.06931 of the greatest similarity" in section(page, "Calibrator")


def test_what_was_seen_in_tuning_is_said_in_the_card(evaluated: Run, mine: Path) -> None:
    save_card(mine, {"tuning": find_model(SHIPPED).card["tuning"]})
    refused = evaluated("--model", mine, "--write-card")
    assert refused.returncode == 2
    assert "test" not in load(mine).card
    done = evaluated("--model", mine, "--write-card", "--allow-seen")
    assert done.returncode == 0, done.stderr
    assert "was tuned on 2 of these models" in section(card_page(load(mine)), "Test")


def test_models_without_a_card_of_ones_own(evaluated: Run, invoke: Run, mine: Path) -> None:
    def refused(line: str, *names: str | Path) -> None:
        done = evaluated("--write-card", *(word for name in names for word in ("--model", name)))
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f"attrib: {line}\n"

    refused("--write-card needs --model with a model of yours or a model folder")
    backbone = "--write-card: 'efficientnet-lite0' is a backbone, which has no model folder"
    refused(backbone, "efficientnet-lite0")
    refused(backbone, mine, "efficientnet-lite0")
    refused(
        f"--write-card: '{SHIPPED}' comes with attrib, its folder stays as it is; `attrib models "
        "export` writes a copy, which can be named instead",
        SHIPPED,
    )
    done = invoke("evaluate", "--write-card", "--compare", "a", "b")
    assert done.stderr == (
        "attrib: --write-card keeps the figures of test cases, not of --compare\n"
    )
    gone = evaluated("--write-card", "--model", mine / "nothing")
    assert gone.returncode == 1
    assert (
        gone.stderr == f"attrib: {mine / 'nothing'} is not a model folder: it has no model.json\n"
    )


def test_a_page_that_cannot_be_written(invoke: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "card.md"
    done = invoke("models", "card", SHIPPED, "--out", out)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"attrib: {out} cannot be written: File exists\n"


@pytest.mark.parametrize(
    "card",
    [
        {"tuning": 3},
        {"tuning": {"settings": {"steps": 3}}},
        {"test": {"a": {"models": "many"}}},
        {"test": []},
        {"calibration": {"objective": "exact"}},
        {"about": "text"},
    ],
)
def test_damaged_cards_are_one_line(card: dict[str, Any]) -> None:
    model = replace(find_model(SHIPPED), card={"test": {}, **card})
    if card == {"test": []}:
        assert "Not recorded." in section(card_page(model), "Test")
        return
    with pytest.raises(ModelError) as caught:
        card_page(model)
    assert str(caught.value).startswith(f"the card of model '{SHIPPED}' cannot be read: ")
    assert len(str(caught.value).splitlines()) == 1


def test_texts_of_a_card_stay_in_their_place() -> None:
    about = {"domain": "a | b\n# Heading\x1b[31m", "limits": ["one\ntwo"]}
    page = card_page(replace(find_model(SHIPPED), card={"about": about}))
    assert section(page, "Domain and limits") == ("Made for: a \\| b # Heading [31m.\n\n- one two")
