"""deploy/kubernetes: against the API's schemas, and against one another."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from search.index_url import parse_index_url
from search.service.app import make_app
from search.service.engine import Engine
from search.service.metrics import Metrics
from search.service.settings import ServiceSettings
from workers.board import QUEUE

Manifests = dict[Path, list[dict[str, Any]]]
OLDEST = "1.31"
FOREIGN = ("keda.sh/", "monitoring.coreos.com/")


def objects(manifests: Manifests, *kinds: str) -> Iterator[dict[str, Any]]:
    """Whole objects, patches left out."""
    for path, documents in manifests.items():
        if path.parts[-3:] == ("overlays", "gpu", "worker.yaml"):
            continue
        yield from (doc for doc in documents if not kinds or doc["kind"] in kinds)


def pods(manifests: Manifests) -> dict[str, dict[str, Any]]:
    """Pods and templates of pods, by the name of what makes them."""
    return {
        doc["metadata"]["name"]: doc if doc["kind"] == "Pod" else doc["spec"]["template"]
        for doc in objects(manifests, "StatefulSet", "Deployment", "Job", "Pod")
    }


def walk(value: Any, key: str) -> Iterator[Any]:
    """Everything that stands under that key, at any depth."""
    if isinstance(value, dict):
        for name, one in value.items():
            if name == key:
                yield one
            yield from walk(one, key)
    elif isinstance(value, list):
        for one in value:
            yield from walk(one, key)


@pytest.mark.parametrize("version", [OLDEST, "latest"])
def test_manifests_are_what_the_api_takes(manifests: Manifests, version: str) -> None:
    wanted = kubernetes_validate.latest_version() if version == "latest" else version
    checked = 0
    for document in objects(manifests):
        if not document["apiVersion"].startswith(FOREIGN):
            kubernetes_validate.validate(document, wanted, strict=True)
            checked += 1
    assert checked > 10
    broken = next(objects(manifests, "Deployment"))
    broken = {**broken, "spec": {**broken["spec"], "replica": 2}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, wanted, strict=True)


def test_kustomizations_name_files_that_exist_and_forget_none(deploy: Path) -> None:
    named: set[Path] = set()
    for path in (deploy / "kubernetes").rglob("kustomization.yaml"):
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        entries = [*document["resources"], *(p["path"] for p in document.get("patches", []))]
        for entry in entries:
            target = (path.parent / entry).resolve()
            assert target.exists(), f"{path}: {entry}"
            named.add(target)
    files = {
        path.resolve()
        for path in (deploy / "kubernetes").rglob("*.yaml")
        if path.name != "kustomization.yaml"
    }
    assert files <= named


@pytest.mark.parametrize("folder", ["base", "overlays/gpu", "ingest", "shell", "serve"])
@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kustomize_builds_what_the_api_takes(deploy: Path, folder: str) -> None:
    done = subprocess.run(
        ["kubectl", "kustomize", str(deploy / "kubernetes" / folder)],
        capture_output=True,
        text=True,
        check=True,
    )
    for document in yaml.safe_load_all(done.stdout):
        if not document["apiVersion"].startswith(FOREIGN):
            kubernetes_validate.validate(document, OLDEST, strict=True)
        if document["kind"] != "Namespace":
            assert document["metadata"]["namespace"] == "attrib"
        for image in walk(document, "image"):
            assert re.search(r":v?\d+\.\d+\.\d+[\w.-]*$", image), image
        if folder == "overlays/gpu" and document["metadata"]["name"] == "worker":
            for container in walk(document, "containers"):
                assert container[0]["image"].endswith("-cuda")
                assert container[0]["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_the_gpu_patch_changes_the_deployment_that_there_is(deploy: Path) -> None:
    folder = deploy / "kubernetes"
    patch = yaml.safe_load((folder / "overlays/gpu/worker.yaml").read_text(encoding="utf-8"))
    base = yaml.safe_load((folder / "base/worker.yaml").read_text(encoding="utf-8"))
    assert (patch["kind"], patch["metadata"]["name"]) == (base["kind"], base["metadata"]["name"])
    names = [next(walk(one, "containers"))[0]["name"] for one in (patch, base)]
    assert names[0] == names[1]
    assert patch["spec"]["replicas"] is None  # a number would undo what KEDA chose


def test_pods_run_without_privileges(manifests: Manifests) -> None:
    for name, pod in pods(manifests).items():
        assert pod["spec"]["automountServiceAccountToken"] is False, name
        # Kubernetes would set QDRANT_PORT and the like, which programs read as settings.
        assert pod["spec"]["enableServiceLinks"] is False, name
        context = pod["spec"]["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["runAsUser"] > 0
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["spec"]["containers"]:
            inner = container["securityContext"]
            assert inner["readOnlyRootFilesystem"] is True
            assert inner["allowPrivilegeEscalation"] is False
            assert inner["capabilities"] == {"drop": ["ALL"]}


def test_pods_ask_for_what_they_need_and_say_how_they_are(manifests: Manifests) -> None:
    for name, pod in pods(manifests).items():
        for container in pod["spec"]["containers"]:
            assert {"cpu", "memory"} <= set(container["resources"]["requests"]), name
            assert "memory" in container["resources"]["limits"]
            if name not in ("ingest", "shell"):  # these serve nobody
                assert {"livenessProbe", "readinessProbe"} <= set(container), name


def test_named_ports_are_ports_of_the_container(manifests: Manifests) -> None:
    ports: dict[str, dict[str, int]] = {}
    for name, pod in pods(manifests).items():
        (container,) = pod["spec"]["containers"]
        ports[name] = {port["name"]: port["containerPort"] for port in container.get("ports", [])}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            for port in walk(container.get(probe, {}), "port"):
                assert port in ports[name]
    for service in objects(manifests, "Service"):
        there = ports[service["spec"]["selector"]["app.kubernetes.io/name"]]
        for port in service["spec"]["ports"]:
            assert there[port["targetPort"]] == port["port"]
    for monitor in objects(manifests, "PodMonitor"):
        there = ports[monitor["spec"]["selector"]["matchLabels"]["app.kubernetes.io/name"]]
        for port in walk(monitor, "port"):
            assert port in there


def test_selectors_select_the_pods_that_there_are(manifests: Manifests) -> None:
    there = {
        pod["metadata"]["labels"]["app.kubernetes.io/name"] for pod in pods(manifests).values()
    }
    assert there == {"qdrant", "redis", "worker", "ingest", "shell", "serve"}
    for document in objects(manifests):
        for selector in walk(document, "matchLabels"):
            if "app.kubernetes.io/name" in selector:
                assert selector["app.kubernetes.io/name"] in there
        for expression in walk(document, "matchExpressions"):
            assert set(expression[0]["values"]) <= there


def test_what_is_opened_between_pods_is_a_port_that_they_have(manifests: Manifests) -> None:
    known = {
        str(port)
        for pod in pods(manifests).values()
        for container in pod["spec"]["containers"]
        for port in [each["containerPort"] for each in container.get("ports", [])]
    }
    policies = list(objects(manifests, "NetworkPolicy"))
    for policy in policies:
        for ports in walk(policy["spec"], "ports"):
            assert {str(port["port"]) for port in ports} <= known | {"53", "80", "443"}
    shut = next(p for p in policies if p["metadata"]["name"] == "nothing")["spec"]
    assert shut == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_no_worker_reaches_private_networks_or_the_metadata_of_the_cloud(
    manifests: Manifests,
) -> None:
    (worker,) = (
        policy
        for policy in objects(manifests, "NetworkPolicy")
        if policy["metadata"]["name"] == "worker"
    )
    (block,) = walk(worker, "ipBlock")
    assert {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"} <= set(
        block["except"]
    )


def test_secrets_are_made_by_hand_and_never_stand_in_a_manifest(
    manifests: Manifests, page: str
) -> None:
    assert not list(objects(manifests, "Secret"))
    made = re.search(r"create secret generic attrib \\\n(.*?)\n```", page, re.DOTALL)
    assert made
    keys = set(re.findall(r"--from-literal=([a-z-]+)=", made[1]))
    used = {
        ref["key"]
        for document in objects(manifests)
        for kind in ("secretKeyRef", "secretTargetRef", "credentials")
        for found in walk(document, kind)
        for ref in (found if isinstance(found, list) else [found])
        if ref["name"] == "attrib"
    }
    assert keys == used
    assert used == {
        "qdrant-api-key",
        "qdrant-read-only-api-key",
        "redis-password",
        "service-read-key",
    }


def test_volumes_that_are_mounted_are_there(manifests: Manifests) -> None:
    claims = {doc["metadata"]["name"] for doc in objects(manifests, "PersistentVolumeClaim")}
    for document in objects(manifests, "StatefulSet", "Deployment", "Job", "Pod"):
        spec = document["spec"].get("template", document)["spec"]
        templates = document["spec"].get("volumeClaimTemplates", [])
        there = {each["name"] for each in spec.get("volumes", [])}
        there |= {each["metadata"]["name"] for each in templates}
        mounted = {mount["name"] for mount in spec["containers"][0]["volumeMounts"]}
        assert mounted == there, document["metadata"]["name"]
        assert set(walk(spec, "claimName")) <= claims


def test_a_node_of_qdrant_may_go_and_nodes_find_one_another(manifests: Manifests) -> None:
    (budget,) = objects(manifests, "PodDisruptionBudget")
    assert budget["spec"]["maxUnavailable"] == 1
    (qdrant,) = (
        doc for doc in objects(manifests, "StatefulSet") if doc["metadata"]["name"] == "qdrant"
    )
    assert qdrant["spec"]["replicas"] >= 3  # fewer have no majority without one of them
    names = {doc["metadata"]["name"]: doc["spec"] for doc in objects(manifests, "Service")}
    nodes = names[qdrant["spec"]["serviceName"]]
    assert nodes["clusterIP"] == "None"
    assert nodes["publishNotReadyAddresses"] is True
    (container,) = qdrant["spec"]["template"]["spec"]["containers"]
    (script,) = container["args"]
    assert script.count(f".{qdrant['spec']['serviceName']}:6335") == 2
    variables = {each["name"]: each.get("value") for each in container["env"]}
    assert variables["QDRANT__CLUSTER__ENABLED"] == "true"
    assert variables["QDRANT__CLUSTER__P2P__PORT"] == "6335"
    hosts = next(walk(qdrant, "requiredDuringSchedulingIgnoredDuringExecution"))
    assert hosts[0]["topologyKey"] == "kubernetes.io/hostname"


@pytest.mark.parametrize(("pod", "first"), [("qdrant-0", True), ("qdrant-2", False)])
def test_the_first_node_makes_the_cluster_and_the_others_join_it(
    manifests: Manifests, tmp_path: Path, pod: str, first: bool
) -> None:
    (container,) = pods(manifests)["qdrant"]["spec"]["containers"]
    program = tmp_path / "qdrant"
    program.write_text('#!/bin/sh\necho "$@"\n')
    program.chmod(0o755)
    done = subprocess.run(
        [*container["command"], *container["args"]],
        cwd=tmp_path,
        env={"POD_NAME": pod, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    own = f"--uri http://{pod}.qdrant-nodes:6335"
    joined = f"--bootstrap http://qdrant-0.qdrant-nodes:6335 {own}"
    assert done.stdout.strip() == (own if first else joined)


def test_commands_exist_and_variables_are_read(
    manifests: Manifests,
    deploy: Path,
    fault: Callable[[list[str]], str | None],
    variables: set[str],
) -> None:
    names = {doc["metadata"]["name"] for doc in objects(manifests, "Service")}
    commands = [
        pods(manifests)[name]["spec"]["containers"][0] for name in ("worker", "ingest", "serve")
    ]
    patch = yaml.safe_load((deploy / "kubernetes/overlays/gpu/worker.yaml").read_text())
    commands += next(walk(patch, "containers"))
    ingest = yaml.safe_load((deploy / "kubernetes/ingest/kustomization.yaml").read_text())
    (generated,) = ingest["configMapGenerator"]
    settings = dict(literal.split("=", 1) for literal in generated["literals"])
    for container in commands:
        assert fault(container["args"]) is None
        own = {each["name"]: each.get("value", "") for each in container.get("env", [])}
        assert {name for name in own if name.startswith("ATTRIB_")} <= variables
        for address in [value for value in own.values() if "://" in value]:
            assert re.search(r"@([a-z-]+):", address)[1] in names  # type: ignore[index]
        used = set(re.findall(r"\$\(([A-Z_]+)\)", " ".join([*container["args"], *own.values()])))
        assert used <= set(own) | set(settings)
    assert {name for name in settings if name.startswith("ATTRIB_")} <= variables
    assert parse_index_url(settings["ATTRIB_INDEX"]).host in names


def test_the_service_is_asked_where_it_answers(manifests: Manifests) -> None:
    (container,) = pods(manifests)["serve"]["spec"]["containers"]
    (port,) = container["ports"]
    assert port["containerPort"] == ServiceSettings().port
    probes = ("startupProbe", "livenessProbe", "readinessProbe")
    paths = [container[probe]["httpGet"]["path"] for probe in probes]
    assert paths == ["/healthz", "/healthz", "/readyz"]
    served = make_app(
        Engine(Path("none"), ServiceSettings(), metrics := Metrics()), ServiceSettings(), metrics
    ).openapi()["paths"]
    monitors = {doc["metadata"]["name"]: doc for doc in objects(manifests, "PodMonitor")}
    scraped = next(walk(monitors["attrib-serve"], "podMetricsEndpoints"))[0]["path"]
    assert {*paths, scraped} <= set(served)


def test_workers_grow_with_the_queue_that_they_take_from(manifests: Manifests) -> None:
    (scaled,) = objects(manifests, "ScaledObject")
    (trigger,) = scaled["spec"]["triggers"]
    assert trigger["type"] == "redis"
    assert trigger["metadata"]["listName"] == QUEUE
    assert scaled["spec"]["scaleTargetRef"]["name"] in pods(manifests)
    assert trigger["metadata"]["address"] == "redis.attrib.svc:6379"
    (authentication,) = objects(manifests, "TriggerAuthentication")
    assert trigger["authenticationRef"]["name"] == authentication["metadata"]["name"]
