"""Prometheus, its alerts and Grafana's dashboard: do they ask for what is there?"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from workers.board import QUEUE

FOREIGN: dict[str, set[str]] = {
    # Prometheus itself.
    "up": {"job", "instance"},
    # Qdrant 1.19, src/common/metrics.rs.
    "app_status_recovery_mode": set(),
    "cluster_working_state": {"state"},
    "collection_dead_replicas": set(),
    "collection_points": {"id"},
    "collection_running_optimizations": {"id"},
    "collection_update_queue_length": {"id"},
    "grpc_responses_duration_seconds_bucket": {"endpoint", "le"},
    "grpc_responses_total": {"endpoint"},
    "memory_resident_bytes": set(),
    "process_major_page_faults_total": set(),
    "process_open_mmaps": set(),
    "quota_exceeded": {"resource"},
    "system_max_mmaps": set(),
    # redis_exporter 1.62.
    "redis_key_size": {"db", "key"},
    "redis_memory_max_bytes": set(),
    "redis_memory_used_bytes": set(),
    "redis_up": set(),
}


@pytest.fixture(scope="module")
def rules(deploy: Path) -> list[dict[str, Any]]:
    groups = yaml.safe_load((deploy / "prometheus" / "alerts.yml").read_text(encoding="utf-8"))
    return [rule for group in groups["groups"] for rule in group["rules"]]


@pytest.fixture(scope="module")
def dashboard(deploy: Path) -> Any:
    return json.loads((deploy / "grafana/dashboards/attrib.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def prometheus(deploy: Path) -> Any:
    return yaml.safe_load((deploy / "prometheus/prometheus.yml").read_text(encoding="utf-8"))


def panels(dashboard: Any) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


@pytest.fixture(scope="module")
def questions(rules: list[dict[str, Any]], dashboard: Any) -> list[str]:
    """Every expression of the alerts and of the dashboard, Grafana's variables filled in."""
    asked = [target["expr"] for panel in panels(dashboard) for target in panel["targets"]]
    asked = [re.sub(r"\$__(rate_interval|range)", "5m", text) for text in asked]
    return [rule["expr"] for rule in rules] + asked


def selectors(node: Any) -> Iterator[Any]:
    """The series that a parsed expression asks for."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node
    elif isinstance(node, promql_parser.MatrixSelector):
        yield node.vector_selector
    else:
        for name in ("expr", "lhs", "rhs"):
            if hasattr(node, name):
                yield from selectors(getattr(node, name))
        for argument in getattr(node, "args", []):
            yield from selectors(argument)


def labels_named(text: str) -> set[str]:
    """Labels that are grouped by, or filled into a legend."""
    grouped = re.findall(r"\bby \(([^)]*)\)", text)
    return {label.strip() for group in grouped for label in group.split(",")}


def test_series_that_are_asked_for_are_exported(
    questions: list[str], exported: dict[str, set[str]]
) -> None:
    known = exported | FOREIGN
    asked: set[str] = set()
    for text in questions:
        found = list(selectors(promql_parser.parse(text)))
        assert found, text
        for selector in found:
            asked.add(selector.name)
            assert selector.name in known, selector.name
            labels = known[selector.name] | FOREIGN["up"]
            assert {match.name for match in selector.matchers.matchers} <= labels, text
            assert labels_named(text) <= labels, text
    assert {name for name in asked if name.startswith("attrib_")}
    assert set(FOREIGN) <= asked, "named above, and asked for by nobody"
    with pytest.raises(ValueError, match="unclosed"):
        promql_parser.parse("sum(rate(up[5m])")


def test_every_series_of_a_worker_is_shown(dashboard: Any, exported: dict[str, set[str]]) -> None:
    text = json.dumps(dashboard)
    workers = {name for name in exported if name.startswith("attrib_worker_")}
    shown = {name for name in workers if re.search(rf"\b{name}\b", text)}
    assert {name.removesuffix("_sum").removesuffix("_count") for name in workers - shown} <= {
        name.removesuffix("_bucket") for name in shown
    }


def test_alerts_say_what_is_the_matter_and_what_to_do(
    rules: list[dict[str, Any]], fault: Callable[[list[str]], str | None]
) -> None:
    names = [rule["alert"] for rule in rules]
    assert len(set(names)) == len(names) > 10
    for rule in rules:
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert set(rule["annotations"]) == {"summary", "action"}
        for command in re.findall(r"`attrib (\w+)`", rule["annotations"]["action"]):
            said = fault([command])
            assert said is None or "Missing" in said, said


def test_the_dashboard_is_complete_and_asks_the_source_that_is_provisioned(
    deploy: Path, dashboard: Any, compose: Any
) -> None:
    provisioning = deploy / "grafana" / "provisioning"
    sources = yaml.safe_load((provisioning / "datasources/prometheus.yaml").read_text())
    (source,) = sources["datasources"]
    host, port = re.fullmatch(r"http://([a-z]+):(\d+)", source["url"]).groups()  # type: ignore[union-attr]
    assert compose["services"][host]["ports"] == [f"127.0.0.1:{port}:{port}"]
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in panels(dashboard):
        asked = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
        assert all(one == {"type": source["type"], "uid": source["uid"]} for one in asked)
        grid = panel["gridPos"]
        assert grid["x"] + grid["w"] <= 24


def test_panels_do_not_cover_one_another(dashboard: Any) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        grid = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(grid["x"], grid["x"] + grid["w"])
            for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


def test_grafana_finds_its_dashboard_where_compose_puts_it(deploy: Path, compose: Any) -> None:
    grafana = compose["services"]["grafana"]
    mounts = dict(volume.split(":")[:2] for volume in grafana["volumes"])
    provider = yaml.safe_load(
        (deploy / "grafana/provisioning/dashboards/attrib.yaml").read_text(encoding="utf-8")
    )["providers"][0]
    assert provider["options"]["path"] == mounts["./grafana/dashboards"]
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    inside = home.removeprefix(mounts["./grafana/dashboards"] + "/")
    assert (deploy / "grafana" / "dashboards" / inside).is_file()


def test_prometheus_finds_its_files_and_what_it_asks(
    deploy: Path, prometheus: Any, compose: Any
) -> None:
    service = compose["services"]["prometheus"]
    mounts = {at: here for here, at in (volume.split(":")[:2] for volume in service["volumes"])}
    config = next(word for word in service["command"] if "config.file" in word)
    for path in [config.split("=")[1], *prometheus["rule_files"]]:
        assert (deploy / mounts[path]).is_file()
    jobs = {job["job_name"]: job for job in prometheus["scrape_configs"]}
    secret = jobs["qdrant"]["authorization"]["credentials_file"].removeprefix("/run/secrets/")
    assert secret in service["secrets"]
    assert compose["secrets"][secret] == {"environment": "QDRANT_READ_ONLY_API_KEY"}
    (worker,) = jobs["attrib-worker"]["dns_sd_configs"]
    assert worker["names"] == ["worker"]
    assert compose["services"]["worker"]["expose"] == [str(worker["port"])]
    service_key = jobs["attrib-serve"]["authorization"]["credentials_file"]
    name = service_key.removeprefix("/run/secrets/")
    assert name in service["secrets"]
    assert compose["secrets"][name] == {"environment": "ATTRIB_READ_KEY"}
    (served,) = jobs["attrib-serve"]["dns_sd_configs"]
    assert served["names"] == ["serve"]
    assert compose["services"]["serve"]["ports"][0].endswith(f":{served['port']}")
    for job in ("qdrant", "redis"):
        host, port = jobs[job]["static_configs"][0]["targets"][0].split(":")
        ports = compose["services"][host]
        assert port in [
            p.split(":")[-1] for p in [*ports.get("ports", []), *ports.get("expose", [])]
        ]


def test_the_queue_that_is_watched_is_the_one_that_workers_take_from(
    compose: Any, questions: list[str]
) -> None:
    watched = compose["services"]["redis-exporter"]["environment"]
    assert watched["REDIS_EXPORTER_CHECK_SINGLE_KEYS"] == f"db0={QUEUE}"
    named = {key for text in questions for key in re.findall(r'key="([^"]*)"', text)}
    assert named == {QUEUE}
