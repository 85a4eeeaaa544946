"""Pure geometry: windows, the lattice of cores, blocks. Imports numpy and affine only."""

from segbatch.geometry.block import Block, BlockGrid, block_shape
from segbatch.geometry.lattice import Lattice, balanced_core
from segbatch.geometry.window import Window

__all__ = ["Block", "BlockGrid", "Lattice", "Window", "balanced_core", "block_shape"]
