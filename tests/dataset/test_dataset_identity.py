"""What decides the bytes of a set is recorded, and another one is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_builds import SETTINGS, Build

from evaluation.dataset.build import build_dataset, generator_hash, libraries
from evaluation.dataset.customize import customized
from evaluation.dataset.generator import Generator, load_generator
from evaluation.dataset.identity import hub_commit, identity
from evaluation.dataset.library import Library
from evaluation.dataset.make import make_model
from evaluation.dataset.plan import loads_plan, plan_dataset
from evaluation.dataset.prompts import shipped_prompts
from evaluation.dataset.settings import Customization, recorded, settings_of
from ingest.errors import SourceError, UsageError
from workers.dataset_order import ModelOrder
from workers.dataset_task import ModelRunner

ONE = replace(SETTINGS, models=1)


@pytest.fixture
def two_threads() -> Iterator[None]:
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def refused(said: str, out: Path, build: Build, **others: object) -> None:
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(UsageError) as caught:
        build(out, ONE, **others)
    assert str(caught.value) == (
        f"{out} was begun with other {said}; give the same, or another --out"
    )
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_other_threads_are_refused(
    build: Build, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    build(tmp_path / "set", ONE)
    (tmp_path / "set" / "models" / "0000.json").unlink()
    request.getfixturevalue("two_threads")
    refused("generator (threads: 1, now 2)", tmp_path / "set", build)


def test_on_a_gpu_threads_decide_nothing(generator: Generator) -> None:
    """Where workers make the models, it is their device that counts."""
    assert "threads" not in identity(generator, {"name": "t", "device": "cuda"})
    assert identity(generator, {"name": "t"}) == {"name": "t", "device": "cpu", "threads": "1"}


def test_a_worker_with_other_threads_refuses(pipeline_folder: Path, images_folder: Path) -> None:
    wanted = {"name": "t", "sha256": "", "device": "cpu", "threads": "7"}
    folder = str(pipeline_folder)
    plan = plan_dataset(
        Library([str(images_folder)]),
        shipped_prompts("object"),
        ONE,
        lambda word: True,
        {**wanted, "sha256": generator_hash(folder)},
        libraries(),
    )
    order = ModelOrder("p", "s", 0, "/out", folder, "", (str(images_folder),), None, 60.0)
    runner = ModelRunner(None, "w", "cpu")  # type: ignore[arg-type] (it only makes models here)
    with pytest.raises(UsageError) as caught:
        runner._generator_for(order, plan, ONE)
    assert str(caught.value) == "number of threads is 1 here, and 7 where the dataset was planned"


@pytest.fixture
def images(images_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(images_folder, tmp_path / "library")


def test_another_prior_image_or_caption_of_one_is_refused(
    build: Build, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "set"
    build(out, ONE, images=images)
    plan = json.loads((out / "plan.json").read_text())["models"][0]
    record = json.loads((out / "models" / "0000.json").read_text())
    assert record["prior_hashes"] == plan["prior_hashes"]
    assert plan["prior_prompts"] == [f"red {plan['name']}"] * 2
    assert {len(digest) for digest in plan["prior_hashes"]} == {64}
    (out / "models" / "0000.json").unlink()
    key = plan["priors"][0]
    was = (images / key).read_bytes()
    Image.new("RGB", (48, 40), "blue").save(images / key)
    refused("exemplars, prior images or prompts", out, build, images=images)
    (images / key).write_bytes(was)
    sidecar = (images / key).with_suffix(".json")
    words = sidecar.read_text()
    sidecar.write_text(words.replace("red", "two"))
    refused("exemplars, prior images or prompts", out, build, images=images)
    sidecar.write_text(words)
    assert build(out, ONE, images=images).made == 1
    assert json.loads((out / "models" / "0000.json").read_text()) == record


def test_a_prior_image_that_changes_after_the_plan_ends_the_model(
    generator: Generator, build: Build, images: Path, tmp_path: Path
) -> None:
    """As a worker sees it whose library is another."""
    out = tmp_path / "set"
    build(out, ONE, images=images)
    plan = loads_plan((out / "plan.json").read_text())
    entries = {entry.key: entry for entry in Library([str(images)]).entries}
    key = plan.models[0].priors[1]
    (out / "models" / "0000.json").unlink()
    Image.new("RGB", (48, 40), "blue").save(images / key)
    with pytest.raises(SourceError) as caught:
        make_model(out, plan.models[0], entries, generator, ONE, lambda images: None)
    assert str(caught.value) == (
        f"prior image {key} changed since the dataset was planned; put it back, or name another "
        "--out"
    )
    (images / key).unlink()
    with pytest.raises(SourceError, match=f"prior image {key} cannot be read any more"):
        make_model(out, plan.models[0], entries, generator, ONE, lambda images: None)
    assert not (out / "models" / "0000.json").exists()


@pytest.fixture
def hub(pipeline_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the hub with two commits of someone/tiny; nothing can be asked."""
    import huggingface_hub.constants

    cache = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    repository = cache / "models--someone--tiny"
    for commit in ("a" * 40, "b" * 40):
        shutil.copytree(pipeline_folder, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    (repository / "refs" / "old").write_text("b" * 40)
    return repository


def test_the_commit_of_a_generator_of_the_hub_is_recorded_and_another_refused(
    hub: Path, images_folder: Path, tmp_path: Path
) -> None:
    name = "someone/tiny"

    def build(out: Path, settings: object = ONE) -> None:
        build_dataset(
            out,
            Library([str(images_folder)]),
            lambda: load_generator(name, device="cpu"),
            shipped_prompts("object"),
            ONE,
            {"name": name, "revision": "", "sha256": ""},
        )

    build(tmp_path / "set")
    manifest = json.loads((tmp_path / "set" / "manifest.json").read_text())
    assert manifest["generator"]["commit"] == "a" * 40
    (hub / "refs" / "main").write_text("b" * 40)
    said = f"generator (commit: {'a' * 40}, now {'b' * 40})"
    refused(said, tmp_path / "set", build)
    (hub / "refs" / "main").write_text("a" * 40)
    build(tmp_path / "set")
    assert hub_commit(name, None) == "a" * 40
    assert hub_commit(name, "old") == "b" * 40
    assert hub_commit(name, "b" * 40) == "b" * 40
    assert hub_commit(name, "nowhere") == ""
    assert hub_commit(str(tmp_path), None) == ""


def test_every_hyperparameter_is_in_the_manifest(
    build: Build, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "set"
    build(out, ONE, images=images)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["settings"]["class_field"] is None
    assert manifest["settings"]["customization"] == {
        **{"method": "custom-diffusion", "steps": 2, "learning_rate": 1e-3, "rate": 2e-3},
        **{"batch_size": 2, "prior_images": 2, "prior_weight": 1.0, "rank": 8, "alpha": None},
        **{"augment": True, "gradient_checkpointing": False},
        "optimizer": {
            **{"name": "AdamW", "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.01}
        },
    }


def test_another_class_field_is_refused_though_it_chooses_the_same(
    generator: Generator, images: Path, tmp_path: Path
) -> None:
    for path in images.rglob("*.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "class": path.parent.name}))

    def build(out: Path, settings: object = ONE, class_field: str | None = None) -> None:
        build_dataset(
            out,
            Library([str(images)], class_field=class_field),
            lambda: generator,
            shipped_prompts("object"),
            ONE,
            {"name": "tiny", "revision": "", "sha256": ""},
        )

    build(tmp_path / "set")
    said = "settings (class_field: None, now class)"
    refused(said, tmp_path / "set", build, class_field="class")  # type: ignore[arg-type]


def test_the_recorded_optimizer_is_the_one_that_is_used(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, object]] = []
    real = torch.optim.AdamW.step

    def step(self: torch.optim.AdamW, *args: object) -> object:
        seen.append(dict(self.param_groups[0]))
        layers = [m for m in generator.denoiser.modules() if hasattr(m, "lora_A")]
        scales.update(layer.scaling["attrib"] for layer in layers)
        return real(self, *args)  # type: ignore[arg-type]

    scales: set[float] = set()
    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    chosen = Customization("lora", steps=1, batch_size=2, rank=4)
    with customized(generator, [Image.new("RGB", (16, 16))], "a <new1>", [], chosen, seed=0):
        pass
    settings = replace(SETTINGS, customization=chosen)
    values = recorded(settings, "shows")
    assert settings_of(json.loads(json.dumps(values))) == settings
    custom = values["customization"]
    assert scales == {custom["alpha"] / custom["rank"]}
    (used,) = seen
    assert used["lr"] == custom["rate"]
    for name in ("eps", "weight_decay"):
        assert used[name] == custom["optimizer"][name]
    assert list(used["betas"]) == custom["optimizer"]["betas"]  # type: ignore[call-overload]
