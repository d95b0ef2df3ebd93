"""The plan's arithmetic, by hand-worked cases, and against a run that Qdrant published."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embed.backbones import BACKBONES
from ingest.errors import UsageError
from workers.capacity import GIB, CapacityPlan, Hardware, Workload, plan_capacity
from workers.capacity_sources import (
    CODE_BITS,
    COEFFICIENTS,
    GPUS,
    NETWORKS,
    UNPUBLISHED_GPUS,
    Coefficient,
    gpu_rate,
)

RATE = Coefficient("images_per_s", 500, "images/s", "given", "a test")

LAION = Workload(
    images=400_000_000,
    dim=512,
    base_dim=512,
    quantization="binary",
    m=6,
    ids="number",
    filters=False,
    payload_bytes=500,
)
LAION_NODE = Hardware(node_ram_gib=64, node_cores=8, max_segment_kib=5_000_000)


def values(plan: CapacityPlan, *names: str) -> list[float]:
    return [plan.value(name) for name in names]


def test_the_memory_of_the_published_run_is_reproduced() -> None:
    plan = plan_capacity(LAION, LAION_NODE)
    parts = [value / GIB for value in values(plan, "ram.codes", "ram.graph", "ram.ids")]
    assert parts == pytest.approx([23.84, 17.88, 11.92], abs=0.01)  # the last: 12.4 there
    assert plan.value("ram.total") / GIB == pytest.approx(54.121, rel=0.01)  # estimated there
    assert plan.value("ram.total") / GIB == pytest.approx(53.81, rel=0.01)  # observed there


def test_the_published_run_fits_on_the_machine_it_ran_on_and_takes_its_two_days() -> None:
    plan = plan_capacity(LAION, LAION_NODE)
    assert values(plan, "nodes.count", "nodes.graphs") == [1, 80]
    assert plan.value("nodes.ram") / GIB == pytest.approx(61.41, abs=0.01)
    assert plan.value("ingest.upload") == pytest.approx(400e6 / 5000)
    assert plan.value("ingest.indexing") == pytest.approx(400e6 / 4000)
    days = sum(values(plan, "ingest.upload", "ingest.indexing")) / 86_400
    assert days == pytest.approx(2, abs=0.1)


def test_the_published_latencies_are_the_law_they_were_taken_from() -> None:
    graph_s = COEFFICIENTS["graph_disk_ms"].value / 1e3
    read_s = COEFFICIENTS["read_ms"].value / 1e3
    assert 10 * graph_s + 1000 * read_s == pytest.approx(0.7)
    assert 10 * graph_s + 5000 * read_s == pytest.approx(2.2)


def test_a_case_by_hand() -> None:
    work = Workload(
        images=10_000_000,
        dim=768,
        base_dim=1024,
        quantization="turbo4",
        m=16,
        replicas=2,
        payload_bytes=100,
    )
    plan = plan_capacity(work, Hardware(node_ram_gib=16, node_cores=4, gpus=2, rate=RATE))
    assert values(plan, "ram.codes", "ram.graph", "ram.ids", "ram.fields", "ram.total") == [
        20e6 * (384 + 8),
        20e6 * 128,
        20e6 * 40,
        20e6 * 325,
        20e6 * 885,
    ]
    assert values(plan, "disk.vectors", "disk.payloads", "disk.fields", "disk.search") == [
        20e6 * 1536,
        20e6 * 100,
        20e6 * 325,
        20e6 * 560,
    ]
    assert plan.value("disk.total") == 20e6 * 2521
    # Once, whatever the replicas, and of base features: those are longer than the index's here.
    assert values(plan, "disk.features", "disk.thumbnails", "disk.ledger") == [
        10e6 * (2048 + 323),
        10e6 * 5463,
        10e6 * 239,
    ]
    # 17.7e9 bytes on nodes with 16 GiB - 8.34e9 = 8.84e9 free: 2.002, so 3; 4 for two copies.
    assert values(plan, "nodes.count", "nodes.points", "nodes.shards") == [4, 5_000_000, 4]
    assert plan.value("nodes.ram") == 17.7e9 / 4 + 8.34e9
    # A segment takes 4 cores x 256,000 KiB: 682,666 vectors of 1,536 bytes. 5e6 / 682,666 = 7.3.
    assert plan.value("nodes.graphs") == 8
    assert plan.value("nodes.disk") == 20e6 * 2521 / 4 + 682_666 * 2521
    assert plan.value("ingest.shards") == 9766  # 9,765.6 of 1,024
    assert plan.value("ingest.gpu_hours") == pytest.approx(10e6 / 500 / 3600)
    assert plan.value("ingest.decoding_cores") == 4  # 500 / 140 = 3.6
    upload, indexing = 5e6 / 2500 * 1.5, 5e6 / 2000 * 1.5 * 16 / 6
    assert plan.value("ingest.embedding") == 10e6 / 1000
    assert plan.value("ingest.upload") == upload
    assert plan.value("ingest.indexing") == pytest.approx(indexing)
    assert plan.value("ingest.total") == pytest.approx(10e6 / 1000 + indexing)
    # 128 hits x 2 candidates; ef 4 x (128 - 32) = 384; 8 graphs on 2 nodes hold one copy.
    assert plan.value("query.comparisons") == 16 * 384 * 32
    assert plan.value("query.reads") == 256 * 8
    assert plan.value("query.warm") == pytest.approx(8 / 4 * 1.25e-3)
    assert plan.value("query.cold") == pytest.approx((2 * 32.5 + 2048 * 0.375) / 1e3)


def test_without_codes_the_vectors_are_in_memory_and_nothing_is_read() -> None:
    work = Workload(images=1000, dim=100, base_dim=100, quantization="none", datatype="float32")
    plan = plan_capacity(work, Hardware())
    assert plan.value("ram.codes") == 1000 * 400
    assert plan.value("disk.search") == 1000 * (128 + 40)
    assert plan.value("query.reads") == 0
    assert "code_none" not in {c.name for c in plan.coefficients()}


def test_an_unknown_rate_leaves_its_figures_unknown_and_says_what_to_give() -> None:
    plan = plan_capacity(LAION, LAION_NODE)
    for name in ("ingest.gpu_hours", "ingest.embedding", "ingest.total"):
        assert plan[name].value is None
        assert "give --gpu or --images-per-second" in plan[name].formula
    with pytest.raises(UsageError, match=r"^ingest.gpu_hours is not known: needs the images/s"):
        plan.value("ingest.gpu_hours")
    assert plan.value("ingest.upload") > 0


def test_a_published_rate_is_of_the_bare_device_a_given_one_of_the_whole_ingest() -> None:
    published = gpu_rate("rtx4090", "dino-vitb16")
    assert published is not None
    assert published.value == 2992.79
    bare = plan_capacity(LAION, replace(LAION_NODE, rate=published))
    assert bare.value("ingest.gpu_hours") == pytest.approx(400e6 / (2992.79 * 0.9) / 3600)
    given_ = replace(published, basis="given")
    whole = plan_capacity(LAION, replace(LAION_NODE, rate=given_))
    assert whole.value("ingest.gpu_hours") == pytest.approx(400e6 / 2992.79 / 3600)


def test_disk_can_ask_for_more_nodes_than_memory() -> None:
    by_ram = plan_capacity(LAION, LAION_NODE)
    disk = by_ram.value("disk.total")
    room = 5_000_000 * disk / 400e6  # a segment of five million points
    small = replace(LAION_NODE, node_disk_gib=(disk / 3 + room) / GIB * 1.001)
    assert plan_capacity(LAION, small).value("nodes.count") == 3
    with pytest.raises(UsageError, match=r"^a node's disk of 1 GiB holds not even the 9\.3 GiB"):
        plan_capacity(LAION, replace(LAION_NODE, node_disk_gib=1))


@pytest.mark.parametrize("replicas", [1, 2, 3, 5])
def test_every_copy_has_a_whole_number_of_nodes(replicas: int) -> None:
    plan = plan_capacity(replace(LAION, replicas=replicas), LAION_NODE)
    count = plan.value("nodes.count")
    assert count % replicas == 0
    assert count >= replicas
    assert plan.value("nodes.shards") * replicas / count >= 2
    assert plan.value("nodes.ram") <= 64 * GIB


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": 0}, "images must be at least 1, not 0"),
        ({"images": -5}, "images must be at least 1, not -5"),
        ({"m": 0}, "m must be at least 1, not 0"),
        ({"replicas": 0}, "replicas must be at least 1, not 0"),
        ({"payload_bytes": -1}, "payload_bytes must not be negative, not -1"),
        ({"payload_bytes": math.nan}, "payload_bytes must not be negative, not nan"),
        ({"datatype": "int4"}, "no datatype 'int4'; choose float16 or float32"),
        (
            {"quantization": "turbo8"},
            "no quantization 'turbo8'; choose one of none, int8, turbo4, turbo2, turbo1, binary",
        ),
    ],
)
def test_workloads_that_none_can_have(change: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        replace(LAION, **change)  # type: ignore[arg-type]
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"node_ram_gib": 4}, "node_ram_gib must be above 7.8, which the system takes, not 4"),
        (
            {"node_ram_gib": math.inf},
            "node_ram_gib must be above 7.8, which the system takes, not inf",
        ),
        ({"node_disk_gib": 0}, "node_disk_gib must be above 0, not 0"),
        ({"node_cores": 0}, "node_cores must be at least 1, not 0"),
        ({"gpus": 0}, "gpus must be at least 1, not 0"),
        ({"max_segment_kib": 0}, "max_segment_kib must be at least 1, not 0"),
        ({"rate": replace(RATE, value=0)}, "images_per_second must be above 0, not 0"),
    ],
)
def test_hardware_that_none_can_have(change: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        replace(LAION_NODE, **change)  # type: ignore[arg-type]
    assert str(caught.value) == message


@given(
    images=st.integers(1, 10**13),
    more=st.integers(1, 10**13),
    dim=st.integers(1, 4096),
    quantization=st.sampled_from(sorted(CODE_BITS)),
    replicas=st.integers(1, 7),
    ram=st.floats(8, 4096),
)
def test_more_images_never_take_less(
    images: int, more: int, dim: int, quantization: str, replicas: int, ram: float
) -> None:
    def planned(count: int) -> CapacityPlan:
        work = Workload(count, dim, dim, quantization, replicas=replicas)  # type: ignore[arg-type]
        return plan_capacity(work, Hardware(node_ram_gib=ram, rate=RATE))

    small, large = planned(images), planned(images + more)
    for name in ("ram.total", "disk.total", "nodes.count", "ingest.gpu_hours", "ingest.shards"):
        assert 0 < small.value(name) <= large.value(name)
    system = COEFFICIENTS["system"].value
    for plan in (small, large):
        parts = values(plan, "ram.codes", "ram.graph", "ram.ids", "ram.fields")
        assert math.isclose(sum(parts), plan.value("ram.total"))
        assert plan.value("nodes.ram") <= ram * GIB * (1 + 1e-9)
        assert plan.value("nodes.ram") > system
        held = plan.value("nodes.points") * plan.value("nodes.count")
        assert held * 325 >= plan.value("ram.fields") * (1 - 1e-9)


def test_every_coefficient_says_where_it_comes_from() -> None:
    for name, coefficient in COEFFICIENTS.items():
        assert coefficient.name == name
        assert coefficient.value >= 0
        if coefficient.basis == "published":
            assert "https://" in coefficient.source, name
        elif coefficient.basis == "measured":
            assert "benchmarks" in coefficient.source or "search/" in coefficient.source, name
        else:
            assert coefficient.basis == "assumed", name


def test_rates_are_of_networks_that_attrib_has_and_name_their_source() -> None:
    assert set(NETWORKS) <= set(BACKBONES)
    for backbone, network in NETWORKS.items():
        side = BACKBONES[backbone].preprocessing.crop
        assert network.endswith(f"@{side}")
    for name, gpu in GPUS.items():
        assert set(gpu.rates) <= set(NETWORKS.values())
        assert "https://" in gpu.source or "benchmarks" in gpu.source, name
    assert not set(GPUS) & set(UNPUBLISHED_GPUS)
    assert gpu_rate("h100", "clip-vitb32") is None
    assert gpu_rate("rtx4090", "dinov2-vitb14") is None
    assert gpu_rate("nothing", "dino-vitb16") is None


def test_a_device_without_a_published_rate_is_the_a100_grown_by_the_data_sheets() -> None:
    rates = {name: gpu_rate(name, "dino-vitb16") for name in UNPUBLISHED_GPUS}
    h100, l4 = rates["h100"], rates["l4"]
    assert h100 is not None
    assert l4 is not None
    assert h100.value == pytest.approx(2226.10 * 3350 / 1555, abs=0.05)  # memory is the lesser
    assert l4.value == pytest.approx(2226.10 * 300 / 1555, abs=0.05)
    assert {rate.basis for rate in rates.values() if rate is not None} == {"assumed"}
    assert "2226.1 x 2.15" in h100.source
