"""Views of exemplars, and where in them the loss counts."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from evaluation.dataset.augment import View, viewed
from evaluation.dataset.customize import Prior, _seen, customized
from evaluation.dataset.generator import TOKEN, Condition, Generator
from evaluation.dataset.settings import Customization

SIZE = 64
WHOLE = (0, 0, SIZE, SIZE)


def ramp() -> Image.Image:
    """Red grows from left to right and green from top to bottom; no blue, unlike grey."""
    steps = np.linspace(0, 255, 96)
    pixels = np.zeros((96, 96, 3))
    pixels[..., 0], pixels[..., 1] = steps[None], steps[:, None]
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.fixture(scope="module")
def views() -> list[View]:
    choices = np.random.default_rng(0)
    return [viewed(ramp(), "a X", SIZE, choices, enabled=True) for _ in range(3000)]


def kind(view: View) -> str:
    return view.prompt.removesuffix("a X").strip()


def red(view: View) -> tuple[int, int]:
    """Of the leftmost and the rightmost column that shows the image, in their middle."""
    left, top, right, bottom = view.seen
    row = view.pixels[(top + bottom) // 2]
    return int(row[left, 0]), int(row[right - 1, 0])


def test_as_many_views_of_each_kind_as_published(views: list[View]) -> None:
    counted = Counter(map(kind, views))
    # Sides of 21 to 64 pixels in two of three views, of which 18 in 44 are below 0.6.
    small, plain, large = 2 / 3 * 18 / 44, 2 / 3 * 26 / 44, 1 / 3
    expected = {
        **{"": plain, "a far away": small / 2, "very small": small / 2},
        **{"zoomed in": large / 2, "close up": large / 2},
    }
    assert set(counted) == set(expected)
    for name, share in expected.items():
        assert counted[name] / len(views) == pytest.approx(share, abs=0.03), name
    mirrored = sum(first > last for first, last in map(red, views))
    assert mirrored / len(views) == pytest.approx(0.5, abs=0.03)
    for name in expected:  # whatever else happens
        among = [first > last for first, last in (red(v) for v in views if kind(v) == name)]
        assert 0.4 < sum(among) / len(among) < 0.6


def test_a_plain_view_is_the_whole_image(views: list[View]) -> None:
    square = ImageOps.fit(ramp(), (SIZE, SIZE), Image.Resampling.LANCZOS)
    whole = {square.tobytes(), ImageOps.mirror(square).tobytes()}
    plain = [view for view in views if not kind(view)]
    assert {view.seen for view in plain} == {WHOLE}
    assert {view.prompt for view in plain} == {"a X"}
    for view in plain[:40]:
        near = [np.abs(np.asarray(one, int) - view.pixels).max() for one in images(whole)]
        assert min(near) <= 1  # an image is mirrored before it is scaled


def images(data: set[bytes]) -> list[Image.Image]:
    return [Image.frombytes("RGB", (SIZE, SIZE), one) for one in data]


def test_a_small_view_has_the_image_where_it_is_seen_and_grey_elsewhere(views: list[View]) -> None:
    small = [view for view in views if kind(view) in ("a far away", "very small")]
    sides = set()
    for view in small:
        left, top, right, bottom = view.seen
        assert right - left == bottom - top
        sides.add(right - left)
        outside = np.ones((SIZE, SIZE), dtype=bool)
        outside[top:bottom, left:right] = False
        assert (view.pixels[outside] == 127).all()
        inside = view.pixels[top:bottom, left:right]
        assert inside[..., 2].max() < 8
        # All of it: both ends of both ramps.
        assert inside[..., 0].min() < 8
        assert inside[..., 0].max() > 247
        assert inside[..., 1].max() > 247
    assert sides == set(range(21, 39))
    # Anywhere.
    assert {view.seen[0] for view in small} >= set(range(40))
    assert {view.seen[1] for view in small} >= set(range(40))


def test_a_large_view_is_a_part_of_the_image(views: list[View]) -> None:
    large = [view for view in views if kind(view) in ("zoomed in", "close up")]
    assert {view.seen for view in large} == {WHOLE}
    scales = [255 / abs(last - first) for first, last in map(red, large)]
    assert min(scales) == pytest.approx(76 / SIZE, abs=0.05)
    assert max(scales) == pytest.approx(88 / SIZE, abs=0.05)
    lefts = {min(red(view)) for view in large}
    assert min(lefts) < 8
    assert max(lefts) > 55


def test_without_augmentation_an_image_is_cut_to_a_square_and_no_more() -> None:
    wide = ramp().resize((128, 64))
    choices = np.random.default_rng(0)
    for _ in range(20):
        view = viewed(wide, "a X", SIZE, choices, enabled=False)
        assert view.prompt == "a X"
        assert view.seen == WHOLE
        assert np.array_equal(view.pixels, np.asarray(wide.crop((32, 0, 96, 64))))
    # Nothing was drawn.
    assert choices.random() == np.random.default_rng(0).random()


def test_the_loss_counts_one_latent_inside_of_a_small_exemplar() -> None:
    pixels = np.zeros((SIZE, SIZE, 3), dtype=np.uint8)
    boxes = [WHOLE, (8, 16, 40, 56), (9, 17, 41, 57), (40, 0, 61, 21), (43, 43, 64, 64)]
    views = [View(pixels, "", box) for box in boxes]
    seen = _seen(views, torch.zeros((6, 4, 8, 8)))  # and one prior image
    assert seen.shape == (6, 1, 8, 8)
    expected = torch.zeros((6, 8, 8))
    expected[0] = expected[5] = 1
    expected[1, 3:6, 2:4] = 1
    expected[2, 3:6, 2:4] = 1
    expected[3, 1, 6] = 1  # nothing is inside: the middle
    expected[4, 6, 6] = 1
    assert torch.equal(seen[:, 0], expected)


def test_in_training_small_views_are_masked_and_others_and_priors_not(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts: list[str] = []
    masks: list[torch.Tensor] = []
    encode, loss = generator.encode, generator.loss

    def encoded(some: list[str]) -> Condition:
        prompts.extend(some)
        return encode(some)

    def measured(*args: torch.Tensor) -> torch.Tensor:
        masks.extend(args[3])
        return loss(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(generator, "encode", encoded)
    monkeypatch.setattr(generator, "loss", measured)
    settings = Customization(steps=12, batch_size=3, learning_rate=1e-3)
    priors = [Prior(Image.new("RGB", (16, 16), "red"), "red cat")]
    with customized(generator, [ramp()], f"{TOKEN} cat", priors, settings, seed=3):
        pass
    assert len(prompts) == len(masks) == 12 * 6
    kinds = Counter(prompt.removesuffix(f"{TOKEN} cat").strip() for prompt in prompts)
    assert set(kinds) == {"red cat", "", "a far away", "very small", "zoomed in", "close up"}
    assert kinds["red cat"] == 12 * 3
    for prompt, mask in zip(prompts, masks, strict=True):
        if prompt.startswith(("a far away", "very small")):
            assert 0 < mask.mean() < 0.4
        else:
            assert mask.all()
