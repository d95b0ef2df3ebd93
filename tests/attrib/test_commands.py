"""The commands that a user types, end to end, with the real default model."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

Run = Callable[..., "subprocess.CompletedProcess[str]"]

_QUERY = [sys.executable, "-m", "attrib", "query"]


def asked(run: Run, *arguments: Any) -> list[dict[str, Any]]:
    done = run("query", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    return answers


def test_a_generated_image_is_attributed_to_its_exemplar(
    run: Run, built: Path, generated: Path, exemplar: str, tmp_path: Path
) -> None:
    picture = tmp_path / "answer.png"
    done = run("query", generated, "--data", built, "--k", "5", "--picture", picture)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    first = next(line for line in lines if line.split()[:1] == ["1"])
    assert exemplar in first or "images/copy.jpg" in first
    assert "(+1" in first
    assert any("remaining influence" in line for line in lines)
    assert f"picture: {picture}" in lines
    with Image.open(picture) as drawn:
        assert drawn.width == 1600
        # The exemplar's own colours are on the sheet: it is no page of empty tiles.
        assert len(drawn.convert("RGB").getcolors(1 << 24) or []) > 500


def test_json_has_the_whole_answer_and_sums_to_one(
    invoke: Run, built: Path, generated: Path, exemplar: str
) -> None:
    (answer,) = asked(invoke, generated, "--data", built, "--k", "2", "--group-by", "creator")
    assert answer["query"] == str(generated)
    assert answer["population"] == 49
    assert answer["method"] in ("exact", "complete")
    assert answer["model"] == "efficientnet-lite0"
    assert len(answer["rows"]) == 2
    assert {owner["key"] for owner in answer["rows"][0]["owners"]} == {exemplar, "images/copy.jpg"}
    shares = sum(row["influence"] for row in answer["rows"])
    assert shares + answer["remaining"] == pytest.approx(1, abs=1e-9)
    groups = {group["value"]: group for group in answer["groups"]}
    assert sum(group["influence"] for group in groups.values()) == pytest.approx(1, abs=1e-9)
    assert "" in groups  # the copy has no known creator: a group of its own
    assert answer["calibrator"]["fitted_on"] == ""


def test_exact_agrees_with_the_index(invoke: Run, built: Path, generated: Path) -> None:
    (fast,) = asked(invoke, generated, "--data", built)
    (exact,) = asked(invoke, generated, "--data", built, "--exact")
    assert exact["method"] == "exact"
    assert [row["influence"] for row in fast["rows"]] == pytest.approx(
        [row["influence"] for row in exact["rows"]], abs=1e-9
    )


def test_where_shows_some_rows_of_unchanged_shares(
    invoke: Run, built: Path, generated: Path, exemplar: str
) -> None:
    (everything,) = asked(invoke, generated, "--data", built)
    creator = everything["rows"][0]["owners"]
    name = next(owner["creator"] for owner in creator if owner["creator"])
    (some,) = asked(invoke, generated, "--data", built, "--where", f"creator={name}")
    assert {owner["creator"] for row in some["rows"] for owner in row["owners"]} == {name}
    assert some["rows"][0]["influence"] == pytest.approx(
        everything["rows"][0]["influence"] / 2, abs=1e-9
    )
    assert some["remaining"] > everything["remaining"]


def test_without_a_creator_is_as_if_the_images_were_not_there(
    invoke: Run, built: Path, own: Path, generated: Path
) -> None:
    (everything,) = asked(invoke, generated, "--data", built)
    owners = everything["rows"][0]["owners"]
    name = next(owner["creator"] for owner in owners if owner["creator"])
    (less,) = asked(invoke, generated, "--data", built, "--without", f"creator={name}")
    gone = everything["population"] - less["population"]
    assert gone > 0
    assert name not in {owner["creator"] for row in less["rows"] for owner in row["owners"]}
    words = invoke("query", generated, "--data", built, "--without", f"creator={name}").stdout
    images = f"{gone} training image" + ("" if gone == 1 else "s")
    assert (
        f"as if {images} with creator={name} were not in the collection; nothing was changed"
        in words
    )
    nobody = invoke("query", generated, "--data", built, "--without", "creator=nobody").stdout
    assert "no training image has creator=nobody: nothing was left out" in nobody
    assert invoke("delete", "--data", own, "--creator", name, "--yes").returncode == 0
    (deleted,) = asked(invoke, generated, "--data", own)
    for one, other in zip(less["rows"], deleted["rows"], strict=True):
        assert one["owners"] == other["owners"]
        assert one["influence"] == pytest.approx(other["influence"], rel=1e-6)


def test_rows_up_to_a_mass(invoke: Run, built: Path, generated: Path) -> None:
    (whole,) = asked(invoke, generated, "--data", built, "--k", "1000")
    (cut,) = asked(invoke, generated, "--data", built, "--k", "1000", "--mass", "0.5")
    shown = len(cut["rows"])
    assert 0 < shown < len(whole["rows"])
    assert cut["rows"] == whole["rows"][:shown]
    assert sum(row["influence"] for row in cut["rows"]) >= 0.5
    assert cut["remaining"] <= 0.5


def test_many_images_and_a_folder_of_pictures(
    invoke: Run, built: Path, generated: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"nothing")
    namesake = generated.parents[1] / "object-42-protein" / "gpt-0.png"
    others = [*sorted(generated.parent.glob("gpt-*.png"))[:2], namesake]
    pictures = tmp_path / "pictures"
    done = invoke("query", *others, bad, "--data", built, "--k", "2", "--picture", pictures)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"attrib: not an image: {bad}",
        "attrib: 1 of 4 images could not be used",
    ]
    assert sorted(p.name for p in pictures.iterdir()) == ["gpt-0-2.png", "gpt-0.png", "gpt-1.png"]


def test_k_larger_than_the_collection(invoke: Run, built: Path, generated: Path) -> None:
    (answer,) = asked(invoke, generated, "--data", built, "--k", "100000")
    assert answer["remaining"] == pytest.approx(0, abs=1e-9)
    assert len(answer["rows"]) <= 48


def test_ingesting_again_embeds_nothing(run: Run, own: Path, training: Path) -> None:
    done = run("ingest", training, "--data", own, "--dataset", "clipart")
    assert done.returncode == 0
    assert done.stdout == (
        f"clipart: 0 ingested, 49 unchanged; {own} now holds 49 training images\n"
    )


def test_rejects_are_listed(invoke: Run, own: Path, tmp_path: Path) -> None:
    more = tmp_path / "more"
    more.mkdir()
    Image.new("RGB", (50, 40), "red").save(more / "red.png")
    (more / "notes.png").write_text("a text")
    done = invoke("ingest", more, "--data", own)
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        f"more: 1 ingested, 1 rejected; {own} now holds 50 training images",
        "  1 rejected: not an image",
        f"  which ones: attrib rejects --data {own}",
    ]
    listed = invoke("rejects", "--data", own, "--json")
    assert [(row["key"], row["reason"]) for row in json.loads(listed.stdout)] == [
        ("notes.png", "not an image")
    ]
    assert "not an image" in invoke("rejects", "--data", own).stdout


def test_takedown(
    run: Run, invoke: Run, own: Path, training: Path, generated: Path, exemplar: str
) -> None:
    dry = invoke("delete", "--data", own, "--key", exemplar, "--dry-run")
    assert dry.stdout == "1 training image matches; nothing was deleted (--dry-run)\n"
    asks = invoke("delete", "--data", own, "--key", exemplar, input="n\n")
    assert asks.returncode == 1
    assert asks.stderr.endswith("attrib: nothing was deleted\n")
    done = invoke("delete", "--data", own, "--key", exemplar, "--yes")
    assert done.stdout == "1 training image taken down; not to be ingested again\n"
    none = invoke("delete", "--data", own, "--key", exemplar, "--yes")
    assert none.returncode == 1
    assert none.stderr == "attrib: no training image matches; nothing was deleted\n"
    (answer,) = asked(invoke, generated, "--data", own)
    keys = {owner["key"] for row in answer["rows"] for owner in row["owners"]}
    assert exemplar not in keys
    assert "images/copy.jpg" in keys
    again = run("ingest", training, "--data", own, "--dataset", "clipart", "--force")
    assert again.stdout == (
        f"clipart: 48 ingested, 1 taken down earlier; {own} now holds 48 training images\n"
    )


def test_info(invoke: Run, built: Path) -> None:
    facts = json.loads(invoke("info", "--data", built, "--json").stdout)
    assert facts["images"] == 49
    assert facts["datasets"] == {"clipart": 49}
    assert facts["model"] == "efficientnet-lite0"
    assert len(facts["fingerprint"]) == 16
    shown = invoke("info", "--data", built).stdout
    assert "49 in 1 shard" in shown
    assert facts["fingerprint"] in shown
    assert "not fitted" in shown


def test_stopped_by_ctrl_c_it_goes_on(run: Run, training: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    command = [sys.executable, "-m", "attrib", "ingest", str(training), "--data", str(data)]
    process = subprocess.Popen(
        [*command, "--shard-size", "4", "--batch-size", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    features = data / "features"
    deadline = time.monotonic() + 120
    while not list(features.rglob("*.npy")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == ("attrib: stopped; the same command goes on where it stopped")
    assert "Traceback" not in errors
    done = run("ingest", training, "--data", data)
    assert done.returncode == 0, done.stderr
    facts = json.loads(run("info", "--data", data, "--json").stdout)
    assert facts["images"] == 49


def test_a_second_process_gets_one_line(run: Run, built: Path, generated: Path) -> None:
    import attrib

    with attrib.open(built):
        done = run("query", generated, "--data", built)
    assert done.returncode == 1
    assert done.stderr.startswith(f"attrib: {built} is in use by process ")
    assert len(done.stderr.splitlines()) == 1


def test_the_facade_gives_the_same_answer(
    invoke: Run, own: Path, generated: Path, tmp_path: Path
) -> None:
    import attrib

    (printed,) = asked(invoke, generated, "--data", own, "--k", "3")
    with attrib.open(own) as opened:
        answer = opened.query(generated, k=3)
        with Image.open(generated) as image:
            same = opened.query(image, k=3)
        read = opened.query(generated.read_bytes(), k=3)
        assert json.loads(json.dumps(answer.to_dict())) == printed
        assert [row.influence for row in same.rows] == [row.influence for row in answer.rows]
        assert read.rows == answer.rows
        frame = answer.to_pandas()
        assert list(frame["rank"]) == [1, 2, 3]
        assert frame["influence"].sum() + answer.remaining == pytest.approx(1, abs=1e-9)
        assert repr(answer).splitlines()[1].split()[1] == f"{answer.rows[0].influence:.2%}"
        assert "<table>" in answer._repr_html_()
        opened.picture(answer, generated, tmp_path / "answer.jpg")
    assert (tmp_path / "answer.jpg").stat().st_size > 10_000
    opened.close()


def test_features_do_not_depend_on_the_pipeline(run: Run, built: Path, training: Path) -> None:
    """The index holds what the backbone gives for the same pixels, image by image."""
    from embed.backbones import resolve
    from embed.embedder import Embedder
    from ingest.decode import decode

    backbone = resolve("efficientnet-lite0")
    embedder = Embedder(backbone)
    folder = built / "features" / "clipart"
    features = np.load(folder / "img_emb" / "img_emb_00000.npy").astype(np.float32)
    rows = pq.read_table(folder / "metadata" / "metadata_00000.parquet").to_pylist()
    for position in (0, 17, 48):
        image = decode((training / rows[position]["key"]).read_bytes()).image
        alone = embedder.embed(backbone.preprocessing.apply(image)[None])[0]
        stored = features[position]
        cosine = alone @ stored / np.linalg.norm(alone) / np.linalg.norm(stored)
        assert cosine > 0.999999


def test_broken_pipe(built: Path) -> None:
    done = subprocess.run(
        f"{sys.executable} -m attrib models list --json | head -n 1; exit ${{PIPESTATUS[0]}}",
        shell=True,
        executable=shutil.which("bash"),
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in done.stderr
    assert done.stdout.strip() == "["


@pytest.mark.parametrize("how", [[], ["--json"]])
def test_what_is_printed_may_not_fit_on_the_disk(how: list[str], built: Path) -> None:
    """`/dev/full` is always full. Buffered, it is noticed only when all is said."""
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONUNBUFFERED"}
    for command in (["info", "--data", str(built)], ["models", "list"]):
        with open("/dev/full", "w") as full:  # noqa: PTH123
            done = subprocess.run(
                [sys.executable, "-m", "attrib", *command, *how],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                env=environment,
            )
        assert (done.returncode, done.stderr) == (
            1,
            "attrib: cannot write what it prints: No space left on device; free some space\n",
        )


def test_where_no_unicode_can_be_printed(built: Path, generated: Path) -> None:
    def printed(encoding: str, *how: str) -> str:
        done = subprocess.run(
            [*_QUERY, str(generated), "--data", str(built), "--group-by", "creator", *how],
            capture_output=True,
            env={**os.environ, "PYTHONIOENCODING": encoding},
        )
        assert (done.returncode, done.stderr) == (0, b"")
        return done.stdout.decode(encoding)

    assert json.loads(printed("ascii", "--json")) == json.loads(printed("utf-8", "--json"))
    full, plain = printed("utf-8"), printed("ascii")
    assert plain.isascii()
    assert not full.isascii()
    shares = re.findall(r"\d+\.\d\d%", full)
    assert re.findall(r"\d+\.\d\d%", plain) == shares
    assert len(shares) > 5
