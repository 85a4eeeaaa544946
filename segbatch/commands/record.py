"""A run's record: what its ledger's rows are about. With it, a report needs nothing but the run's folder."""

import json
import math
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from segbatch.classes import ClassTable, LabelMap
from segbatch.commands.folder import RunFolder, write_json
from segbatch.errors import InputError
from segbatch.scenes import SceneInfo, SceneRef
from segbatch.scenes.area import SceneArea

if TYPE_CHECKING:
    from rasterio.crs import CRS

_FILE = "scenes.json"

_EARTH_RADIUS = 6_371_007.2
"""Metres; of the sphere that has the ellipsoid's surface."""

_LATITUDES = 256


@dataclass(frozen=True, slots=True)
class SceneRecord:
    """A scene of the run.

    Args:
        id: Of its rows in the ledger.
        group: What the scene belongs to, or None.
        image: Path or URL of the image, or None where only a class mask was given.
        label: Path or URL of the label, or None.
        mask: Path or URL of the class mask.
        width: Columns.
        height: Rows.
        blocks: Rows that it has in the ledger when it is done.
        pixel_area_m2: Square metres a pixel, or None.
        pixel_size_um: Micrometres a pixel, or None.
        km2: Square kilometres that are mapped of it, or None.
    """

    id: str
    group: str | None
    image: str | None
    label: str | None
    mask: str
    width: int
    height: int
    blocks: int
    pixel_area_m2: float | None
    pixel_size_um: float | None
    km2: float | None = None

    @classmethod
    def of(
        cls,
        ref: SceneRef,
        info: SceneInfo,
        *,
        image: str | None,
        mask: Path | str,
        blocks: int,
        area: SceneArea | None = None,
    ) -> Self:
        """The record of a scene; ``area`` is the part of it that is mapped, None for all of it."""
        return cls(
            id=ref.id,
            group=ref.group,
            image=image,
            label=ref.label,
            mask=str(mask),
            width=info.width,
            height=info.height,
            blocks=blocks,
            pixel_area_m2=pixel_area(info),
            pixel_size_um=ref.pixel_size_um,
            km2=scene_km2(info, area),
        )


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What a run was about.

    Args:
        name: Its title.
        classes: The class table.
        label_map: From label values to class ids.
        scenes: In the order of the catalog.
        nodata: Fill value that overrides the images' own, or None.
        facts: Lines for the report's header.
    """

    name: str
    classes: ClassTable
    label_map: LabelMap
    scenes: tuple[SceneRecord, ...]
    nodata: float | None
    facts: tuple[tuple[str, str], ...]

    @property
    def blocks(self) -> dict[str, int]:
        """By the id of a scene, rows that it has in the ledger when it is done."""
        return {scene.id: scene.blocks for scene in self.scenes}

    def save(self, folder: RunFolder) -> None:
        """Write it beside the ledger's rows."""
        folder.ledger.mkdir(parents=True, exist_ok=True)
        labels = self.label_map
        data = {
            **asdict(self),
            "classes": self.classes.to_json(),
            "label_values": labels.values,
            "label_attribute": labels.attribute,
            "label_background": labels.background,
        }
        del data["label_map"]
        write_json(folder.ledger / _FILE, data)

    @staticmethod
    def is_in(folder: RunFolder) -> bool:
        """Whether a run has mapped or evaluated anything there."""
        return (folder.ledger / _FILE).is_file()

    @classmethod
    def load(cls, folder: RunFolder) -> Self:
        """Read what `save` wrote.

        Raises:
            InputError: The folder holds no run that has mapped or evaluated anything.
        """
        if not folder.path.is_dir():
            raise InputError(f"The run {folder.path} does not exist.")
        path = folder.ledger / _FILE
        if not path.is_file():
            raise InputError(f"{folder.path} has no ledger: nothing was trained, mapped or evaluated there yet.")
        try:
            data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            values, classes = data["label_values"], ClassTable.from_json(data["classes"])
            return cls(
                name=data["name"],
                classes=classes,
                label_map=LabelMap(
                    len(classes),
                    None if values is None else tuple((value, int(class_id)) for value, class_id in values),
                    data.get("label_attribute"),  # records from before there were vector labels say nothing of them
                    data.get("label_background"),
                    classes,
                ),
                scenes=tuple(SceneRecord(**scene) for scene in data["scenes"]),
                nodata=data["nodata"],
                facts=tuple((str(name), str(value)) for name, value in data["facts"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is not a run's record: {error!r}") from error


def pixel_area(info: SceneInfo) -> float | None:
    """Square metres a pixel of a scene with a projected CRS, else None."""
    if info.crs is None:
        return None
    crs = _parsed(info.crs)
    if not crs.is_projected:
        return None
    return float(abs(info.transform.determinant) * crs.linear_units_factor[1] ** 2)


def scene_km2(info: SceneInfo, area: SceneArea | None = None) -> float | None:
    """About how many square kilometres a scene shows; None without a map.

    Args:
        info: Of the scene.
        area: The part of it that counts; None for all of it.
    """
    each = pixel_area(info) or _mean_pixel_area(info)
    pixels = info.window.area if area is None else area.pixels(info.window)
    return None if each is None else each * pixels / 1e6


@lru_cache(maxsize=64)
def _parsed(wkt: str) -> "CRS":
    """A CRS, which thousands of scenes share: PROJ takes long to understand one."""
    from rasterio.crs import CRS

    return CRS.from_wkt(wkt)


def _mean_pixel_area(info: SceneInfo) -> float | None:
    """Square metres a pixel of a scene with a geographic CRS in the mean, on a sphere; None for other scenes."""
    if info.crs is None:
        return None
    crs = _parsed(info.crs)
    if not crs.is_geographic:
        return None
    unit = crs.units_factor[1]  # radians
    rows = ((row + 0.5) * info.height / _LATITUDES for row in range(_LATITUDES))
    latitudes = ((info.transform @ (info.width / 2, row))[1] * unit for row in rows)
    shrink = sum(max(0.0, math.cos(latitude)) for latitude in latitudes) / _LATITUDES
    return float(abs(info.transform.determinant) * unit**2 * _EARTH_RADIUS**2 * shrink)
