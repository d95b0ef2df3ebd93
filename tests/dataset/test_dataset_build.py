"""A whole build: its files, that they come out the same, and what it refuses."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
from PIL import Image
from tiny_builds import SETTINGS, Build

from evaluation.cases import cases_in, read_case
from evaluation.dataset.build import generator_hash
from evaluation.dataset.card import write_card
from evaluation.dataset.endpoint import Endpoint
from evaluation.dataset.prompts import PromptLists, shipped_prompts
from ingest.errors import RunError, UsageError


@pytest.fixture(scope="module")
def dataset(build: Build, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("built") / "set"
    report = build(out)
    assert (report.models, report.made, report.images) == (3, 3, 15)
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
    assert manifest["generator"] == {
        **{"name": "tiny", "revision": "", "sha256": "", "device": "cpu", "threads": "1"},
    }
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
            "exemplars, prior images or prompts",
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


def test_a_prompt_whose_new_word_would_be_cut_off_is_refused(build: Build, tmp_path: Path) -> None:
    ours = shipped_prompts("object")
    lists = replace(ours, free=("{} and " + "a " * 40, "a " * 40 + "{}"))
    with pytest.raises(UsageError) as caught:
        build(tmp_path / "out", lists=lists)
    assert str(caught.value) == (
        f"tiny does not read as far as {{}} in the prompt {('a ' * 30)!r}...: "
        "shorten what is before it"
    )
    assert not (tmp_path / "out").exists()


def test_styles(build: Build, tmp_path: Path) -> None:
    settings = replace(SETTINGS, kind="style", models=2, exemplars_per_style=3, splits=(0, 0, 1.0))
    lists = replace(shipped_prompts("style"), free=("a cat by {}", "a dog by {}"))
    build(tmp_path / "set", settings, lists=lists)
    (case,) = cases_in(tmp_path / "set")
    assert case.name == "style_test"
    assert sorted(model.class_id for model in case.models) == ["Ann", "Bob"]
    for model in case.models:
        assert model.category == "style"
        assert len(model.exemplars) == 3
        assert {kind: len(paths) for kind, paths in model.synth.items()} == {"free": 3, "object": 2}
    prompts = json.loads((tmp_path / "set" / "prompts.json").read_text())
    assert all("<new1>" in text for text in prompts.values())


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
    assert f"{endpoint.url} wrote too few prompts, ours are used (dog: 0 of 3)" in report.told
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


def test_too_little_memory_is_refused_before_all_work(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And before there is a plan: what would fit is another one."""
    with monkeypatch.context() as patch:
        patch.setattr("evaluation.dataset.memory.free_bytes", lambda device: 1 << 10)
        with pytest.raises(RunError, match="nothing here would fit: take a smaller generator"):
            build(tmp_path / "set")
    assert not (tmp_path / "set").exists()
    settings = replace(SETTINGS, customization=replace(SETTINGS.customization, batch_size=1))
    assert build(tmp_path / "set", settings).made == 3


def test_the_hash_of_a_generator_is_that_of_its_files(tmp_path: Path) -> None:
    assert generator_hash("someone/on-the-hub") == ""
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "a").write_text("1")
    first = generator_hash(str(tmp_path))
    (tmp_path / "unet" / "a").rename(tmp_path / "unet" / "b")
    assert len({first, generator_hash(str(tmp_path)), ""}) == 3
