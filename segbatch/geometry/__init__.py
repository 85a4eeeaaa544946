"""Pure geometry: windows, the lattice of cores, blocks. Imports numpy and affine only."""

from segbatch.geometry.blending import Blend, axis_weights
from segbatch.geometry.block import Block, BlockGrid, Tile, Tiling, block_shape
from segbatch.geometry.carve import carve, gaps, reach, square_blocks
from segbatch.geometry.lattice import Lattice, fit_core
from segbatch.geometry.window import Window

__all__ = [
    "Blend",
    "Block",
    "BlockGrid",
    "Lattice",
    "Tile",
    "Tiling",
    "Window",
    "axis_weights",
    "block_shape",
    "carve",
    "fit_core",
    "gaps",
    "reach",
    "square_blocks",
]
