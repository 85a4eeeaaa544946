"""Writing class masks: the sharded Zarr store that blocks are written to, and the COG made from it."""

from segbatch.masks.cog import read_cog_classes, write_cog
from segbatch.masks.shards import (
    clean_partial,
    create_store,
    open_class_mask,
    read_classes,
    read_window,
    thumbnail,
    write_block,
)

__all__ = [
    "clean_partial",
    "create_store",
    "open_class_mask",
    "read_classes",
    "read_cog_classes",
    "read_window",
    "thumbnail",
    "write_block",
    "write_cog",
]
