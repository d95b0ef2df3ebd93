"""How a collection is laid out on a server, and the settings that say so."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import numpy as np
import pytest

from ingest.errors import UsageError
from search.index_url import IndexUrl
from search.server import ServerIndex
from search.server_settings import ServerSettings, read_server_settings, settings_record

DIM = 4
ONE = UUID(int=1)
ROW = np.array([[1, 0, 0, 0]], np.float32)
BOTH = pytest.mark.parametrize("url", [False, True], ids=["rest", "grpc"], indirect=True)


@pytest.mark.parametrize("url", [False], ids=["rest"], indirect=True)
def test_the_layout_of_a_new_collection(url: IndexUrl, qdrant: Any) -> None:
    settings = ServerSettings(shards=6, replicas=2, write_consistency=2, quantization="binary")
    with ServerIndex.create(url, "c", DIM, settings) as index:
        layout = qdrant.engine.layouts["c"]
        assert layout["vectors"] == {
            "size": DIM, "distance": "Dot", "memory": "cold", "datatype": "float16",
        }  # fmt: skip
        assert layout["hnsw_config"] == {
            "m": 0, "ef_construct": 128, "max_indexing_threads": 0, "memory": "cached",
            "payload_m": 0,
        }  # fmt: skip
        assert layout["quantization_config"] == {"binary": {"memory": "pinned"}}
        assert layout["payload"] == {"memory": "cold"}
        assert layout["optimizers_config"] == {"indexing_threshold": 10_000 * DIM * 2 // 1024}
        names = ("shard_number", "replication_factor", "write_consistency_factor")
        assert [layout[name] for name in names] == [6, 2, 2]
        keyword = {"type": "keyword", "memory": "cached", "enable_hnsw": False}
        assert layout["indexes"] == {
            **dict.fromkeys(("creator", "licence", "dataset", "sha256", "key"), keyword),
            "sample_place": {
                "type": "integer", "lookup": False, "range": True, "memory": "cached",
                "enable_hnsw": False,
            },
        }  # fmt: skip
        # Indexed before the first point came.
        index.upsert([ONE], ROW, [{}])
        assert qdrant.engine.calls.index("upsert") > qdrant.engine.calls.index("index")
        assert layout["hnsw"]["m"] == 0
        index.build()
        assert layout["hnsw"]["m"] == 16
        details = index.info().details
        assert (details["shards"], details["replicas"]) == (6, 2)


@pytest.mark.parametrize(
    ("quantization", "expected"),
    [
        ("none", None),
        ("int8", {"scalar": {"type": "int8", "memory": "pinned"}}),
        ("turbo4", {"turbo": {"memory": "pinned", "bits": "bits4"}}),
        ("turbo2", {"turbo": {"memory": "pinned", "bits": "bits2"}}),
        ("turbo1", {"turbo": {"memory": "pinned", "bits": "bits1"}}),
    ],
)
@BOTH
def test_quantization(url: IndexUrl, qdrant: Any, quantization: Any, expected: Any) -> None:
    ServerIndex.create(url, "c", DIM, ServerSettings(quantization=quantization)).close()
    assert qdrant.engine.layouts["c"].get("quantization_config") == expected


def test_settings_come_back_as_they_were() -> None:
    settings = ServerSettings(m=32, quantization="int8", oversampling=3.0, graph="pinned")
    assert read_server_settings(settings_record(settings)) == settings
    as_floats = {
        name: float(value) if isinstance(value, int) else value
        for name, value in settings_record(settings).items()
    }
    assert read_server_settings(as_floats) == settings


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"quantization": "x"}, "no quantization 'x'; choose one of none, int8, turbo4, turbo2, "
         "turbo1, binary"),
        ({"graph": "ram"}, "no graph 'ram'; choose one of cold, cached, pinned"),
        ({"vectors": "pinned"}, "vectors cannot be pinned; choose cold or cached"),
        ({"datatype": "int8"}, "no datatype 'int8'; choose float32 or float16"),
        ({"m": 0}, "m must be at least 1, not 0"),
        ({"shards": -1}, "shards must not be negative, not -1"),
        ({"write_consistency": 2}, "write_consistency of 2 needs as many replicas, not 1"),
        ({"oversampling": 0.5}, "oversampling must lie in 1..100, not 0.5"),
        ({"colour": 1}, "unknown setting 'colour'"),
    ],
)  # fmt: skip
def test_wrong_settings(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        read_server_settings(given)
    assert str(error.value) == message
