"""Models made by real workers through a real Redis: the set that one process makes."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from attrib.cli import app
from evaluation.dataset.build import BuildReport, build_dataset, generator_hash
from evaluation.dataset.generator import Generator
from evaluation.dataset.library import Library
from evaluation.dataset.plan import loads_plan, plan_dataset
from evaluation.dataset.prompts import shipped_prompts
from evaluation.dataset.settings import BuildSettings, Customization, Sampling, settings_of
from ingest.errors import UsageError, WorkersError
from workers.dataset_board import DatasetBoard
from workers.dataset_coordinator import ModelWorkers
from workers.dataset_order import ModelOrder, read_model_order
from workers.dispatch import CoordinatorSettings


def _program(name: str) -> Any:
    """A module of the workers' own tests."""
    if name not in sys.modules:
        path = Path(__file__).parents[1] / "workers" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


_program("slow_backbone")
processes = _program("processes")
wait_for = processes.wait_for
Redis = Any
Workers = Any

SETTINGS = BuildSettings(
    models=4,
    per_model=4,
    base_images=2,
    splits=(0.5, 0.25, 0.25),
    customization=Customization(steps=3, batch_size=2, learning_rate=1e-3, prior_images=2),
    sampling=Sampling(steps=3, batch_size=2),
)
PROGRAM = (sys.executable, "-m", "workers.dataset_child")


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    server = processes.Redis(tmp_path / "redis")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def workers(redis: Redis, tmp_path: Path) -> Iterator[Workers]:
    some = processes.Workers(redis, tmp_path / "workers.log")
    yield some
    print(some.stop())


def build(
    out: Path,
    generator: Generator,
    images: Path,
    settings: BuildSettings = SETTINGS,
    *,
    make: ModelWorkers | None = None,
    device: str = "cpu",
) -> BuildReport:
    name = {
        "name": "tiny",
        "revision": "",
        "sha256": generator_hash(generator.name),
        "device": device,
    }
    lists = shipped_prompts("object")
    return build_dataset(
        out, Library([str(images)]), lambda: generator, lists, settings, name, make=make
    )


def through(
    redis: Redis, generator: Generator, images: Path, notices: list[str], **more: Any
) -> ModelWorkers:
    return ModelWorkers(
        redis.url,
        generator=generator.name,
        revision=None,
        exemplars=[str(images)],
        class_field=None,
        settings=CoordinatorSettings(**{"lease_s": 2.0, "max_attempts": 2, **more}),
        notice=notices.append,
    )


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_workers_that_are_killed_make_the_set_of_one_process(
    generator: Generator, images_folder: Path, tmp_path: Path, redis: Redis, workers: Workers
) -> None:
    build(tmp_path / "here", generator, images_folder)
    out, notices = tmp_path / "there", list[str]()
    workers.start(2, program=PROGRAM)
    killed: list[int] = []

    def kill() -> None:
        """One process at its first model, and Redis a moment later, with all that it held."""
        wait_for(lambda: list(out.glob(".work/0*-*")), 90)
        killed.append(workers.children()[0])
        os.kill(killed[0], signal.SIGKILL)
        redis.kill()
        redis.start()

    thread = threading.Thread(target=kill)
    thread.start()
    make = through(redis, generator, images_folder, notices)
    report = build(out, generator, images_folder, make=make)
    thread.join()
    assert report.made == 4
    assert killed
    assert bytes_of(out) == bytes_of(tmp_path / "here")
    # Finished: nothing is sent, and nobody needed.
    workers.stop()
    assert build(out, generator, images_folder, make=make).made == 0


def test_a_worker_that_would_make_another_set_refuses_and_the_build_says_so(
    generator: Generator, images_folder: Path, tmp_path: Path, redis: Redis, workers: Workers
) -> None:
    notices: list[str] = []
    make = through(redis, generator, images_folder, notices)
    stopped = threading.Event()
    one = replace(SETTINGS, models=1)

    def call() -> None:
        with pytest.raises(WorkersError):
            build(tmp_path / "set", generator, images_folder, one, make=make, device="cuda")
        stopped.set()

    workers.start(1, program=PROGRAM)
    thread = threading.Thread(target=call)
    thread.start()
    wait_for(lambda: notices, 90)
    assert notices[0] == (
        "worker worker-0 refuses: kind of device is cpu here, and cuda where the dataset was "
        "planned"
    )
    wait_for(lambda: "no process of this worker can do the work" in workers.said(), 30)
    assert not (tmp_path / "set" / "manifest.json").exists()
    # The build waits for others. This one makes what it can and fails at it, to end the test.
    failing = (
        "from workers.dataset_task import ModelRunner\n"
        "import workers.dataset_child, sys\n"
        "def fails(self, order, life): raise OSError('no space')\n"
        "ModelRunner._make = fails\n"
        "workers.dataset_child.main(workers.dataset_child.ChildConfig.loads(sys.argv[-1]))\n"
    )
    workers.start(1, program=(sys.executable, "-c", failing))
    wait_for(stopped.is_set, 90)
    thread.join()
    assert notices[-1] == ("model 0000 is given up after 2 attempts: unexpected OSError: no space")


def test_a_model_that_fails_is_named_and_the_others_are_made(
    generator: Generator, images_folder: Path, tmp_path: Path, redis: Redis, workers: Workers
) -> None:
    """The exemplar of one is damaged behind the build's back."""
    notices: list[str] = []
    real = through(redis, generator, images_folder, notices)

    def make(out: Path, models: Any, advance: Any) -> None:
        (out / models[1].exemplars[0]).write_bytes(b"no image")
        real(out, models, advance)

    workers.start(1, program=PROGRAM)
    out = tmp_path / "set"
    two = replace(SETTINGS, models=2)
    with pytest.raises(WorkersError) as caught:
        build(out, generator, images_folder, two, make=make)  # type: ignore[arg-type]
    assert str(caught.value) == (
        "1 of 2 models failed (model 0001: not an image); the same command tries them again"
    )
    assert (out / "models" / "0000.json").is_file()
    assert not (out / "manifest.json").exists()
    assert build(out, generator, images_folder, two, make=real).made == 1
    build(tmp_path / "here", generator, images_folder, two)
    assert bytes_of(out) == bytes_of(tmp_path / "here")


def test_as_it_is_typed(
    pipeline_folder: Path,
    images_folder: Path,
    tmp_path: Path,
    redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ATTRIB_HOME", str(tmp_path / "home"))
    call = [
        *("dataset", "build", "--generator", str(pipeline_folder), "--models", "2"),
        *("--exemplars", str(images_folder), "--per-model", "2", "--steps", "1"),
        *("--batch-size", "1", "--prior-images", "1", "--sampling-steps", "1"),
        *("--device", "cpu", "--judge", "efficientnet-lite0-stages-48px"),
    ]
    worker = [sys.executable, "-m", "attrib", "dataset", "worker", "--redis", redis.url]
    with subprocess.Popen(
        [*worker, "--device", "cpu", "--threads", "1", "--name", "w"],
        cwd=processes.ROOT,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        there = [*call, "--workers", "--redis", redis.url, "--lease", "5"]
        done = CliRunner().invoke(app, [*there, "--out", str(tmp_path / "there")])
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert done.exit_code == 0, done.stderr
    assert f"{tmp_path / 'there'}: 2 models (2 made now), 4 images" in done.stdout
    assert said.splitlines()[0] == (
        f"attrib: 1 process at work for Redis at {redis.url.removesuffix('/0')}/0"
    )
    assert process.returncode == 0
    done = CliRunner().invoke(app, [*call, "--out", str(tmp_path / "here")])
    assert done.exit_code == 0, done.stderr
    assert bytes_of(tmp_path / "there") == bytes_of(tmp_path / "here")


def test_plans_and_orders_come_back_from_json(images_folder: Path) -> None:
    plan = plan_dataset(
        Library([str(images_folder)]),
        shipped_prompts("object"),
        SETTINGS,
        lambda word: True,
        {"name": "tiny"},
        {"torch": "2"},
    )
    back = loads_plan(plan.dumps())
    assert back.dumps() == plan.dumps()
    assert back.models == plan.models
    assert settings_of(back.settings) == SETTINGS
    for wrong in ("[]", "{}", '{"schema": "attrib-dataset/9"}', "{"):
        with pytest.raises(ValueError):  # noqa: PT011 (of any text)
            loads_plan(wrong)
    with pytest.raises(ValueError, match="no settings of a dataset"):
        settings_of({"kind": "object"})
    order = ModelOrder("p", "s", 3, "/out", "/gen", "", ("/a", "/b"), None, 60.0)
    assert read_model_order(order.values()) == order
    with pytest.raises(ValueError, match="no order"):
        read_model_order({"plan": "p"})


def test_nobody_at_the_address(tmp_path: Path) -> None:
    asked: dict[str, Any] = {
        "generator": "g",
        "revision": None,
        "exemplars": ["e"],
        "class_field": None,
        "settings": CoordinatorSettings(),
        "notice": print,
    }
    with pytest.raises(WorkersError, match=r"^Redis at redis://127\.0\.0\.1:9/0 does not answer"):
        ModelWorkers("redis://127.0.0.1:9/0", **asked)
    with pytest.raises(UsageError, match="is no address of Redis"):
        ModelWorkers("http://x", **asked)
    assert DatasetBoard("redis://127.0.0.1:9/0").address == "redis://127.0.0.1:9/0"
