"""The network that backends run: from pixels as stored to logits or class ids, in one graph."""

from collections.abc import Sequence

import torch


class Mapper(torch.nn.Module):
    """A model with the normalisation before it and, where only class ids are wanted, the argmax behind it.

    As one graph these cost a compiled backend next to nothing, and no logits leave it.

    Args:
        model: Takes (batch, bands, height, width) float32, gives logits (batch, classes, height, width).
        mean: Of each band, in pixel values.
        std: Likewise.
        logits: Whether to give logits instead of class ids.

    Attributes:
        logits: As given.
        autocast: Whether PyTorch's autocast picks bfloat16 where that is safe; backends that have a way of their own
            to set the precision leave it off.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        logits: bool = True,
    ) -> None:
        super().__init__()
        self.model = model
        self.mean: torch.Tensor
        self.scale: torch.Tensor
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1), persistent=False)
        self.register_buffer("scale", 1 / torch.tensor(std, dtype=torch.float32).view(-1, 1, 1), persistent=False)
        self.autocast = False
        self.logits = logits

    def forward(self, pixels: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Predict windows.

        Args:
            pixels: (batch, bands, height, width) as stored.
            valid: (batch, 1, height, width) bool, True = a real pixel. Others are 0 after normalisation: the mean.

        Returns:
            Class ids (batch, height, width) uint8, or logits (batch, classes, height, width) float32.
        """
        normalised = torch.where(valid, (pixels.float() - self.mean) * self.scale, 0.0)
        if self.autocast:
            with torch.autocast(pixels.device.type, dtype=torch.bfloat16):
                logits = self.model(normalised.contiguous(memory_format=torch.channels_last))
        else:
            logits = self.model(normalised.contiguous(memory_format=torch.channels_last))
        return logits.float() if self.logits else logits.argmax(1).to(torch.uint8)
