"""One writer at a time: builds, checks and cards of one folder refuse each other."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from evaluation.dataset.build import build_dataset
from evaluation.dataset.card import write_card
from evaluation.dataset.check import check_dataset
from evaluation.dataset.generator import Generator, load_generator
from evaluation.dataset.library import Library
from evaluation.dataset.lock import taken
from evaluation.dataset.prompts import shipped_prompts
from evaluation.dataset.settings import BuildSettings, Customization, Sampling
from ingest.errors import DataFolderBusyError, DataFolderError

ROOT = Path(__file__).resolve().parents[2]
HOLDER = """
import sys
from pathlib import Path
from evaluation.dataset.lock import taken
with taken(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held(out: Path) -> Iterator[subprocess.Popen[str]]:
    """While another process has the folder."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(out)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def build(out: Path, generator: Generator, images: Path) -> None:
    settings = BuildSettings(
        models=1,
        per_model=2,
        base_images=2,
        customization=Customization(steps=1, batch_size=1, prior_images=0),
        sampling=Sampling(steps=1),
    )
    lists = shipped_prompts("object")
    name = {"name": "tiny", "revision": "", "sha256": ""}
    build_dataset(out, Library([str(images)]), lambda: generator, lists, settings, name)


def test_builds_and_checks_refuse_each_other_until_the_holder_is_gone(
    pipeline_folder: Path, images_folder: Path, tmp_path: Path
) -> None:
    generator = load_generator(str(pipeline_folder), device="cpu")
    out = tmp_path / "set"
    build(out, generator, images_folder)
    said = f"{out} is in use by another `attrib dataset` command; wait until it ends, or stop it"
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with held(out) as process:
        with pytest.raises(DataFolderBusyError) as caught:
            build(out, generator, images_folder)
        assert str(caught.value) == said
        with pytest.raises(DataFolderBusyError):
            write_card(out)
        with pytest.raises(DataFolderBusyError):
            check_dataset(out, object(), object())  # type: ignore[arg-type]
        # What only reads may look.
        assert check_dataset(out).problems == ()
        assert {path: path.read_bytes() for path in before} == before
        process.kill()
        process.wait()
    build(out, generator, images_folder)


def test_a_folder_that_is_begun_by_two_at_once_is_of_one(
    pipeline_folder: Path, images_folder: Path, tmp_path: Path
) -> None:
    """Another process makes the folder while this one still plans."""
    generator = load_generator(str(pipeline_folder), device="cpu")
    out = tmp_path / "set"
    lists = shipped_prompts("object")
    with ExitStack() as others:

        def slow() -> Generator:
            out.mkdir()
            others.enter_context(held(out))
            return generator

        with pytest.raises(DataFolderBusyError):
            build_dataset(
                out, Library([str(images_folder)]), slow, lists, BuildSettings(), {"name": "tiny"}
            )
    assert not (out / "plan.json").exists()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / ".lock").mkdir()
    with pytest.raises(DataFolderError, match=r"^cannot write .*: "), taken(tmp_path):
        pass
