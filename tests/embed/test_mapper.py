from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from embed.mapper import Mapper, MapperPair, normalised
from ingest.errors import ModelError, WeightsError

D, H, F, N = 7, 11, 5, 4  # base feature, hidden, feature, images


def base(n: int = N, d: int = D) -> np.ndarray:
    return np.random.default_rng(n * 100 + d).normal(size=(n, d)).astype(np.float32) * 3


def state_of(module: nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in module.state_dict().items()}


def official_mlp(layers: int, d: int = D, hidden: int = H, f: int = F) -> nn.Sequential:
    """The layout of the paper's MLP, with batch-norm statistics that are not the defaults."""
    torch.manual_seed(layers)
    parts: list[nn.Module] = []
    for layer in range(layers):
        last = layer == layers - 1
        out = f if last else hidden
        parts.append(nn.Linear(d if layer == 0 else hidden, out, bias=False))
        norm = nn.BatchNorm1d(out, affine=not last)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.1, 3)
        parts.append(norm)
        if not last:
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
            parts += [nn.ReLU(), nn.Dropout(0.5)]
    return nn.Sequential(*parts).eval()


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_mlp_equals_torch(layers: int) -> None:
    module = official_mlp(layers)
    mapper = Mapper.from_state(state_of(module))
    with torch.inference_mode():
        expected = module(torch.from_numpy(base())).numpy()
    found = mapper(base())
    assert (mapper.kind, mapper.in_dim, mapper.out_dim) == ("mlp", D, F)
    assert found.shape == (N, F)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_mlp_without_the_last_norm() -> None:
    module = nn.Sequential(*list(official_mlp(2))[:-1]).eval()
    with torch.inference_mode():
        expected = module(torch.from_numpy(base())).numpy()
    found = Mapper.from_state(state_of(module))(base())
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_linear_equals_torch() -> None:
    torch.manual_seed(0)
    module = nn.Linear(D, F).eval()
    mapper = Mapper.from_state(state_of(module))
    with torch.inference_mode():
        expected = module(torch.from_numpy(base()))
        unit = nn.functional.normalize(expected, dim=-1).numpy()
    np.testing.assert_allclose(mapper(base()), expected.numpy(), rtol=1e-5, atol=1e-5)
    pair = MapperPair(mapper, mapper)
    np.testing.assert_allclose(pair.real(base()), unit, rtol=1e-5, atol=1e-6)


def test_linear_by_hand() -> None:
    mapper = Mapper.linear([[1, 2, 3], [0, -1, 0]], [10, 20])
    assert mapper([[1, 1, 1], [2, 0, 0]]).tolist() == [[16, 19], [12, 20]]


def test_channel_by_hand() -> None:
    mapper = Mapper.from_state({"weights": np.array([[2.0, 0.0, -1.0]])})
    assert mapper.kind == "channel"
    assert mapper([[1, 5, 3]]).tolist() == [[2, 0, -3]]


def test_identity_returns_a_copy() -> None:
    x = base()
    found = Mapper.identity(D)(x)
    np.testing.assert_array_equal(found, x)
    assert not np.shares_memory(found, x)


def test_real_and_synth_are_not_exchanged() -> None:
    pair = MapperPair(Mapper.channel([1, 0]), Mapper.channel([0, 1]))
    assert pair.real([[3, 4]]).tolist() == [[1, 0]]
    assert pair.synth([[3, 4]]).tolist() == [[0, 1]]


def test_rows_have_length_one_and_zeros_stay() -> None:
    assert normalised(np.array([[3, 4], [0, 0], [0, -2]], np.float32)).tolist() == [
        [pytest.approx(0.6), pytest.approx(0.8)],
        [0, 0],
        [0, -1],
    ]
    large = normalised(np.full((1, 4), 1e30, np.float32))
    np.testing.assert_allclose(large, 0.5)


def test_no_images_are_no_features() -> None:
    pair = MapperPair.identity(3)
    assert pair.real(np.zeros((0, 3))).shape == (0, 3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_refused(bad: float) -> None:
    x = base()
    x[2, 1] = bad
    with pytest.raises(WeightsError) as caught:
        MapperPair.identity(D).synth(x)
    assert str(caught.value) == "1 of 4 base features hold numbers that are not finite"


def test_other_length_is_refused() -> None:
    with pytest.raises(ModelError) as caught:
        Mapper.identity(D)(base(d=3))
    assert str(caught.value) == "base features are (4, 3), the mapper takes (n, 7)"


def test_pair_must_agree() -> None:
    with pytest.raises(ModelError) as caught:
        MapperPair(Mapper.identity(3), Mapper.linear(np.ones((2, 3)), [0, 0]))
    assert (
        str(caught.value) == "the real mapper is 3 -> 3, the synth mapper 3 -> 2; they must agree"
    )


def _without(layers: int, name: str) -> dict[str, np.ndarray]:
    state = state_of(official_mlp(layers))
    del state[name]
    return state


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ({"a": np.ones(1)}, "not a mapper: its entries are a"),
        ({}, "not a mapper: its entries are "),
        (
            {"weight": np.ones((2, 3)), "bias": np.ones(3)},
            "mapper: weight is (2, 3), expected (3, 3)",
        ),
        ({"weight": np.ones(3), "bias": np.ones(3)}, "mapper: weight is (3,), expected two axes"),
        (
            {"weight": np.full((1, 1), np.nan), "bias": np.ones(1)},
            "mapper: weight holds a number that is not finite",
        ),
        (
            {**state_of(official_mlp(1)), "9.foo": np.ones(1)},
            "mlp mapper: entries that do not belong: 9.foo",
        ),
        (_without(2, "1.bias"), "mlp mapper: entries that do not belong: 1.weight"),
        (
            {"0.weight": np.ones((2, 3)), "3.weight": np.ones((2, 2))},
            "mlp mapper: linear layers at [0, 3], expected 0, 4, 8, ...",
        ),
        (
            {"0.weight": np.ones((2, 3)), "4.weight": np.ones((2, 4))},
            "mapper: 4.weight is (2, 4), expected (2, 2)",
        ),
    ],
)
def test_states_of_no_mapper(state: dict[str, np.ndarray], text: str) -> None:
    with pytest.raises(ModelError) as caught:
        Mapper.from_state(state)
    assert str(caught.value) == text


@pytest.mark.parametrize("size", [1, 5, 32])
def test_a_feature_does_not_depend_on_what_it_is_mapped_with(size: int) -> None:
    rng = np.random.default_rng(7)
    mapper = Mapper.linear(rng.normal(size=(48, 64)), rng.normal(size=48))
    pair = MapperPair(mapper, mapper)
    base = rng.normal(size=(320, 64)).astype(np.float16)
    alone = [pair.real(base[i : i + size]) for i in range(0, len(base), size)]
    assert np.array_equal(pair.real(base), np.concatenate(alone))


def test_a_transposed_array_lies_in_memory_as_it_is_saved() -> None:
    weight = np.random.default_rng(1).normal(size=(D, F)).T
    assert Mapper.linear(weight, np.zeros(F)).arrays["weight"].flags.c_contiguous
