"""How much the halo matters to a model: disagreement with the prediction of whole images. Light: needs no torch."""

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class HaloCurve:
    """The share of pixels whose class differs from that in a prediction of the whole image, by halo.

    A window's prediction is wrong only where context is missing, within the model's reach of the window's border. Seen
    from a core these pixels lie along its border, in a strip that is narrow beside the core, so their share grows with
    the length of borders by area. One curve therefore serves cores of all sizes, and a scene's own border counts for
    nothing.

    Args:
        core: Side in pixels of the square cores that the shares are for.
        points: (halo in pixels, share of pixels that differ), by ascending halo, from a halo of 0 on. In nine of ten
            places no more differ.
        pixels: Number of pixels that were compared.
    """

    core: int
    points: tuple[tuple[int, float], ...]
    pixels: int

    def __post_init__(self) -> None:
        halos = [halo for halo, _ in self.points]
        if len(halos) < 2 or halos[0] != 0 or halos != sorted(set(halos)):
            raise ValueError(f"a halo curve goes from halo 0 over larger ones, but this has {halos}")
        if self.core < 1 or any(not 0 <= share <= 1 for _, share in self.points):
            raise ValueError(f"a halo curve has shares from 0 to 1 at a core of at least a pixel: {self}")

    def expected(self, halo: int, border: float) -> float:
        """The share of pixels that will differ.

        Args:
            halo: Context pixels around a core; between two that were measured the smaller one counts.
            border: Pixels where cores meet, for each pixel of the scene; see `Lattice.border`.
        """
        _, share = self.points[bisect_right([known for known, _ in self.points], halo) - 1]
        return min(1.0, share * border * self.core / 4)

    def smallest(self, tolerance: float, border: Callable[[int], float]) -> int:
        """The smallest halo measured with which at most ``tolerance`` of the pixels differ; else the largest measured.

        Never 0: blended windows have to overlap, and a model that seems to need no context because it has learned to
        see one class everywhere will need some once it has learned more.

        Args:
            tolerance: Share of the pixels.
            border: Of the lattice that goes with a halo.
        """
        halos = [halo for halo, _ in self.points[1:]]
        return next((halo for halo in halos if self.expected(halo, border(halo)) <= tolerance), halos[-1])

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {"core": self.core, "points": [list(point) for point in self.points], "pixels": self.pixels}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The inverse of `to_json`.

        Raises:
            KeyError, TypeError, ValueError: The data are not a curve's.
        """
        points = tuple((int(halo), float(share)) for halo, share in data["points"])
        return cls(int(data["core"]), points, int(data["pixels"]))
