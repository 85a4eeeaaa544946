"""Pixel rectangles."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """A pixel rectangle, named as rasterio names it.

    Offsets may be negative and a window may reach beyond its scene: reading pads what is outside.

    Args:
        col_off: First column.
        row_off: First row.
        width: Number of columns, at least 1.
        height: Number of rows, at least 1.
    """

    col_off: int
    row_off: int
    width: int
    height: int

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise ValueError(f"a window needs at least one pixel, got {self.width} x {self.height}")

    @property
    def col_end(self) -> int:
        """One past the last column."""
        return self.col_off + self.width

    @property
    def row_end(self) -> int:
        """One past the last row."""
        return self.row_off + self.height

    @property
    def area(self) -> int:
        """Number of pixels."""
        return self.width * self.height

    @property
    def slices(self) -> tuple[slice, slice]:
        """(rows, columns), to index an array whose origin is the scene's."""
        return slice(self.row_off, self.row_end), slice(self.col_off, self.col_end)

    def buffered(self, halo: int) -> "Window":
        """The window grown by ``halo`` pixels on every side."""
        return Window(self.col_off - halo, self.row_off - halo, self.width + 2 * halo, self.height + 2 * halo)

    def intersection(self, other: "Window") -> "Window | None":
        """The common rectangle, or None where there is none."""
        col_off, row_off = max(self.col_off, other.col_off), max(self.row_off, other.row_off)
        col_end, row_end = min(self.col_end, other.col_end), min(self.row_end, other.row_end)
        if col_end <= col_off or row_end <= row_off:
            return None
        return Window(col_off, row_off, col_end - col_off, row_end - row_off)

    def contains(self, other: "Window") -> bool:
        """Whether ``other`` lies wholly inside."""
        return self.intersection(other) == other

    def relative_to(self, other: "Window") -> "Window":
        """The same rectangle counted from the upper left pixel of ``other``."""
        return Window(self.col_off - other.col_off, self.row_off - other.row_off, self.width, self.height)

    def shifted(self, cols: int, rows: int) -> "Window":
        """The window moved to the right and down."""
        return Window(self.col_off + cols, self.row_off + rows, self.width, self.height)
