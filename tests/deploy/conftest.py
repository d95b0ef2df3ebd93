"""What lies in deploy/, read once, and what attrib's own code says of itself."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from attrib.cli import app

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("attrib", "evaluation", "workers", "search", "embed", "ingest")
# `gauge` is a method of the service's metrics.
KINDS = {"Counter", "Gauge", "Histogram", "CounterMetricFamily", "GaugeMetricFamily", "gauge"}


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def deploy() -> Path:
    return ROOT / "deploy"


@pytest.fixture(scope="session")
def page() -> str:
    return (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def compose(deploy: Path) -> Any:
    return yaml.safe_load((deploy / "compose.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def example_env(deploy: Path) -> dict[str, str]:
    lines = (deploy / ".env.example").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@pytest.fixture(scope="session")
def manifests(deploy: Path) -> dict[Path, list[dict[str, Any]]]:
    """Documents of every Kubernetes manifest, those of Kustomize left out, by file."""
    return {
        path: [doc for doc in yaml.safe_load_all(path.read_text(encoding="utf-8")) if doc]
        for path in sorted((deploy / "kubernetes").rglob("*.yaml"))
        if path.name != "kustomization.yaml"
    }


def _trees() -> Iterator[ast.Module]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield ast.parse(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def variables() -> set[str]:
    """Environment variables of attrib that its code names."""
    return {
        node.value
        for tree in _trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.fullmatch(r"ATTRIB_[A-Z_]+", node.value)
    }


@pytest.fixture(scope="session")
def exported() -> dict[str, set[str]]:
    """Series that attrib's code exports to Prometheus, each with its labels."""
    found: dict[str, set[str]] = {}
    for call in (node for tree in _trees() for node in ast.walk(tree)):
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name | ast.Attribute)):
            continue
        kind = call.func.id if isinstance(call.func, ast.Name) else call.func.attr
        name = call.args[0].value if call.args and isinstance(call.args[0], ast.Constant) else None
        if kind not in KINDS or not isinstance(name, str) or not name.startswith("attrib_"):
            continue
        lists = [*call.args[2:3], *(k.value for k in call.keywords if "label" in (k.arg or ""))]
        labels = {
            each.value
            for part in lists
            for each in ast.walk(part)
            if isinstance(each, ast.Constant) and isinstance(each.value, str)
        }
        if kind == "Histogram":
            found |= {f"{name}_bucket": labels | {"le"}, f"{name}_sum": labels}
            found[f"{name}_count"] = labels
        elif kind.startswith("Counter"):
            found[f"{name.removesuffix('_total')}_total"] = labels
        else:
            found[name] = labels
    return found


@pytest.fixture(scope="session")
def fault() -> Callable[[list[str]], str | None]:
    """What the command line says against the words after `attrib`; nothing is run."""

    def look(command: Any, words: list[str], parent: Any) -> str | None:
        settings = command.context_settings
        context = command.context_class(command, info_name=command.name, parent=parent, **settings)
        try:
            _, rest, _ = command.make_parser(context).parse_args(list(words))
        except Exception as exc:  # click's UsageError: of click itself, or of the copy inside Typer
            return str(getattr(exc, "message", exc))
        if not hasattr(command, "get_command"):
            return None
        below = command.get_command(context, rest[0]) if rest else None
        return look(below, rest[1:], context) if below else f"no such command: {shlex.join(words)}"

    return lambda words: look(typer.main.get_command(app), words, None)
