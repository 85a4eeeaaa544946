"""How windows become class masks: what the planner, the stages and the predictor have to agree on."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from segbatch.geometry import Blend

Tta = Literal["none", "flips", "d4"]
"""Test-time augmentation. none; flips: 4 mirror images; d4: those and their quarter turns, 8 in all."""

Product = Literal["confidence", "probabilities"]
"""What is written beside the class mask."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How windows become class masks; with the lattice and the bundle it decides every byte.

    Args:
        blend: How neighbouring windows meet.
        tta: Views of a window whose probabilities are averaged.
        products: What is written beside the class mask.
        backend: What runs the model; one of `segbatch.models.backends.BACKENDS`.
        precision: Of the model's arithmetic; one of `segbatch.models.backends.PRECISIONS`.
        batch_size: Windows a forward pass.
    """

    blend: Blend = "crop"
    tta: Tta = "none"
    products: tuple[Product, ...] = ()
    backend: str = "eager"
    precision: str = "float32"
    batch_size: int = 1

    @property
    def views(self) -> int:
        """Forward passes a window."""
        return {"none": 1, "flips": 4, "d4": 8}[self.tta]

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {**asdict(self), "products": list(self.products)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The inverse of `to_json`."""
        return cls(**{**data, "products": tuple(data["products"])})
