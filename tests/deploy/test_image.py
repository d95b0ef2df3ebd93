"""deploy/Dockerfile: what can be known of it without building it."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def steps(deploy: Path) -> list[tuple[str, str]]:
    """Every instruction of the Dockerfile with its arguments, comments and line ends gone."""
    text = (deploy / "Dockerfile").read_text(encoding="utf-8")
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    joined = lines.replace("\\\n", " ")
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


def last_stage(steps: list[tuple[str, str]]) -> list[tuple[str, str]]:
    start = max(at for at, (word, _) in enumerate(steps) if word == "FROM")
    return steps[start:]


def copied(steps: list[tuple[str, str]]) -> Iterator[str]:
    """What is copied out of the repository."""
    for word, rest in steps:
        if word == "COPY" and "--from=" not in rest:
            yield from shlex.split(rest)[:-1]


def test_what_is_copied_exists_and_is_let_through(
    steps: list[tuple[str, str]], root: Path, deploy: Path
) -> None:
    rules = (deploy / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [rule for rule in rules if rule and not rule.startswith("#")]
    assert rules[0] == "*"
    let = {rule[1:] for rule in rules if rule.startswith("!")}
    wanted = set(copied(steps))
    assert let == wanted
    for name in wanted:
        assert (root / name).exists(), name
        assert not any(fnmatch(name, rule) for rule in rules[1:] if not rule.startswith("!"))


def test_every_package_of_the_wheel_is_copied_and_its_readme(
    steps: list[tuple[str, str]], root: Path
) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {*wheel["packages"], "pyproject.toml", project["project"]["readme"]}
    assert needed <= set(copied(steps))


def test_requirements_are_those_of_the_project(
    steps: list[tuple[str, str]], root: Path, tmp_path: Path
) -> None:
    line = next(rest for word, rest in steps if word == "RUN" and "tomllib" in rest)
    program = re.search(r'python -c "(.*?)"', line)
    assert program
    (tmp_path / "pyproject.toml").write_bytes((root / "pyproject.toml").read_bytes())
    done = subprocess.run(
        [sys.executable, "-c", program[1]], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    assert done.stdout.split("\n")[:-1] == [
        *project["dependencies"],
        *extras["s3"],
        *extras["gcs"],
    ]


def test_base_images_are_pinned(steps: list[tuple[str, str]]) -> None:
    arguments = dict(rest.split("=", 1) for word, rest in steps if word == "ARG")
    stages: set[str] = set()
    for rest in (rest for word, rest in steps if word == "FROM"):
        image, _, stage = (part.strip() for part in rest.partition(" AS "))
        for name, value in arguments.items():
            image = image.replace(f"${{{name}}}", value)
        assert image in stages or re.fullmatch(r"[a-z/]+:\d+\.\d+\.\d+[\w.-]*", image), image
        stages.add(stage)
    assert {"torch-cpu", "torch-cuda"} <= stages


def test_the_image_runs_as_nobody_special_and_can_build_nothing(
    steps: list[tuple[str, str]], root: Path
) -> None:
    final = last_stage(steps)
    user = next(rest for word, rest in final if word == "USER")
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user)
    assert [word for word, _ in final].index("USER") < [word for word, _ in final].index("CMD")
    runs = " ".join(rest for word, rest in final if word == "RUN")
    assert "pip uninstall" in runs
    assert not re.search(r"apt-get|pip install|gcc|build-essential", runs)
    everything = "\n".join(f"{word} {rest}" for word, rest in steps)
    assert "PIP_NO_CACHE_DIR=1" in everything
    requires = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    minimum = requires["requires-python"].removeprefix(">=")
    assert f"PYTHON={minimum}." in everything


def test_the_command_of_the_image_exists_and_its_health_is_what_it_serves(
    steps: list[tuple[str, str]], fault: Callable[[list[str]], str | None]
) -> None:
    final = dict(last_stage(steps))
    assert json.loads(final["ENTRYPOINT"]) == ["attrib"]
    command = json.loads(final["CMD"])
    assert fault(command) is None
    port = command[command.index("--metrics-port") + 1]
    assert final["EXPOSE"] == port
    assert f"http://127.0.0.1:{port}/metrics" in final["HEALTHCHECK"]


def test_variables_of_the_image_are_read_by_attrib(
    steps: list[tuple[str, str]], variables: set[str]
) -> None:
    settings = " ".join(rest for word, rest in last_stage(steps) if word == "ENV")
    named = set(re.findall(r"\bATTRIB_[A-Z_]+(?==)", settings))
    assert {"ATTRIB_DATA", "ATTRIB_HOME", "ATTRIB_WEIGHTS"} <= named
    assert named <= variables
    made = next(rest for word, rest in last_stage(steps) if word == "RUN")
    for folder in re.findall(r"ATTRIB_[A-Z]+=(/\S+)", settings):
        assert re.search(rf"install -d .*{folder}\b", made), folder
