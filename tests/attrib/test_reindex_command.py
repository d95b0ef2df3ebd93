"""``attrib reindex`` as it is typed, with the real model; queries go on meanwhile."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np

from embed.calibrator import Calibrator
from embed.mapper import Mapper, MapperPair
from embed.model import AttributionModel, load
from search.reindex import reindex

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def tuned(data: Path, folder: Path) -> AttributionModel:
    """A rotation to 64 numbers, of the folder's backbone."""
    built = load(next(data.glob("collections/*/model")))
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(built.backbone.dim, 64)))[0].T
    mapper = Mapper.linear(axes, np.zeros(64))
    model = AttributionModel(
        "rotated", built.backbone, MapperPair(mapper, mapper), weights_hash=built.weights_hash
    )
    model.save(folder)
    return model


def test_reindex_in_words_and_json(
    invoke: Run, own: Path, tmp_path: Path, generated: Path, exemplar: str
) -> None:
    model = tuned(own, tmp_path / "rotated")
    old = json.loads(invoke("info", "--data", own, "--json").stdout)["collection"]
    new = f"rotated-{model.feature_fingerprint[:8]}"
    done = invoke("reindex", "--model", tmp_path / "rotated", "--data", own)
    assert (done.returncode, done.stderr.count("Traceback")) == (0, 0)
    assert done.stdout == (
        f"{own}: 49 training images mapped with rotated into {new}; {old} was removed\n"
    )
    facts = json.loads(invoke("info", "--data", own, "--json").stdout)
    assert (facts["collection"], facts["images"], facts["index"]["dim"]) == (new, 49, 64)
    answer = json.loads(invoke("query", generated, "--data", own, "--json").stdout)[0]
    assert answer["model"] == "rotated"
    assert exemplar in json.dumps(answer["rows"][:10])
    # Another calibrator alone: nothing is built.
    model.with_calibrator(Calibrator(0.05, -0.01, "test")).save(tmp_path / "fitted")
    done = invoke("reindex", "--model", tmp_path / "fitted", "--data", own, "--json")
    report = json.loads(done.stdout)
    assert (report["rebuilt"], report["mapped"], report["collection"]) == (False, 0, new)
    facts = json.loads(invoke("info", "--data", own, "--json").stdout)
    assert facts["calibrator"]["fitted_on"] == "test"


def test_a_query_of_another_process_works_meanwhile(
    run: Run, own: Path, tmp_path: Path, generated: Path
) -> None:
    model = tuned(own, tmp_path / "rotated")
    asked: list[subprocess.CompletedProcess[str]] = []

    class Asking:
        def start(self, pending: int | None) -> None:
            asked.append(run("query", generated, "--data", own, "--json"))

        def advance(self, images: int) -> None: ...

        def building(self) -> None: ...

    reindex(own, model, progress=Asking())
    assert asked[0].returncode == 0, asked[0].stderr
    assert json.loads(asked[0].stdout)[0]["model"] == "efficientnet-lite0"
    after = run("query", generated, "--data", own, "--json")
    assert after.returncode == 0, after.stderr
    assert json.loads(after.stdout)[0]["model"] == "rotated"


def test_wrong_calls(invoke: Run, own: Path, tmp_path: Path) -> None:
    done = invoke("reindex", "--model", "dino-vitb16", "--data", own)
    assert done.returncode == 1
    assert done.stderr == (
        f"attrib: {own} has base features of efficientnet-lite0, dino-vitb16 needs those of "
        "dino-vitb16; ingest the images into another folder: "
        "`attrib ingest SOURCE --model MODEL --data ANOTHER`\n"
    )
    done = invoke("reindex", "--data", own)
    assert done.returncode == 2
    assert "--model" in done.stderr
