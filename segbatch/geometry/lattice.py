"""The lattice of cores: which windows a scene is predicted through.

The lattice depends on the scene's size, the core and the halo alone, never on blocks, workers or the
order of arrival. That is why a class mask has the same bytes however it was computed.
"""

from dataclasses import dataclass

from segbatch.geometry.window import Window


@dataclass(frozen=True, slots=True)
class Lattice:
    """Cores that partition a scene, anchored at its upper left pixel, and the window around each.

    Args:
        width: Columns of the scene.
        height: Rows of the scene.
        core_width: Columns of a core.
        core_height: Rows of a core.
        halo: Context pixels around a core.
    """

    width: int
    height: int
    core_width: int
    core_height: int
    halo: int

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
        return self.core_width + 2 * self.halo

    @property
    def window_height(self) -> int:
        """Rows that the model sees at once."""
        return self.core_height + 2 * self.halo

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
    def waste(self) -> float:
        """Pixels run through the model for each pixel kept, when every window is run."""
        run = self.rows * self.cols * self.window_height * self.window_width
        return run / (self.width * self.height)


def balanced_core(size: int, limit: int, multiple: int) -> int:
    """The side of equal cores, as few as ``limit`` allows, that cover ``size`` pixels with the least overhang.

    A fixed side leaves a last core that is mostly padding (6272 = 6 x 1024 + 128); an even split does not.

    Args:
        size: Pixels to cover along one axis.
        limit: Largest side allowed; a multiple of ``multiple``.
        multiple: The side is a multiple of this (the model's stride).
    """
    if limit < multiple or limit % multiple:
        raise ValueError(f"limit {limit} is not a positive multiple of {multiple}")
    count = -(-size // limit)
    return -(-size // (count * multiple)) * multiple
