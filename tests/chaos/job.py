"""The work that is disturbed: two scenes of 36 small blocks with labels, a bundle, and the command that maps them."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import from_origin

from tests.chaos.model import HALO, NUM_CLASSES, make_bundle

SEGBATCH = (sys.executable, "-m", "segbatch")

CORE = 256
"""A block is one core: three float32 bands of it fill the smallest block_mb as far as whole cores can."""

SIZES = {"east": (1024, 1280), "west": (1024, 1024)}
"""(rows, columns) of the scenes."""

BLOCKS = sum((rows // CORE) * (cols // CORE) for rows, cols in SIZES.values())


@dataclass(frozen=True)
class Job:
    """Scenes, labels and a bundle in a folder.

    Args:
        folder: Where they are; see `make`.
    """

    folder: Path

    def make(self) -> None:
        """Write all that a command needs."""
        self.folder.mkdir(parents=True)
        make_bundle(self.folder / "bundle")
        for number, (name, size) in enumerate(SIZES.items()):
            rng = np.random.default_rng(number)
            image = rng.integers(0, 256, (3, *size)).astype(np.float32)
            image[:, : CORE + HALO, : CORE + HALO] = np.nan  # a block that is never predicted
            label = np.kron(rng.integers(0, NUM_CLASSES, (size[0] // 64, size[1] // 64)), np.ones((64, 64)))
            label[-100:] = 255
            _write(self.folder / f"{name}.tif", image, number)
            _write(self.folder / f"{name}_label.tif", label[None].astype(np.uint8), number)

    def command(self, out: Path, engine: str, address: str = "local", source: str | None = None) -> list[str]:
        """The words of the command that maps the scenes.

        Args:
            out: Folder of the run; its configuration is written beside it.
            engine: ``inline`` or ``ray``.
            address: Of the Ray cluster.
            source: Folder or URL that holds the scenes and labels; None for this job's own.
        """
        source = source or str(self.folder)
        config: dict[str, Any] = {
            "name": "chaos",
            "output": str(out),
            "classes": [{"name": name} for name in ("water", "forest", "field", "town")],
            "scenes": {
                "predict": [{"image": f"{source}/{name}.tif", "label": f"{source}/{name}_label.tif"} for name in SIZES]
            },
            "inference": {
                "engine": engine, "core": CORE, "halo": HALO, "block_mb": 1, "backend": "eager",
                "precision": "float32",
            },
            "cluster": {"address": address},
        }  # fmt: skip
        path = out.with_name(f"{out.name}.yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(config))
        return [*SEGBATCH, "predict", str(self.folder / "bundle"), "--config", str(path)]


def _write(path: Path, array: Any, zone: int) -> None:
    bands, height, width = array.shape
    with rasterio.open(
        path, "w", driver="GTiff", width=width, height=height, count=bands, dtype=array.dtype.name,
        crs="EPSG:32632", transform=from_origin(5e5 + 1e5 * zone, 5e6, 1, 1), tiled=True, blockxsize=256,
        blockysize=256, compress="deflate", zlevel=1, nodata=255 if bands == 1 else np.nan,
    ) as dataset:  # fmt: skip
        dataset.write(array)
