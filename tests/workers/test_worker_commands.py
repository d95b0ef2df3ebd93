"""The commands as typed, with a real model, a real Redis and a real Ctrl-C."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_tars import state
from processes import ROOT, Redis, free_port, wait_for

_ATTRIB = (sys.executable, "-m", "attrib")
EXAMPLES = ROOT / "examples" / "training"


def attrib(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*_ATTRIB, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
    )


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    found = sorted(path for path in EXAMPLES.rglob("*") if path.suffix in (".jpg", ".png"))
    for path in found[:12]:
        shutil.copy(path, folder)
    (folder / "bad.jpg").write_bytes(b"no image")
    return folder


@pytest.fixture
def worker(redis: Redis) -> Iterator[tuple[subprocess.Popen[str], int]]:
    port = free_port()
    options = ["--redis", redis.url, "--device", "cpu", "--name", "here"]
    with subprocess.Popen(
        [*_ATTRIB, "worker", *options, "--metrics-port", str(port)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        yield process, port
        process.kill()


def metrics(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    rows = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in rows}


def test_an_ingest_by_a_worker_is_an_ingest(
    tmp_path: Path, redis: Redis, pictures: Path, worker: tuple[subprocess.Popen[str], int]
) -> None:
    process, port = worker
    options = ["--shard-size", 5, "--batch-size", 4, "--no-calibrate", "--dataset", "set"]
    done = attrib(
        "ingest",
        pictures,
        "--data",
        tmp_path / "there",
        "--workers",
        "--redis",
        redis.url,
        *options,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("set: 12 ingested, 1 rejected; ")
    assert attrib("ingest", pictures, "--data", tmp_path / "here", *options).returncode == 0
    assert state(tmp_path / "there") == state(tmp_path / "here")

    measured = metrics(port)
    assert measured['attrib_worker_images_total{result="ok"}'] == 12
    assert measured['attrib_worker_images_total{result="rejected"}'] == 1
    assert measured['attrib_worker_shards_total{state="done"}'] == 3
    assert measured['attrib_worker_shards_total{state="dead"}'] == 0
    assert measured["attrib_worker_shard_seconds_count"] == 3
    assert measured['attrib_worker_up{device="cpu"}'] == 1
    assert measured['attrib_worker_stage_seconds_total{stage="embed"}'] > 0

    shown = attrib("status", "--data", tmp_path / "there", "--redis", redis.url, "--json")
    now = json.loads(shown.stdout)
    assert (now["running"], now["state"]) == (False, "finished")
    assert (now["done"], now["total"], now["images"]) == (3, 3, 13)
    assert [(one["name"], one["device"]) for one in now["workers"]] == [("here", "cpu")]
    assert now["dead"] == []
    text = attrib("status", "--data", tmp_path / "there", "--redis", redis.url).stdout
    assert text.startswith("ingest   finished, dataset set\n")
    assert re.search(r"^rate     \d+ images/s on average$", text, re.MULTILINE)
    assert "shards   3 of 3 done, 0 at work, 0 waiting, 0 dead letters" in text
    assert re.search(r"here +cpu", text)
    for command, said in (("retry", "no shards to send again"), ("cancel", "0 shards given up")):
        done = attrib(command, "--data", tmp_path / "there", "--redis", redis.url)
        assert (done.returncode, done.stdout.strip()) == (0, said), done.stderr

    process.send_signal(signal.SIGINT)
    process.wait(timeout=20)
    assert process.returncode == 0
    assert process.stderr is not None
    said = process.stderr.read()
    assert "Traceback" not in said
    assert f"attrib: 1 process at work for Redis at {redis.url}" in said


def test_the_plan_as_a_whole_for_prometheus(
    tmp_path: Path, redis: Redis, pictures: Path, worker: tuple[subprocess.Popen[str], int]
) -> None:
    data, port = tmp_path / "data", free_port()
    options = ["--data", str(data), "--redis", redis.url]
    done = attrib("ingest", pictures, *options, "--workers", "--no-calibrate", "--shard-size", 5)
    assert done.returncode == 0, done.stderr
    with subprocess.Popen(
        [*_ATTRIB, "status", *options, "--metrics-port", str(port)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as status:
        try:
            assert status.stderr is not None
            line = f"attrib: metrics at http://127.0.0.1:{port}/metrics, until stopped\n"
            assert status.stderr.readline() == line
            assert metrics(port) == {
                "attrib_ingest_running": 0,
                "attrib_ingest_redis_up": 1,
                "attrib_ingest_workers": 1,
                'attrib_ingest_shards{state="done"}': 3,
                'attrib_ingest_shards{state="at_work"}': 0,
                'attrib_ingest_shards{state="waiting"}': 0,
                'attrib_ingest_shards{state="dead"}': 0,
                'attrib_ingest_images{result="ok"}': 12,
                'attrib_ingest_images{result="rejected"}': 1,
                "attrib_ingest_images_per_second": 0,
                "attrib_ingest_planned_shards": 3,
                "attrib_ingest_planned_images": 13,
            }
            redis.kill()
            assert metrics(port)["attrib_ingest_redis_up"] == 0
            taken = attrib("status", *options, "--metrics-port", port)
            assert taken.returncode == 2
            assert taken.stderr == (
                f"attrib: port {port} cannot be served: Address already in use; choose another "
                "--metrics-port\n"
            )
        finally:
            status.send_signal(signal.SIGINT)
        text, said = status.communicate(timeout=20)
    assert (status.returncode, text.splitlines()[0]) == (130, "ingest   finished, dataset pictures")
    assert "Traceback" not in said


def test_redis_that_does_not_answer(tmp_path: Path, pictures: Path) -> None:
    port = free_port()
    line = (
        f"attrib: Redis at redis://127.0.0.1:{port}/0 does not answer; start it with "
        "`redis-server`, or name another with --redis or ATTRIB_REDIS\n"
    )
    data = tmp_path / "data"
    for command in (
        ["ingest", pictures, "--workers", "--data", data],
        ["worker"],
    ):
        done = attrib(*command, "--redis", f"redis://:secret@127.0.0.1:{port}/0")
        assert (done.returncode, done.stdout, done.stderr) == (1, "", line)
    assert not data.exists()


def test_wrong_calls(tmp_path: Path, redis: Redis) -> None:
    data = tmp_path / "data"
    done = attrib("worker", "--redis", "http://127.0.0.1/")
    assert (done.returncode, done.stderr) == (
        2,
        "attrib: http://127.0.0.1/ is no address of Redis: write redis://HOST:PORT/0, or rediss:// "
        "for TLS\n",
    )
    for command in ("status", "retry", "cancel"):
        done = attrib(command, "--data", data, "--redis", redis.url)
        assert done.returncode == 1
        assert done.stderr == (
            f"attrib: {data} is no attrib data folder; make one with `attrib ingest SOURCE "
            f"--data {data}`\n"
        )
    (data).mkdir()
    (data / "attrib.json").write_text('{"format": 1}')
    for command in ("status", "retry", "cancel"):
        done = attrib(command, "--data", data, "--redis", redis.url)
        assert done.returncode == 1
        assert done.stderr == (
            f"attrib: no workers were asked to ingest into {data}; `attrib ingest SOURCE "
            f"--workers --data {data}` does\n"
        )


def test_the_metrics_port_is_taken(redis: Redis) -> None:
    done = attrib("worker", "--redis", redis.url, "--metrics-port", redis.port)
    assert done.returncode == 2
    assert done.stderr == (
        f"attrib: port {redis.port} cannot be served: Address already in use; choose another "
        "--metrics-port\n"
    )


def test_ctrl_c_while_waiting(tmp_path: Path, redis: Redis, pictures: Path) -> None:
    options = ["--redis", redis.url, "--data", str(tmp_path / "data")]
    with subprocess.Popen(
        [*_ATTRIB, "ingest", str(pictures), "--workers", *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        wait_for(lambda: redis.client().llen("attrib") == 1)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "attrib: stopped; the same command goes on where it stopped"
    assert "Traceback" not in said
