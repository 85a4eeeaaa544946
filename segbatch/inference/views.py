"""Test-time augmentation: the model looks at a window mirrored and turned, and the views are averaged."""

from collections.abc import Callable

import torch

from segbatch.inference.settings import Tta

_VIEWS: dict[Tta, tuple[tuple[int, bool], ...]] = {
    "none": ((0, False),),
    "flips": ((0, False), (0, True), (2, False), (2, True)),
    "d4": tuple((turns, mirrored) for turns in range(4) for mirrored in (False, True)),
}
"""(quarter turns, mirrored) of each view; the eight of d4 are the symmetries of a square."""


def average_views(
    logits: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], pixels: torch.Tensor, valid: torch.Tensor, tta: Tta
) -> torch.Tensor:
    """Softmax probabilities averaged over the views, always in the same order.

    Args:
        logits: The model: from (pixels, valid) to (batch, classes, height, width).
        pixels: (batch, bands, height, width).
        valid: (batch, 1, height, width).
        tta: Which views.

    Returns:
        (batch, classes, height, width) float32.
    """
    total: torch.Tensor | None = None
    views = _VIEWS[tta]
    with torch.inference_mode():
        for turns, mirrored in views:
            seen = logits(_turn(pixels, turns, mirrored), _turn(valid, turns, mirrored))
            found = _turn_back(probabilities(seen), turns, mirrored)
            total = found if total is None else total + found
        assert total is not None  # there is always the window as it is
        return total if len(views) == 1 else total / len(views)


def probabilities(logits: torch.Tensor) -> torch.Tensor:
    """Softmax over the classes, (batch, classes, height, width), contiguous: in another layout torch is slow.

    Spelled out, because torch's own softmax on the CPU has two ways to take an exponential, and the place of a pixel
    among those of its thread decides which: windows would change a bit with the batch that they are in.
    """
    logits = logits.contiguous()
    powers = (logits - logits.amax(dim=1, keepdim=True)).exp_()
    return powers.div_(powers.sum(dim=1, keepdim=True))


def _turn(image: torch.Tensor, turns: int, mirrored: bool) -> torch.Tensor:
    image = image.flip(-1) if mirrored else image
    return torch.rot90(image, turns, (-2, -1)).contiguous() if turns or mirrored else image


def _turn_back(image: torch.Tensor, turns: int, mirrored: bool) -> torch.Tensor:
    image = torch.rot90(image, -turns, (-2, -1)) if turns else image
    return image.flip(-1) if mirrored else image
