"""Test-time augmentation against views that numpy makes."""

from typing import Any

import numpy as np
import pytest
import torch

from segbatch.inference.settings import Settings
from segbatch.inference.views import average_views, probabilities

PRODUCTS: Any = ("confidence", "probabilities")


@pytest.mark.parametrize("tta", ["flips", "d4"])
@pytest.mark.parametrize("blend", ["crop", "hann", "gaussian"])
@pytest.mark.parametrize(("core", "halo", "batch_size"), [((16, 24), 8, 1), ((12, 12), 4, 3), ((6, 14), 11, 2)])
def test_views_are_averaged(
    map_scene: Any, oracle: Any, check: Any, float_net: Any, random_scene: Any,
    tta: Any, blend: Any, core: Any, halo: int, batch_size: int,
) -> None:  # fmt: skip
    values, valid = random_scene(35, 50)
    settings = Settings(blend=blend, tta=tta, products=PRODUCTS, batch_size=batch_size)
    found = map_scene(float_net(), values, valid, core=core, halo=halo, settings=settings, block=(2, 2))
    expected = oracle(float_net(), values, valid, core=core, halo=halo, blend=blend, tta=tta)
    check(found.outputs, expected, valid, PRODUCTS)
    plain = oracle(float_net(), values, valid, core=core, halo=halo, blend=blend)
    assert np.abs(plain - expected)[:, valid].max() > 0.1  # the network does tell views apart


@pytest.mark.parametrize("tta", ["flips", "d4"])
def test_without_products_the_mask_is_the_same(map_scene: Any, float_net: Any, random_scene: Any, tta: Any) -> None:
    values, valid = random_scene(35, 50)
    for blend in ("crop", "hann"):
        bare, full = (
            map_scene(float_net(), values, valid, core=(16, 24), halo=8, settings=Settings(blend, tta, products)).bytes
            for products in ((), PRODUCTS)
        )
        assert bare[0] == full[0]
        assert bare[1:] == [None, None]


@pytest.mark.parametrize("tta", ["flips", "d4"])
@pytest.mark.parametrize("blend", ["crop", "gaussian"])
def test_views_do_not_matter_to_a_network_that_cannot_tell_them_apart(
    map_scene: Any, oracle: Any, check: Any, random_scene: Any, tta: Any, blend: Any
) -> None:
    torch.manual_seed(0)
    net = torch.nn.Conv2d(2, 4, 5, padding=2)
    with torch.no_grad():
        kernels = net.weight + net.weight.flip(-1)
        kernels = kernels + kernels.flip(-2)
        net.weight.copy_(kernels + kernels.transpose(-1, -2))
    values, valid = random_scene(35, 50)
    expected = oracle(net, values, valid, core=(16, 24), halo=8, blend=blend)
    settings = Settings(blend=blend, tta=tta, products=PRODUCTS)
    check(map_scene(net, values, valid, core=(16, 24), halo=8, settings=settings).outputs, expected, valid, PRODUCTS)


@pytest.mark.parametrize(("tta", "views"), [("none", 1), ("flips", 4), ("d4", 8)])
def test_each_view_is_seen_once(tta: Any, views: int) -> None:
    """All different, pixels and valid mask alike, and turned back to where they were."""
    pixels = torch.arange(12).view(1, 1, 3, 4)
    seen = []

    def logits(image: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        assert torch.equal(valid, image > 5)
        assert image.is_contiguous()
        seen.append((tuple(image.shape), tuple(image.flatten().tolist())))
        return torch.cat([image, -image], dim=1) / 10

    found = average_views(logits, pixels, pixels > 5, tta)
    assert len(set(seen)) == len(seen) == views == Settings(tta=tta).views
    np.testing.assert_allclose(found, logits(pixels, pixels > 5).softmax(1), rtol=1e-6)


@pytest.mark.parametrize("classes", [2, 5, 40])
def test_probabilities_are_softmax_to_the_last_bit_alone(classes: int) -> None:
    torch.manual_seed(classes)
    logits = torch.randn(2, classes, 21, 23) * 20
    exact = logits.double().softmax(1)
    np.testing.assert_allclose(probabilities(logits), exact, rtol=1e-5, atol=1e-7)
    assert probabilities(logits.to(memory_format=torch.channels_last)).is_contiguous()
    assert probabilities(logits + 1e4).isfinite().all()


@pytest.mark.parametrize("size", [(20, 21), (32, 32), (7, 3)])
def test_a_window_s_probabilities_do_not_depend_on_its_batch_or_on_threads(size: tuple[int, int]) -> None:
    """To the bit. With torch's own softmax they do."""
    torch.manual_seed(0)
    logits = torch.randn(5, 6, *size) * 3
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3, 5):
            torch.set_num_threads(threads)
            found += [probabilities(logits), probabilities(logits.flip(0)).flip(0)]
            found.append(torch.cat([probabilities(window[None]) for window in logits]))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(other, found[0]) for other in found)
