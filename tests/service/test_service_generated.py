"""Requests generated from the OpenAPI document, all of schemathesis' checks, at a real service.

ATTRIB_GENERATED=1300 in the environment generates up to 1,300 requests an operation instead of a
few, more than 10,000 in all.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

SEED = 0
AN_OPERATION = int(os.environ.get("ATTRIB_GENERATED", "10"))
MINUTES = 1 if AN_OPERATION <= 10 else 20
KEY = "a-write-key"

# What the document cannot say, so that requests that keep to it may be refused all the same: an
# image must be one that can be decoded, an address one that can be reached, not both may be given,
# and features must be as many as the model has, and L2-normalised. And what it does not know: the
# key, and a training image.
CONFIG = """
[auth.openapi]
header = {{ api_key = "{key}" }}

[[operations]]
include-name = "POST /v1/attributions"
checks.positive_data_acceptance.expected-statuses = ["2xx", "422", "429"]

[dictionaries]
training-images = {{ values = ["{image}"] }}

[[operations]]
include-path = ["/v1/images/{{id}}", "/v1/images/{{id}}/thumbnail"]
parameters."path.id" = {{ dictionary = "training-images", probability = 0.3 }}
"""


@pytest.fixture
def guarded(serve: Any, own: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A service that asks for a key, has examples, and may take training images down."""
    from search.service.settings import Access

    examples = Path(__file__).resolve().parents[2] / "examples" / "generated"
    access = Access(read_keys=("a-read-key",), write_keys=(KEY,))
    with (
        serve(own, access=access, examples=examples) as address,
        httpx.Client(base_url=address, headers={"X-API-Key": KEY}, timeout=60) as client,
    ):
        yield client


def counted(client: httpx.Client) -> dict[str, int]:
    """Requests that routes of the document answered so far, by status."""
    counts: dict[str, int] = {}
    line = r'^attrib_requests_total\{.*route="/.*status="(\d+)"\} (\S+)$'
    for status, count in re.findall(line, client.get("/metrics").text, re.MULTILINE):
        counts[status] = counts.get(status, 0) + int(float(count))
    return counts


def test_generated_requests_find_no_fault(
    guarded: httpx.Client, generated: Path, tmp_path: Path
) -> None:
    answer = guarded.post("/v1/attributions", files={"image": generated.read_bytes()}).json()
    config = tmp_path / "schemathesis.toml"
    image = answer["rows"][-1]["owners"][0]["id"]
    config.write_text(CONFIG.format(key=KEY, image=image))
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "--no-color"),
        *("run", f"{guarded.base_url}/v1/openapi.json"),
        *("--checks", "all", "--seed", str(SEED), "--max-examples", str(AN_OPERATION)),
        *("--generation-database", "none", "--suppress-health-check", "all"),
        "--continue-on-failure",
    ]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=60 * MINUTES, check=False
    )
    print("\n".join(line[:500] for line in done.stdout.splitlines()))
    counts = counted(guarded)
    print(counts)
    assert done.returncode == 0, done.stderr[-2000:]
    assert sum(counts.values()) >= (10_000 if AN_OPERATION >= 1000 else 500)
    assert not [status for status in counts if status >= "500"]
    assert min(counts[status] for status in ("200", "401", "404", "405", "415", "422")) > 0
    assert guarded.get("/readyz").status_code == 200
