"""The lattice of cores: which windows a scene is predicted through.

The lattice depends on the scene's size, the core and the halo alone, never on blocks, workers or the
order of arrival. That is why a class mask has the same bytes however it was computed.

Windows stay inside the scene: beyond its border there is nothing to see. A scene of one core is one window without a
halo, as a prediction of the whole image would be, and of two cores side by side each has a halo on one side only.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

from segbatch.geometry.window import Window

_ALIGNMENT = 512
"""Cores of a large scene are multiples of this, so that blocks of them are whole TIFF tiles at several levels."""

_LARGE_SIDE = 16384
"""From this side on the pixels that alignment adds at the border are few."""


@dataclass(frozen=True, slots=True)
class Lattice:
    """Cores that partition a scene, anchored at its upper left pixel, and the window around each.

    Args:
        width: Columns of the scene.
        height: Rows of the scene.
        core_width: Columns of a core.
        core_height: Rows of a core.
        halo: Context pixels around a core, but for the scene's border.
        uniform: Whether a window has a core and two halos also where the scene is too small for that: scenes of all
            sizes then have windows of one shape.
    """

    width: int
    height: int
    core_width: int
    core_height: int
    halo: int
    uniform: bool = False

    def __post_init__(self) -> None:
        if min(self.width, self.height, self.core_width, self.core_height) < 1 or self.halo < 0:
            raise ValueError(f"sizes must be positive and the halo not negative: {self}")

    @property
    def cols(self) -> int:
        """Number of cores side by side."""
        return -(-self.width // self.core_width)

    @property
    def rows(self) -> int:
        """Number of cores one below the other."""
        return -(-self.height // self.core_height)

    @property
    def scene(self) -> Window:
        """The whole scene."""
        return Window(0, 0, self.width, self.height)

    @property
    def window_width(self) -> int:
        """Columns that the model sees at once."""
        return self._window_side(self.core_width, self.cols)

    @property
    def window_height(self) -> int:
        """Rows that the model sees at once."""
        return self._window_side(self.core_height, self.rows)

    def _window_side(self, core: int, count: int) -> int:
        return core + 2 * self.halo if self.uniform else window_side(core, count, self.halo)

    def window(self, row: int, col: int) -> Window:
        """What the model sees to predict core (row, col).

        The core with its halo; at the scene's border moved inwards, so that all windows have one shape.
        """
        height, width = self.window_height, self.window_width
        return Window(
            window_start(col * self.core_width - self.halo, width, self.cols * self.core_width),
            window_start(row * self.core_height - self.halo, height, self.rows * self.core_height),
            width,
            height,
        )

    def cores(self, row: int, col: int, rows: int = 1, cols: int = 1) -> Window:
        """The rectangle of ``rows`` x ``cols`` whole cores from core (row, col), not clipped to the scene."""
        return Window(col * self.core_width, row * self.core_height, cols * self.core_width, rows * self.core_height)

    def core(self, row: int, col: int) -> Window:
        """Core (row, col), clipped to the scene."""
        clipped = self.cores(row, col).intersection(self.scene)
        if clipped is None:
            raise IndexError(f"core ({row}, {col}) is outside a lattice of {self.rows} x {self.cols}")
        return clipped

    @property
    def border(self) -> float:
        """Pixels where cores meet, on both sides of each border, for each pixel of the scene."""
        return 2 * (self.rows - 1) / self.height + 2 * (self.cols - 1) / self.width

    @property
    def waste(self) -> float:
        """Pixels run through the model for each pixel kept, when every window is run."""
        run = self.rows * self.cols * self.window_height * self.window_width
        return run / (self.width * self.height)


def window_side(core: int, count: int, halo: int) -> int:
    """The side of the windows of ``count`` cores along an axis: with a halo on each side that has a neighbour."""
    return min(count * core, core + min(count - 1, 2) * halo)


def window_start(wanted: int, size: int, end: int) -> int:
    """The first pixel of a window along an axis from 0 to ``end``: as wanted, or moved inwards."""
    return max(0, min(wanted, end - size))


@lru_cache(maxsize=4096)
def fit_core(width: int, height: int, *, halo: int, stride: int, window_pixels: int) -> tuple[int, int]:
    """The core (rows, columns) that covers a scene with the fewest pixels run through the model.

    Large cores waste little on halos, and an even split wastes little on a last core that is mostly beyond the
    scene; among splits that run as many pixels the one with the squarest core is taken.

    Args:
        width: Columns of the scene.
        height: Rows of the scene.
        halo: Context pixels around a core.
        stride: Sides are multiples of this (the model's stride).
        window_pixels: Most pixels of a window, core and halo.

    Returns:
        Sides of a core; those of the smallest possible one where even that window is larger than ``window_pixels``.
    """
    rows, cols = (_splits(side, halo, stride, window_pixels) for side in (height, width))
    best: tuple[int, int, int, int] | None = None
    for row_count, core_height, window_height in rows:
        for col_count, core_width, window_width in cols:
            window = window_height * window_width
            if window > window_pixels:
                continue
            choice = row_count * col_count * window, abs(core_height - core_width), core_height, core_width
            best = choice if best is None else min(best, choice)
    if best is None:
        return min(core for _, core, _ in rows), min(core for _, core, _ in cols)
    return best[2], best[3]


def _splits(side: int, halo: int, stride: int, window_pixels: int) -> list[tuple[int, int, int]]:
    """(number of cores, side of a core, of a window) of the even splits of an axis, the fewest cores first."""
    align = math.lcm(stride, _ALIGNMENT if side >= _LARGE_SIDE else 32)
    whole = -(-side // stride) * stride
    found: dict[int, int] = {}
    longest = max(stride, window_pixels // stride)  # beside the narrowest window
    for count in range(max(1, side // longest), whole // stride + 1):
        core = whole if count == 1 else min(whole, -(-side // (count * align)) * align)
        found.setdefault(core, -(-side // core))
        if core <= align:
            break
    return [(count, core, window_side(core, count, halo)) for core, count in found.items()]
