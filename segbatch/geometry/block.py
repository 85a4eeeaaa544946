"""Blocks: the unit of work and of writing, one output shard each."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from segbatch.geometry.lattice import Lattice
from segbatch.geometry.window import Window


@dataclass(frozen=True, slots=True)
class Block:
    """A rectangle of whole cores.

    Args:
        row: Row in the grid of blocks.
        col: Column in the grid of blocks.
        owned: The pixels that the block writes: its cores, clipped to the scene.
        read: The pixels that its windows need: whole cores and a halo around them. Reaches beyond the scene
            at its borders.
    """

    row: int
    col: int
    owned: Window
    read: Window

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
        whole = self.lattice.cores(first_row, first_col, rows, cols)
        owned = whole.intersection(self.lattice.scene)
        assert owned is not None  # every block has a core, and every core a pixel of the scene
        if self.overlapping:
            row_span = _grown(first_row, rows, self.lattice.halo, self.lattice.core_height, self.lattice.rows)
            col_span = _grown(first_col, cols, self.lattice.halo, self.lattice.core_width, self.lattice.cols)
            whole = self.lattice.cores(row_span[0], col_span[0], row_span[1], col_span[1])
        return Block(row, col, owned, whole.buffered(self.lattice.halo))

    def windows(self, block: Block) -> int:
        """Windows that a block runs when every pixel is valid."""
        inner = block.read.width - 2 * self.lattice.halo, block.read.height - 2 * self.lattice.halo
        return (inner[0] // self.lattice.core_width) * (inner[1] // self.lattice.core_height)


def _grown(first: int, count: int, halo: int, core: int, limit: int) -> tuple[int, int]:
    """(first, number) of the cores along an axis whose windows touch ``count`` cores from ``first`` on."""
    reach = -(-halo // core)
    start, end = max(0, first - reach), min(limit, first + count + reach)
    return start, end - start


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
    return rows, cols


def _rounded(count: int, core: int, multiple: int, limit: int) -> int:
    """A number of cores whose side is a multiple, not above ``count`` if that can be."""
    if count >= limit:
        return limit
    step = multiple // math.gcd(core, multiple)
    return min(limit, max(step, count - count % step))
