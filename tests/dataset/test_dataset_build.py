"""A whole build: its files, that they come out the same, and what it refuses."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

import evaluation.dataset.make as making
from evaluation.cases import cases_in, read_case
from evaluation.dataset.build import BuildReport, Progress, build_dataset, generator_hash
from evaluation.dataset.card import write_card
from evaluation.dataset.customize import Prior, customized
from evaluation.dataset.endpoint import Endpoint
from evaluation.dataset.generator import Generator, load_generator
from evaluation.dataset.library import Library
from evaluation.dataset.prompts import PromptLists, shipped_prompts
from evaluation.dataset.settings import BuildSettings, Customization, Sampling
from ingest.errors import RunError, UsageError

SETTINGS = BuildSettings(
    models=3,
    per_model=5,
    base_images=2,
    splits=(0.4, 0.3, 0.3),
    customization=Customization(steps=2, batch_size=2, learning_rate=1e-3, prior_images=2),
    sampling=Sampling(steps=2, batch_size=4),
)


@pytest.fixture(scope="module")
def generator(pipeline_folder: Path) -> Generator:
    return load_generator(str(pipeline_folder), device="cpu")


Build = Callable[..., BuildReport]


@pytest.fixture(scope="module")
def build(generator: Generator, images_folder: Path) -> Build:
    def built(
        out: Path,
        settings: BuildSettings = SETTINGS,
        *,
        images: Path = images_folder,
        lists: PromptLists | None = None,
        name: str = "tiny",
        progress: Progress | None = None,
        endpoint: Endpoint | None = None,
    ) -> BuildReport:
        return build_dataset(
            out,
            Library([str(images)]),
            lambda: generator,
            lists or shipped_prompts(settings.kind),
            settings,
            {"name": name, "revision": "", "sha256": ""},
            progress,
            endpoint=endpoint,
        )

    return built


@pytest.fixture(scope="module")
def dataset(build: Build, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("built") / "set"
    assert build(out) == BuildReport(models=3, made=3, images=15, told=())
    return out


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_cases_are_those_of_abc(dataset: Path) -> None:
    cases = cases_in(dataset)
    assert sorted(case.name for case in cases) == ["object_test", "object_train", "object_val"]
    for case in cases:
        assert case.root == dataset
        assert case.missing() == []
        (model,) = case.models
        assert model.category == "object"
        assert model.class_id in ("cat", "dog", "boat")
        assert model.steps == 2
        assert len(model.exemplars) == 1
        assert {kind: len(paths) for kind, paths in model.synth.items()} == {"free": 3, "media": 2}
        for path in (path for paths in model.synth.values() for path in paths):
            with Image.open(dataset / path) as image:
                assert image.size == (16, 16)
    assert read_case(dataset / "object_train.json").models[0].id == "0"


def test_every_image_has_its_prompt(dataset: Path) -> None:
    prompts = json.loads((dataset / "prompts.json").read_text())
    made = {p.relative_to(dataset).as_posix() for p in (dataset / "synth").rglob("*.png")}
    assert set(prompts) == made
    for case in cases_in(dataset):
        for model in case.models:
            for paths in model.synth.values():
                assert all(f"<new1> {model.class_id}" in prompts[path] for path in paths)


def test_the_manifest_holds_the_hash_of_every_file(dataset: Path) -> None:
    manifest = json.loads((dataset / "manifest.json").read_text())
    found = {
        name: hashlib.sha256(data).hexdigest()
        for name, data in bytes_of(dataset).items()
        if name not in ("manifest.json", ".lock")
    }
    assert manifest["files"] == found
    assert len(found) == 3 * (1 + 5 + 2 + 1) + 3 + 2
    assert manifest["settings"]["customization"]["rate"] == pytest.approx(2e-3)
    assert manifest["generator"] == {"name": "tiny", "revision": "", "sha256": "", "device": "cpu"}
    assert {"torch", "diffusers"} <= set(manifest["versions"])


def test_the_record_of_a_model(dataset: Path) -> None:
    record = json.loads((dataset / "models" / "0001.json").read_text())
    assert len(record["losses"]) == len(record["prior_losses"]) == 2
    assert record["moved"] > 0
    assert record["prior_images"] == {"real": 2, "synthesized": 0}
    # Of both kinds of prompts.
    assert record["base_of"] == {
        "base/object/0001/00000.png": "synth/object/free/0001/00000.png",
        "base/object/0001/00001.png": "synth/object/free/0001/00002.png",
    }


def test_again_gives_the_same_bytes_and_begun_ones_are_not_written_again(
    build: Build, dataset: Path, tmp_path: Path
) -> None:
    build(tmp_path / "twin")
    assert bytes_of(tmp_path / "twin") == bytes_of(dataset)
    before = {path: path.stat().st_mtime_ns for path in dataset.rglob("*") if path.is_file()}
    assert build(dataset).made == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_what_is_damaged_is_made_again(build: Build, dataset: Path, tmp_path: Path) -> None:
    build(tmp_path / "set")
    (tmp_path / "set" / "models" / "0000.json").write_text('{"images": ')
    (tmp_path / "set" / "synth" / "object" / "media" / "0002" / "00001.png").unlink()
    next((tmp_path / "set" / "exemplars").iterdir()).write_bytes(b"")
    assert build(tmp_path / "set").made == 2
    assert bytes_of(tmp_path / "set") == bytes_of(dataset)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"settings": replace(SETTINGS, seed=1)}, "settings (seed: 0, now 1)"),
        (
            {"settings": replace(SETTINGS, customization=replace(SETTINGS.customization, steps=3))},
            "settings (customization.steps: 2, now 3)",
        ),
        ({"name": "large"}, "generator (name: tiny, now large)"),
        (
            {"lists": PromptLists(("{} here",), ("a bust of {}",), "media")},
            "exemplars or prompts",
        ),
    ],
)
def test_other_settings_are_refused_and_nothing_is_touched(
    build: Build, dataset: Path, other: dict[str, object], said: str
) -> None:
    before = bytes_of(dataset)
    with pytest.raises(UsageError) as caught:
        build(dataset, **other)
    assert str(caught.value) == (
        f"{dataset} was begun with other {said}; give the same, or another --out"
    )
    assert bytes_of(dataset) == before


def test_a_folder_of_something_else_is_refused(build: Build, tmp_path: Path) -> None:
    (tmp_path / "exemplars").mkdir()
    with pytest.raises(UsageError, match="is not empty and holds no dataset; name a new folder"):
        build(tmp_path)
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(UsageError, match=r"other contents \(its plan.json is damaged\)"):
        build(tmp_path)


def test_styles(build: Build, tmp_path: Path) -> None:
    settings = replace(SETTINGS, kind="style", models=2, exemplars_per_style=3, splits=(0, 0, 1.0))
    build(tmp_path / "set", settings)
    (case,) = cases_in(tmp_path / "set")
    assert case.name == "style_test"
    assert sorted(model.class_id for model in case.models) == ["Ann", "Bob"]
    for model in case.models:
        assert model.category == "style"
        assert len(model.exemplars) == 3
        assert {kind: len(paths) for kind, paths in model.synth.items()} == {"free": 3, "object": 2}
    prompts = json.loads((tmp_path / "set" / "prompts.json").read_text())
    assert all("<new1>" in text for text in prompts.values())


def alone(folder: Path, caption: str = "") -> Path:
    """A library of one image: it has no prior images."""
    (folder / "cat").mkdir(parents=True)
    pixels = np.random.default_rng(1).integers(256, size=(20, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "cat" / "a.png")
    return folder


def test_prior_images_that_the_library_lacks_the_generator_makes(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[Prior]] = []
    real = customized

    def watched(*args: object, **named: object) -> object:
        seen.append(list(args[3]))  # type: ignore[call-overload]
        return real(*args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(making, "customized", watched)
    images = alone(tmp_path / "library")
    # A copy of the exemplar, and what is no image, are no prior images.
    (images / "cat" / "b.png").write_bytes((images / "cat" / "a.png").read_bytes())
    (images / "cat" / "c.png").write_bytes(b"no image")
    build(tmp_path / "set", replace(SETTINGS, models=1), images=images)
    record = json.loads((tmp_path / "set" / "models" / "0000.json").read_text())
    assert record["prior_images"] == {"real": 0, "synthesized": 2}
    assert len(record["prior_losses"]) == 2
    paths = [f"priors/object/0000/{number:05d}.png" for number in range(2)]
    assert {name for name in record["images"] if name.startswith("priors/")} == set(paths)
    for path, prior in zip(paths, seen[0], strict=True):
        assert prior.prompt == "cat"
        with Image.open(tmp_path / "set" / path) as image:
            assert np.array_equal(np.asarray(image), np.asarray(prior.image))


@dataclass
class Count:
    """Progress that counts."""

    pending: int = -1
    done: int = 0

    def start(self, pending: int | None) -> None:
        assert pending is not None
        self.pending = pending

    def advance(self, images: int) -> None:
        self.done += images


def test_progress_counts_the_prior_images_that_the_generator_makes(
    build: Build, tmp_path: Path
) -> None:
    one = replace(SETTINGS, models=1)
    made = Count()
    build(tmp_path / "alone", one, images=alone(tmp_path / "library"), progress=made)
    assert made.pending == made.done == 5 + 2 + 2
    # A prior image that cannot be read is none.
    (tmp_path / "library" / "cat" / "b.png").write_bytes(b"no image")
    damaged = Count()
    build(tmp_path / "damaged", one, images=tmp_path / "library", progress=damaged)
    assert damaged.pending == damaged.done == 5 + 2 + 2
    real = Count()
    build(tmp_path / "real", one, progress=real)
    assert real.pending == real.done == 5 + 2


def test_a_plan_without_an_endpoint_knows_of_none(dataset: Path) -> None:
    assert set(json.loads((dataset / "plan.json").read_text())) == {
        *("generator", "models", "schema", "settings", "told", "versions"),
    }
    assert "captions" not in json.loads((dataset / "manifest.json").read_text())


class Writer(http.server.BaseHTTPRequestHandler):
    """Writes three captions for a cat, and nothing for other words."""

    asked: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        question = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.asked.append(question)
        lines = ["a {} asleep", "{} at sea", "{} in a hat"] if "show a cat" in question else ["?"]
        body = json.dumps({"choices": [{"message": {"content": "\n".join(lines)}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on stderr."""


def test_what_a_language_model_wrote_is_in_the_plan_and_asked_for_once(
    build: Build, dataset: Path, tmp_path: Path
) -> None:
    out = tmp_path / "set"
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Writer) as web:
        thread = threading.Thread(target=web.serve_forever, args=(0.02,))
        thread.start()
        endpoint = Endpoint(f"http://127.0.0.1:{web.server_address[1]}/v1", "tiny-llm", "k-123")
        try:
            report = build(out, endpoint=endpoint)
        finally:
            web.shutdown()
            thread.join()
    plan = json.loads((out / "plan.json").read_text())
    assert {model["name"] for model in plan["models"]} == {"cat", "dog"}
    assert report.told == (f"{endpoint.url} wrote too few prompts, ours are used (dog: 0 of 3)",)
    count = len(Writer.asked)
    assert count == 1 + 3
    # The server is gone: from here on nobody is asked.
    whole = bytes_of(out)
    assert b"k-123" not in b"".join(whole.values())
    (out / "models" / "0001.json").unlink()
    again = build(out, endpoint=endpoint)
    assert (again.made, again.told) == (1, report.told)
    assert bytes_of(out) == whole
    assert len(Writer.asked) == count
    before = json.loads((dataset / "plan.json").read_text())
    assert plan["captions"]["model"] == "tiny-llm"
    for model, other in zip(plan["models"], before["models"], strict=True):
        free = {prompt["text"] for prompt in model["prompts"] if prompt["kind"] == "free"}
        if model["name"] == "cat":
            assert free == {"a <new1> cat asleep", "<new1> cat at sea", "<new1> cat in a hat"}
        else:
            assert model == other
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["captions"] == {"endpoint": endpoint.url, "model": "tiny-llm"}
    assert "| free prompts | written by tiny-llm at http\\://127.0.0.1" in _card(out)
    for call, said in (
        ({}, f"prompts (endpoint: {endpoint.url}, now None)"),
        ({"endpoint": replace(endpoint, model="m")}, "prompts (model: tiny-llm, now m)"),
        (
            {"endpoint": endpoint, "settings": replace(SETTINGS, seed=9)},
            "settings (seed: 0, now 9)",
        ),
    ):
        with pytest.raises(UsageError) as caught:
            build(out, **call)
        assert said in str(caught.value)
    assert bytes_of(out).keys() - whole.keys() == {"README.md"} | {
        f"sheets/000{n}.png" for n in range(3)
    }


def _card(out: Path) -> str:
    return write_card(out).read_text()


def test_without_prior_images_none_are_made(build: Build, tmp_path: Path) -> None:
    none = replace(SETTINGS.customization, prior_images=0)
    settings = replace(SETTINGS, models=1, customization=none)
    build(tmp_path / "set", settings, images=alone(tmp_path / "library"))
    record = json.loads((tmp_path / "set" / "models" / "0000.json").read_text())
    assert record["prior_losses"] == []
    assert not (tmp_path / "set" / "priors").exists()


def test_prior_images_of_the_library_are_used(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images_folder: Path
) -> None:
    seen: list[list[Prior]] = []
    real = customized

    def watched(*args: object, **named: object) -> object:
        seen.append(list(args[3]))  # type: ignore[call-overload]
        return real(*args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(making, "customized", watched)
    build(tmp_path / "set", replace(SETTINGS, models=1))
    record = json.loads((tmp_path / "set" / "models" / "0000.json").read_text())
    assert [prior.prompt for prior in seen[0]] == [f"red {record['name']}"] * 2
    for key, prior in zip(record["priors"], seen[0], strict=True):
        with Image.open(images_folder / key) as image:
            assert np.array_equal(np.asarray(image), np.asarray(prior.image))


def test_a_caption_cannot_teach_the_new_word(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = alone(tmp_path / "library")
    Image.new("RGB", (20, 20), "blue").save(images / "cat" / "b.png")
    for name in "ab":
        (images / "cat" / f"{name}.json").write_text('{"caption": "a <new1> cat"}')
    seen: list[str] = []
    real = customized

    def watched(*args: object, **named: object) -> object:
        seen.extend(prior.prompt for prior in args[3])  # type: ignore[attr-defined]
        return real(*args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(making, "customized", watched)
    build(tmp_path / "set", replace(SETTINGS, models=1), images=images)
    assert seen == ["a cat"]


def test_too_little_memory_is_refused_before_all_work(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluation.dataset.memory.free_bytes", lambda device: 1 << 10)
    with pytest.raises(RunError, match="nothing here would fit: take a smaller generator"):
        build(tmp_path / "set")
    assert not (tmp_path / "set" / "models").exists()


def test_the_hash_of_a_generator_is_that_of_its_files(tmp_path: Path) -> None:
    assert generator_hash("someone/on-the-hub") == ""
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "a").write_text("1")
    first = generator_hash(str(tmp_path))
    (tmp_path / "unet" / "a").rename(tmp_path / "unet" / "b")
    assert len({first, generator_hash(str(tmp_path)), ""}) == 3
