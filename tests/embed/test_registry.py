from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from embed.backbones import BACKBONES
from embed.calibrator import UNFITTED
from embed.model import identity_model
from embed.registry import (
    export_model,
    find_model,
    import_model,
    list_models,
    models_folder,
    save_model,
)
from ingest.errors import ModelError, UnknownModelError, UsageError

CLIP = BACKBONES["clip-vitb32"]


def files(folder: Path, d: int = 512) -> tuple[Path, Path]:
    mapper, calibrator = folder / "object.pth", folder / "object-calibrator.pth"
    state = nn.Linear(d, d).state_dict()
    torch.save({"real_mapper": state, "synth_mapper": nn.Linear(d, d).state_dict()}, mapper)
    torch.save({"inv_tau": torch.tensor(20.0), "bias": torch.tensor(-30.0)}, calibrator)
    return mapper, calibrator


def test_a_backbone_is_a_model() -> None:
    for name in BACKBONES:
        model = find_model(name)
        assert (model.name, model.backbone, model.calibrator) == (name, BACKBONES[name], UNFITTED)


def test_a_model_of_a_library() -> None:
    model = find_model("open_clip:ViT-B-32/openai")
    assert (model.name, model.dim) == ("open_clip:ViT-B-32/openai", 512)


def test_import_find_export(tmp_path: Path) -> None:
    mapper, calibrator = files(tmp_path)
    made = import_model("clip-object", CLIP, mapper, calibrator)
    found = find_model("clip-object")
    assert found.backbone == CLIP
    assert found.calibrator.tau == pytest.approx(0.05)
    assert found.calibrator.fitted_on == "object-calibrator.pth"
    assert found.tuned_on == "object.pth"
    bound = made.with_weights("12" * 32)
    assert found.with_weights("12" * 32).fingerprint == bound.fingerprint

    export_model("clip-object", tmp_path / "out")
    again = find_model(str(tmp_path / "out"))
    assert again.with_weights("12" * 32).fingerprint == bound.fingerprint
    assert find_model(tmp_path / "out").name == "clip-object"


def test_without_a_calibrator(tmp_path: Path) -> None:
    assert import_model("m", CLIP, files(tmp_path)[0]).calibrator is UNFITTED


def test_models_live_in_the_users_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert models_folder() == tmp_path / "home" / "models"
    monkeypatch.delenv("ATTRIB_HOME")
    assert models_folder().parts[-2:] == ("attrib", "models")


def test_list(tmp_path: Path) -> None:
    import_model("b-model", CLIP, *files(tmp_path))
    (models_folder() / "a-damaged").mkdir()
    rows = list_models()
    assert [row.name for row in rows] == [
        "a-damaged",
        "b-model",
        "efficientnet-lite0-clipart",
        *BACKBONES,
    ]
    damaged, mine, backbone = rows[:3]
    assert damaged.model is None
    assert damaged.problem == (
        f"{models_folder() / 'a-damaged'} is not a model folder: it has no model.json"
    )
    assert mine.model is not None
    assert (mine.problem, mine.folder) == ("", models_folder() / "b-model")
    assert backbone.folder is None


def test_typos_know_the_users_models(tmp_path: Path) -> None:
    import_model("portraits", CLIP, *files(tmp_path))
    with pytest.raises(UnknownModelError) as caught:
        find_model("portrait")
    assert str(caught.value) == (
        "unknown model 'portrait'; did you mean 'portraits'? `attrib models list` shows all"
    )


def test_a_path_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        find_model("./nothing")
    assert str(caught.value) == "nothing is not a model folder: it has no model.json"


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "a b", "timm:x"])
def test_names_that_cannot_be_used(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        save_model(replace(identity_model(CLIP), name=name))
    assert str(caught.value) == (
        f"'{name}' cannot be a model's name; use letters, digits, '.', '_' and '-'"
    )


def test_a_backbones_name_is_taken() -> None:
    with pytest.raises(UsageError) as caught:
        save_model(identity_model(CLIP))
    assert str(caught.value) == "'clip-vitb32' is a backbone's name; choose another"


def test_a_mapper_for_another_backbone(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        import_model("m", CLIP, *files(tmp_path, d=768))
    assert str(caught.value) == "model 'm': the mapper takes 768 numbers, clip-vitb32 gives 512"
    assert not (models_folder() / "m").exists()
