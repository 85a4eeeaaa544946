"""Memory of a forward pass, against sums by hand and against PyTorch's own account of a real one."""

import pytest
import torch

from segbatch.models.backends.footprint import pixel_bytes
from segbatch.models.build import build_model


def test_two_convolutions() -> None:
    """At the second one, the network's input, its own input and its output are alive."""
    net = torch.nn.Sequential(torch.nn.Conv2d(2, 4, 3, padding=1), torch.nn.Conv2d(4, 3, 3, padding=1))
    assert pixel_bytes(net, 2) == 4 * (2 + 4 + 3)


def test_what_is_freed_does_not_count() -> None:
    """Of a chain, only two links and the input are alive at a time."""
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 10, 1), torch.nn.Conv2d(10, 8, 1), torch.nn.Conv2d(8, 6, 1), torch.nn.Conv2d(6, 2, 1)
    )
    assert pixel_bytes(net, 1) == 4 * (1 + 10 + 8)


def test_work_in_place_costs_nothing() -> None:
    plain, in_place = (
        torch.nn.Sequential(torch.nn.Conv2d(1, 8, 1), torch.nn.ReLU(inplace=inplace)) for inplace in (False, True)
    )
    assert pixel_bytes(plain, 1) == 4 * (1 + 8 + 8)
    assert pixel_bytes(in_place, 1) == 4 * (1 + 8)


def test_a_skip_connection_is_alive_until_it_is_used() -> None:
    class Skip(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Conv2d(1, 8, 1)
            self.deep = torch.nn.Conv2d(8, 16, 2, stride=2)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            skip = self.first(image)
            back = torch.nn.functional.interpolate(self.deep(skip), scale_factor=2)
            return torch.cat([skip, back], dim=1)

    # The quarter-size features are freed when they have been enlarged.
    assert pixel_bytes(Skip(), 1) == 4 * (1 + 8 + 16 + 24)


def test_the_model_is_left_as_it_is() -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2)).train()
    pixel_bytes(net, 1)
    assert net.training
    assert {parameter.device.type for parameter in net.parameters()} == {"cpu"}
    assert net[1].num_batches_tracked == 0


@pytest.mark.parametrize(("architecture", "bands"), [("unet", 3), ("fpn", 4)])
def test_a_real_network_takes_about_what_is_told(architecture: str, bands: int) -> None:
    """Allocations and frees of a real pass as PyTorch's profiler has them, scratch buffers included."""
    model = build_model(architecture, "resnet18", in_channels=bands, num_classes=5).eval()
    told = pixel_bytes(model, bands)
    side = 128
    with (
        torch.inference_mode(),
        torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile,
    ):
        model(torch.empty(1, bands, side, side))
    live = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    assert 0.5 < told * side**2 / peak < 2
    assert 100 < told < 3000
