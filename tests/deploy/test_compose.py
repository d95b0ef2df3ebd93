"""deploy/compose.yaml: against the Compose schema, and against the files it stands between."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import redis
import yaml
from redis.backoff import NoBackoff
from redis.retry import Retry

from search.index_url import parse_index_url
from search.service.settings import ServiceSettings

VARIABLE = re.compile(r"(?<!\$)\$\{([A-Z_]+)(:[?-][^}]*)?\}")


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for one in value.values():
            yield from strings(one)
    elif isinstance(value, list):
        for one in value:
            yield from strings(one)
    elif isinstance(value, str):
        yield value


@pytest.mark.parametrize("name", ["compose.yaml", "compose.cuda.yaml"])
def test_the_files_are_what_the_compose_specification_says(deploy: Path, name: str) -> None:
    vendored = resources.files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json"
    schema = json.loads(vendored.read_text(encoding="utf-8"))
    document = yaml.safe_load((deploy / name).read_text(encoding="utf-8"))
    validator = jsonschema.validators.validator_for(schema)(schema)
    assert [error.message for error in validator.iter_errors(document)] == []
    document["services"]["worker"]["helthcheck"] = {}
    assert not validator.is_valid(document)


def test_the_gpu_file_changes_services_that_exist(deploy: Path, compose: Any) -> None:
    cuda = yaml.safe_load((deploy / "compose.cuda.yaml").read_text(encoding="utf-8"))
    assert set(cuda["services"]) == {"worker", "attrib"} <= set(compose["services"])
    for service in cuda["services"].values():
        assert service["build"]["args"] == {"VARIANT": "cuda"}
        assert service["image"].endswith("-cuda")


def test_variables_are_those_of_the_example_and_no_secret_has_a_default(
    compose: Any, example_env: dict[str, str]
) -> None:
    used = [match for text in strings(compose) for match in VARIABLE.finditer(text)]
    assert {match[1] for match in used} == set(example_env)
    for match in used:
        if re.search(r"KEY|PASSWORD", match[1]):
            assert (match[2] or "").startswith(":?"), f"{match[1]} may be empty"
    secrets = {name for name in example_env if re.search(r"KEY|PASSWORD", name)}
    assert len(secrets) == 5
    assert {example_env[name] for name in secrets} == {""}


def test_secrets_stay_out_of_git(deploy: Path, compose: Any) -> None:
    ignored = (deploy / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert ".env" in ignored
    for service in compose["services"].values():
        for file in service.get("env_file", []):
            assert file["path"] in ignored


def test_images_are_pinned_and_our_own_is_built_from_what_is_here(
    deploy: Path, compose: Any
) -> None:
    for name, service in compose["services"].items():
        assert re.search(r":v?\d+\.\d+\.\d+[\w.-]*$", service["image"]), name
        if "build" in service:
            context = (deploy / service["build"]["context"]).resolve()
            assert (context / service["build"]["dockerfile"]).is_file()
            assert service["image"].startswith("attrib:")


def test_every_service_says_whether_it_is_healthy(compose: Any) -> None:
    for name, service in compose["services"].items():
        own_image = service["image"].startswith("attrib:")  # the image has a check of its own
        assert own_image or service["healthcheck"]["test"], name
    assert compose["services"]["attrib"]["healthcheck"] == {"disable": True}


def test_services_run_without_privileges_and_ports_are_open_to_this_machine_alone(
    compose: Any,
) -> None:
    for name, service in compose["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        for port in service.get("ports", []):
            assert re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port), port
    assert "unprivileged" in compose["services"]["qdrant"]["image"]


def test_secrets_are_copied_into_containers_that_can_be_written_to(compose: Any) -> None:
    for name, service in compose["services"].items():
        assert set(service.get("secrets", [])) <= set(compose["secrets"]), name
        assert not (service.get("secrets") and service.get("read_only")), name


def test_what_is_mounted_exists(deploy: Path, compose: Any, example_env: dict[str, str]) -> None:
    named: set[str] = set()
    for service in compose["services"].values():
        for volume in service.get("volumes", []):
            source = VARIABLE.sub(lambda match: example_env[match[1]], volume).split(":")[0]
            if source.startswith("."):
                assert (deploy / source).exists(), source
                assert volume.endswith(":ro")
            else:
                named.add(source)
    assert named == set(compose["volumes"])


def test_services_find_one_another(compose: Any) -> None:
    services = compose["services"]
    for service in services.values():
        assert set(service.get("depends_on", {})) <= set(services)
    worker, tool = services["worker"]["environment"], services["attrib"]["environment"]
    assert worker.items() <= tool.items()
    assert re.search(r"@redis:6379/0$", worker["ATTRIB_REDIS"])
    index = parse_index_url(tool["ATTRIB_INDEX"])
    ports = [f"127.0.0.1:{port}:{port}" for port in (index.port, index.grpc_port)]
    assert services[index.host]["ports"] == ports
    assert services["worker"]["volumes"] == services["attrib"]["volumes"]


def test_variables_given_to_attrib_are_ones_it_reads(compose: Any, variables: set[str]) -> None:
    for name in ("worker", "attrib", "serve"):
        assert set(compose["services"][name]["environment"]) <= variables


def test_commands_exist(compose: Any, fault: Callable[[list[str]], str | None]) -> None:
    for name in ("worker", "attrib", "serve"):
        assert fault(compose["services"][name]["command"]) is None


def test_the_service_listens_where_it_is_looked_for(compose: Any) -> None:
    service = compose["services"]["serve"]
    port = str(ServiceSettings().port)
    assert service["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert f"http://127.0.0.1:{port}/readyz" in " ".join(service["healthcheck"]["test"])
    assert service["environment"]["ATTRIB_HOST"] == "0.0.0.0"
    assert service["environment"]["ATTRIB_READ_KEYS"].startswith("${ATTRIB_READ_KEY:?")
    assert service["profiles"] == ["serve"]  # there is nothing to serve before the first ingest
    assert service["volumes"] == compose["services"]["attrib"]["volumes"]


@contextmanager
def answering(status: int) -> Iterator[int]:
    """A server that answers every GET with that status; yields its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == "/readyz"
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False), (500, False)])
def test_the_health_check_of_qdrant_tells_ready_from_not(
    compose: Any, status: int, healthy: bool
) -> None:
    kind, *command = compose["services"]["qdrant"]["healthcheck"]["test"]
    assert kind == "CMD"
    with answering(status) as port:
        words = [word.replace("6333", str(port)).replace("$$", "$") for word in command]
        done = subprocess.run(words, capture_output=True, timeout=10)
    assert (done.returncode == 0) == healthy
    gone = subprocess.run(words, capture_output=True, timeout=10)
    assert gone.returncode != 0


def test_redis_starts_as_it_is_told_and_asks_for_the_password(compose: Any, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    *shell, script = compose["services"]["redis"]["command"]
    script = script.replace("$$", "$").replace(
        "redis-server - ", f"redis-server - --bind 127.0.0.1 --port {port} "
    )
    with subprocess.Popen(
        [*shell, script],
        cwd=tmp_path,
        env={**os.environ, "REDISCLI_AUTH": "a1b2"},
        stdout=subprocess.DEVNULL,
    ) as server:
        try:
            client = redis.Redis(port=port, password="a1b2", retry=Retry(NoBackoff(), 0))
            until = time.monotonic() + 20
            while True:
                try:
                    assert client.ping()
                    break
                except (redis.ConnectionError, redis.BusyLoadingError):
                    assert time.monotonic() < until
                    time.sleep(0.05)
            assert client.config_get("appendonly") == {"appendonly": "yes"}
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
            client.close()
            with redis.Redis(port=port) as stranger, pytest.raises(redis.AuthenticationError):
                stranger.ping()
        finally:
            server.terminate()
    assert server.returncode == 0
