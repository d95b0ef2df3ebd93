"""``attrib ingest --index`` and ``attrib index copy`` as they are typed, with a server."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# The Qdrant stand-in lies beside the tests of the server index.
sys.path.append(str(Path(__file__).parents[1] / "search"))

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def qdrant() -> Iterator[Any]:
    from qdrant_stand_in import Server

    with Server() as server:
        yield server


def answer(invoke: Run, data: Path, generated: Path) -> Any:
    done = invoke("query", generated, "--data", data, "--json", "--k", "5")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)[0]


def test_there_and_back(invoke: Run, own: Path, generated: Path, qdrant: Any) -> None:
    url = qdrant.url(grpc=True)
    before = answer(invoke, own, generated)
    done = invoke("index", "copy", own, url, "--index-shards", "2")
    assert (done.returncode, done.stderr.count("attrib:")) == (0, 0)
    [collection] = qdrant.engine.layouts
    assert done.stdout == (
        f"{own}: 49 training images now indexed in {url}, collection {collection}; 49 compared; "
        "the index in the data folder was removed\n"
    )
    lines = invoke("info", "--data", own).stdout.splitlines()
    assert lines[-1] == (
        f"server           {url} (Qdrant 1.20.0), collection {collection}, 2 parts, 1 replica"
    )
    there = answer(invoke, own, generated)
    assert [row["owners"] for row in there["rows"]] == [row["owners"] for row in before["rows"]]
    assert (there["method"], there["note"]) == (before["method"], "")
    qdrant.engine.strict(collection, max_query_limit=20)
    refused = invoke("query", generated, "--data", own, "--exact", "--k", "5")
    assert refused.returncode == 0
    # Its support is small: fewer hits than were refused know all of it.
    assert "complete, because the Qdrant server at" in refused.stderr
    qdrant.engine.layouts[collection].pop("strict_mode_config")
    back = invoke("index", "copy", url, own, "--json")
    report = json.loads(back.stdout)
    assert (report["images"], report["verified"], report["target"]) == (49, 49, "the data folder")
    assert (report["source"], report["data"]) == (url, str(own))
    again = answer(invoke, own, generated)
    assert [row["owners"] for row in again["rows"]] == [row["owners"] for row in before["rows"]]
    assert not qdrant.engine.layouts


def test_an_ingest_to_a_server(
    invoke: Run, training: Path, tmp_path: Path, generated: Path, qdrant: Any
) -> None:
    data, url = tmp_path / "data", qdrant.url(grpc=False).replace("?", "/pictures?")
    done = invoke("ingest", training, "--data", data, "--no-calibrate", env={"ATTRIB_INDEX": url})
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("clip-art: 49 ingested; ")
    assert qdrant.engine.client.count("pictures").count == 49
    [layout] = qdrant.engine.layouts.values()
    assert layout["quantization_config"] == {"turbo": {"memory": "pinned", "bits": "bits4"}}
    assert answer(invoke, data, generated)["index"]["backend"] == "qdrant"
    # Without the server there is one line, not a traceback.
    qdrant.__exit__(None, None, None)
    down = invoke("query", generated, "--data", data)
    assert down.returncode == 1
    assert down.stderr.startswith("attrib: no Qdrant server answers at 127.0.0.1, port ")
    assert down.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("index", "copy", "DATA", "http://x"), 2, "one of SOURCE and TARGET is a server, "
         "qdrant://host[:port]; a data folder is copied with `cp -a`"),
        (("index", "copy", "qdrant://a", "qdrant://b"), 2, "name the data folder as SOURCE: its "
         "index goes to TARGET from wherever it is"),
        (("index", "copy", "qdrant://a", "DATA"), 2, "the index of DATA is in the folder, not at "
         "qdrant://a"),
        (("index", "copy", "qdrant://a", "nowhere"), 1, "nowhere is no attrib data folder, or "
         "nothing was ingested into it"),
        (("index", "copy", "DATA", "qdrant://"), 2, "--index 'qdrant://' will not do: it names no "
         "host; write it as qdrant://host[:port], or qdrants://host[:port] for TLS"),
        (("ingest", "SOURCE", "--data", "NEW", "--index-shards", "3"), 2, "shards and replicas "
         "are of an index on a server; name it with --index"),
        (("ingest", "SOURCE", "--data", "DATA", "--index", "qdrant://a"), 2, "the index of DATA is "
         "in the folder, not at qdrant://a; leave --index out, or move it with `attrib index copy "
         "DATA qdrant://a`"),
    ],
)  # fmt: skip
def test_wrong_calls(
    invoke: Run,
    own: Path,
    training: Path,
    tmp_path: Path,
    arguments: tuple[str, ...],
    code: int,
    said: str,
) -> None:
    names = {"DATA": str(own), "SOURCE": str(training), "NEW": str(tmp_path / "new")}
    done = invoke(*[names.get(argument, argument) for argument in arguments])
    assert done.returncode == code
    expected = said.replace("DATA", str(own))
    assert expected in done.stderr
    assert done.stderr.count("\n") == 1
