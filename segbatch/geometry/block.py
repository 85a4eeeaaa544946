"""Blocks: the unit of work and of writing, one output shard each."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from segbatch.geometry.lattice import Lattice, window_start
from segbatch.geometry.window import Window


@dataclass(frozen=True, slots=True)
class Tile:
    """A window of a block, and the core that it predicts.

    Args:
        row: Among the block's windows.
        col: Likewise.
        window: What the model sees.
        core: The part of it that cropped windows keep.
    """

    row: int
    col: int
    window: Window
    core: Window


@dataclass(frozen=True, slots=True)
class Tiling:
    """The windows of a block, counted from the upper left pixel of those read.

    Args:
        height: Rows read.
        width: Columns read.
        cores: The rectangle of whole cores whose windows are run.
        core: (rows, columns) of a core.
        window: (rows, columns) of a window.
        halo: Context pixels around a core, where there are any.
    """

    height: int
    width: int
    cores: Window
    core: tuple[int, int]
    window: tuple[int, int]
    halo: int

    def __post_init__(self) -> None:
        whole = Window(0, 0, self.width, self.height).contains(self.cores)
        if not whole or self.cores.height % self.core[0] or self.cores.width % self.core[1]:
            raise ValueError(f"a block is made of whole cores: {self}")

    @property
    def row_starts(self) -> tuple[int, ...]:
        """First rows of the windows, from the uppermost on."""
        return self._starts(self.cores.row_off, self.cores.row_end, self.height, 0)

    @property
    def col_starts(self) -> tuple[int, ...]:
        """First columns of the windows, from the leftmost on."""
        return self._starts(self.cores.col_off, self.cores.col_end, self.width, 1)

    def _starts(self, first: int, end: int, side: int, axis: int) -> tuple[int, ...]:
        size, core = self.window[axis], self.core[axis]
        return tuple(window_start(start - self.halo, size, side) for start in range(first, end, core))

    def __iter__(self) -> Iterator[Tile]:
        """Row by row."""
        height, width = self.window
        for row, row_off in enumerate(self.row_starts):
            for col, col_off in enumerate(self.col_starts):
                core = Window(
                    self.cores.col_off + col * self.core[1], self.cores.row_off + row * self.core[0],
                    self.core[1], self.core[0],
                )  # fmt: skip
                yield Tile(row, col, Window(col_off, row_off, width, height), core)

    def split(self, parts: int) -> "Tiling":
        """The same with each core cut in so many parts along both axes: smaller windows, for less memory."""
        height, width = (side // parts for side in self.core)
        most = self.window
        window = min(height + 2 * self.halo, most[0]), min(width + 2 * self.halo, most[1])
        return replace(self, core=(height, width), window=window)


@dataclass(frozen=True, slots=True)
class Block:
    """A rectangle of whole cores.

    Args:
        row: Row in the grid of blocks.
        col: Column in the grid of blocks.
        owned: The pixels that the block writes: its cores, clipped to the scene.
        read: The pixels that its windows need. Reaches beyond the scene where its last cores do.
        cores: The whole cores whose windows it runs.
    """

    row: int
    col: int
    owned: Window
    read: Window
    cores: Window

    @property
    def kept(self) -> Window:
        """The owned pixels, counted from the upper left pixel of those read."""
        return self.owned.relative_to(self.read)


@dataclass(frozen=True, slots=True)
class BlockGrid:
    """The blocks of a scene, numbered row by row.

    Args:
        lattice: The scene's lattice.
        block_rows: Cores in a block, one below the other.
        block_cols: Cores in a block, side by side.
        overlapping: Whether windows count beyond their cores, as where they are blended: a block then runs
            every window that touches it, its neighbours' too.
    """

    lattice: Lattice
    block_rows: int
    block_cols: int
    overlapping: bool = False

    @property
    def rows(self) -> int:
        """Number of blocks one below the other."""
        return -(-self.lattice.rows // self.block_rows)

    @property
    def cols(self) -> int:
        """Number of blocks side by side."""
        return -(-self.lattice.cols // self.block_cols)

    @property
    def block_height(self) -> int:
        """Rows of a whole block: of a shard."""
        return self.block_rows * self.lattice.core_height

    @property
    def block_width(self) -> int:
        """Columns of a whole block: of a shard."""
        return self.block_cols * self.lattice.core_width

    def __len__(self) -> int:
        return self.rows * self.cols

    def __iter__(self) -> Iterator[Block]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Block:
        if not 0 <= index < len(self):
            raise IndexError(f"block {index} is outside a grid of {self.rows} x {self.cols}")
        row, col = divmod(index, self.cols)
        first_row, first_col = row * self.block_rows, col * self.block_cols
        # The last block of a row or column has fewer cores where they do not divide evenly.
        rows = min(self.block_rows, self.lattice.rows - first_row)
        cols = min(self.block_cols, self.lattice.cols - first_col)
        lattice = self.lattice
        owned = lattice.cores(first_row, first_col, rows, cols).intersection(lattice.scene)
        assert owned is not None  # every block has a core, and every core a pixel of the scene
        last_row, last_col = first_row + rows - 1, first_col + cols - 1
        if self.overlapping:
            first_row, last_row = self._touching(0, first_row, last_row)
            first_col, last_col = self._touching(1, first_col, last_col)
        cores = lattice.cores(first_row, first_col, last_row - first_row + 1, last_col - first_col + 1)
        upper, lower = lattice.window(first_row, first_col), lattice.window(last_row, last_col)
        read = Window(upper.col_off, upper.row_off, lower.col_end - upper.col_off, lower.row_end - upper.row_off)
        return Block(row, col, owned, read, cores)

    def tiling(self, block: Block) -> Tiling:
        """The windows that a block runs when every pixel is valid."""
        lattice = self.lattice
        return Tiling(
            height=block.read.height,
            width=block.read.width,
            cores=block.cores.relative_to(block.read),
            core=(lattice.core_height, lattice.core_width),
            window=(lattice.window_height, lattice.window_width),
            halo=lattice.halo,
        )

    def windows(self, block: Block) -> int:
        """Number of windows that a block runs when every pixel is valid."""
        return (block.cores.height // self.lattice.core_height) * (block.cores.width // self.lattice.core_width)

    def _touching(self, axis: int, first: int, last: int) -> tuple[int, int]:
        """The first and the last core along an axis whose windows touch the cores from ``first`` to ``last``."""
        lattice = self.lattice
        core, count = ((lattice.core_height, lattice.rows), (lattice.core_width, lattice.cols))[axis]
        side = (lattice.height, lattice.width)[axis]

        def span(number: int) -> tuple[int, int]:
            window = lattice.window(number, 0) if axis == 0 else lattice.window(0, number)
            return (window.row_off, window.row_end) if axis == 0 else (window.col_off, window.col_end)

        start, end = first * core, min((last + 1) * core, side)
        while first > 0 and span(first - 1)[1] > start:
            first -= 1
        while last < count - 1 and span(last + 1)[0] < end:
            last += 1
        return first, last


def block_shape(lattice: Lattice, bytes_per_pixel: int, budget: int, multiple: int = 1) -> tuple[int, int]:
    """The largest block, in cores (rows, cols), whose pixels fit ``budget`` bytes.

    As square as the budget allows, no larger than the scene, and never less than one core.

    Args:
        lattice: The scene's lattice.
        bytes_per_pixel: Over all bands.
        budget: Bytes.
        multiple: Sides of blocks that do not reach over the whole scene are multiples of this many pixels, whatever
            the budget.
    """
    cores = max(1, budget // (bytes_per_pixel * lattice.core_width * lattice.core_height))
    aspect = lattice.core_width / lattice.core_height
    rows = _rounded(max(1, int(math.sqrt(cores * aspect))), lattice.core_height, multiple, lattice.rows)
    cols = _rounded(max(1, cores // rows), lattice.core_width, multiple, lattice.cols)
    rows = _rounded(max(1, cores // cols), lattice.core_height, multiple, lattice.rows)
    cols = _rounded(max(1, cores // rows), lattice.core_width, multiple, lattice.cols)
    return rows, cols


def _rounded(count: int, core: int, multiple: int, limit: int) -> int:
    """A number of cores whose side is a multiple, not above ``count`` if that can be."""
    if count >= limit:
        return limit
    step = multiple // math.gcd(core, multiple)
    return min(limit, max(step, count - count % step))
