"""Writing class masks and their products.

Each block leaves a shard in the scene's Zarr store (`shards`) and a part of its COG (`parts`), from which the COG is
put together when the last block is done (`assemble`).
"""

from segbatch.masks.assemble import write_cog, write_small_cog
from segbatch.masks.cog import CogSpec, read_cog_classes
from segbatch.masks.parts import PartError, part_path, write_part
from segbatch.masks.pyramid import Pyramid
from segbatch.masks.shards import (
    CLASS_MASK,
    CONFIDENCE,
    PROBABILITIES,
    clean_partial,
    create_store,
    has_store,
    is_store,
    read_classes,
    read_window,
    thumbnail,
    write_block,
)

__all__ = [
    "CLASS_MASK",
    "CONFIDENCE",
    "PROBABILITIES",
    "CogSpec",
    "PartError",
    "Pyramid",
    "clean_partial",
    "create_store",
    "has_store",
    "is_store",
    "part_path",
    "read_classes",
    "read_cog_classes",
    "read_window",
    "thumbnail",
    "write_block",
    "write_cog",
    "write_part",
    "write_small_cog",
]
