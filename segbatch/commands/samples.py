"""Sample predictions: windows of the validation scenes, their labels, and what the trained model makes of them.

They are pictures in the run's folder, so that a report is made of files alone, without a model.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from segbatch.classes import IGNORE_INDEX, ClassTable, LabelMap
from segbatch.commands.folder import RunFolder
from segbatch.evaluation import confusion_matrix
from segbatch.geometry import Block, BlockGrid, Lattice, Window
from segbatch.report.summary import Sample
from segbatch.scenes import LabelReader, Pixels, open_scene
from segbatch.scenes.atlas import Part
from segbatch.storage import move_over, staging_folder

if TYPE_CHECKING:
    from segbatch.inference.predictor import Predictor
    from segbatch.models.card import Card

INDEX = "samples.json"
"""What the pictures show: a list of samples."""

_SIDE = 512
_MOST_READ = 64
_MOST_PREDICTED = 12
_MOST_SHOWN = 6


@dataclass(frozen=True, slots=True)
class Place:
    """A window of a validation scene, with what is around it.

    Args:
        scene: Which scene.
        crop: The part of the scene that may be seen.
        grid: The windows of that part, one a block.
        block: The window.
    """

    scene: Part
    crop: Window
    grid: BlockGrid
    block: Block

    @property
    def window(self) -> Window:
        """The window in its scene."""
        return self.block.owned.shifted(self.crop.col_off, self.crop.row_off)


def write_samples(
    folder: RunFolder, scenes: Sequence[Part], label_map: LabelMap, nodata: float | None, bands: Sequence[int]
) -> None:
    """Choose, predict and draw.

    Shown are the windows with the lowest, the median and the highest agreement of some that were predicted, and those
    with most of the rarest classes.

    Args:
        folder: The run's folder with its bundle.
        scenes: The validation scenes.
        label_map: From label values to class ids.
        nodata: Fill value that overrides the images' own.
        bands: 1-based band numbers in the order of the model's channels.

    Raises:
        SegbatchError: A scene or label cannot be read.
        OSError: The pictures cannot be written.
    """
    import torch

    from segbatch.inference.load import load_predictor
    from segbatch.inference.settings import Settings
    from segbatch.models.card import read_card

    device = "cuda" if torch.cuda.is_available() else "cpu"
    card = read_card(folder.bundle)
    places = list(spread(scenes, card.stride, card.halo))
    counts = np.stack([_class_counts(place, label_map, nodata) for place in places])
    chosen = choose_places(counts)
    predictor = load_predictor(str(folder.bundle), Settings(), None, None, device) if chosen else None
    found: list[tuple[int, float, NDArray[np.uint8], NDArray[np.uint8]]] = []
    for index in chosen:
        assert predictor is not None
        label, mask = _predict(places[index], predictor, label_map, nodata, bands)
        counted = confusion_matrix(label, mask, len(card.classes))
        if counted.any():
            found.append((index, float(np.trace(counted) / counted.sum()), label, mask))
    shown = choose_shown([share for _, share, _, _ in found], counts[[index for index, *_ in found]], card.classes)
    with staging_folder(folder.samples) as scratch:
        staged = scratch / folder.samples.name
        staged.mkdir()
        rows = []
        for number, (position, reason) in enumerate(shown, start=1):
            index, share, label, mask = found[position]
            rows.append(
                {
                    "scene": places[index].scene[0].id,
                    "window": [
                        getattr(places[index].window, side) for side in ("col_off", "row_off", "width", "height")
                    ],
                    "reason": reason,
                    "pixel_accuracy": share,
                    "pictures": _draw(staged, number, places[index], label, mask, card, nodata),
                }
            )
        content = {"predicted": len(found), "samples": rows}
        (staged / INDEX).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        move_over(staged, folder.samples, last=INDEX)


def read_samples(folder: RunFolder) -> tuple[Sample, ...]:
    """What `write_samples` has left; nothing where it has not, or where it cannot be read."""
    try:
        content = json.loads((folder.samples / INDEX).read_text(encoding="utf-8"))
        return tuple(
            Sample(
                "{}, {} x {} px at column {:,}, row {:,}".format(row["scene"], *row["window"][2:], *row["window"][:2])
                + f": {row['reason']} of {content['predicted']} windows, pixel accuracy {row['pixel_accuracy']:.3f}",
                # Names alone: nothing but the folder's own files is shown.
                tuple(
                    (str(item["caption"]), str(folder.samples / Path(item["file"]).name)) for item in row["pictures"]
                ),
            )
            for row in content["samples"]
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return ()


def spread(scenes: Sequence[Part], stride: int, halo: int) -> Iterator[Place]:
    """Windows spread evenly over the scenes, of about `_SIDE` pixels a side.

    Args:
        scenes: The scenes, or parts of them.
        stride: Of the model.
        halo: Context pixels, of the part alone.
    """
    grids = []
    for ref, info in scenes:
        crop = ref.crop(info.width, info.height)
        sides = [-(-side // -(-side // _SIDE)) for side in (crop.width, crop.height)]
        width, height = (-(-side // stride) * stride for side in sides)
        grids.append((crop, BlockGrid(Lattice(crop.width, crop.height, width, height, halo), 1, 1)))
    ends = np.cumsum([len(grid) for _, grid in grids])
    for number in np.unique(np.linspace(0, ends[-1] - 1, min(_MOST_READ, ends[-1])).round().astype(int)).tolist():
        index = int(np.searchsorted(ends, number, side="right"))
        crop, grid = grids[index]
        yield Place(scenes[index], crop, grid, grid[number - (int(ends[index - 1]) if index else 0)])


def choose_places(counts: NDArray[np.int64]) -> list[int]:
    """Which windows to predict: those with most of each class, the rarest first, and others spread evenly.

    Args:
        counts: Labelled pixels (windows, classes).

    Returns:
        Their numbers, ascending; windows without a label are left out.
    """
    labelled = np.flatnonzero(counts.sum(axis=1))
    totals = counts.sum(axis=0)
    chosen: list[int] = []
    for class_id in np.argsort(totals, kind="stable"):
        index = int(counts[:, class_id].argmax())
        if totals[class_id] and index not in chosen and len(chosen) < _MOST_PREDICTED * 2 // 3:
            chosen.append(index)
    others = [index for index in labelled.tolist() if index not in chosen]
    wanted = min(len(others), _MOST_PREDICTED - len(chosen))
    if wanted:
        chosen += [others[at] for at in np.linspace(0, len(others) - 1, wanted).round().astype(int)]
    return sorted(chosen)


def choose_shown(shares: Sequence[float], counts: NDArray[np.int64], classes: ClassTable) -> list[tuple[int, str]]:
    """Which of the predicted windows to show, and why.

    Args:
        shares: Of each, the share of labelled pixels whose class was found.
        counts: Labelled pixels (windows, classes).
        classes: The class table.

    Returns:
        (number, reason) of each.
    """
    order = np.argsort(shares, kind="stable").tolist()
    if len(order) < 2:
        return [(index, "the only one") for index in order]
    shown = {order[0]: "lowest agreement"}
    if len(order) > 2:
        shown[order[len(order) // 2]] = "median agreement"
    shown[order[-1]] = "highest agreement"
    totals = counts.sum(axis=0)
    for class_id in np.argsort(totals, kind="stable"):
        index = int(counts[:, class_id].argmax())
        if totals[class_id] and index not in shown and len(shown) < _MOST_SHOWN:
            shown[index] = f"most {classes.names[class_id]}"
    return list(shown.items())


def _class_counts(place: Place, label_map: LabelMap, nodata: float | None) -> NDArray[np.int64]:
    ids = _read_label(place, label_map, nodata)
    return np.bincount(ids[ids != IGNORE_INDEX], minlength=label_map.num_classes)


def _read_label(place: Place, label_map: LabelMap, nodata: float | None) -> NDArray[np.uint8]:
    ref, info = place.scene
    with LabelReader(ref.label or "", label_map, info) as label:
        return label.read(place.window)


def _predict(
    place: Place, predictor: "Predictor", label_map: LabelMap, nodata: float | None, bands: Sequence[int]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The label and the class mask of a window."""
    from segbatch.training.validation import read_within

    block = place.block
    with open_scene(place.scene[0].image, nodata) as image:
        values, valid = read_within(image, block.read, place.crop, bands)
    mask = predictor.predict(values, valid, place.grid.tiling(block), kept=block.kept).mask
    label = _read_label(place, label_map, nodata)
    label[~valid[block.kept.slices]] = IGNORE_INDEX
    return label, mask


def _draw(
    folder: Path,
    number: int,
    place: Place,
    label: NDArray[np.uint8],
    mask: NDArray[np.uint8],
    card: "Card",
    nodata: float | None,
) -> list[dict[str, str]]:
    """Write a sample's pictures, and say which they are."""
    from segbatch.report.figures import Tile, class_rgb, encoded, image_rgb, shown_bands

    with open_scene(place.scene[0].image, nodata) as image:
        pixels: Pixels = image.read(place.window, shown_bands(image.info))
    tiles = [
        Tile("image", image_rgb(pixels)),
        Tile("label", class_rgb(label, card.classes)),
        Tile("class mask", class_rgb(mask, card.classes)),
    ]
    pictures = []
    for tile in tiles:
        content, ending = encoded(tile)
        name = f"{number}-{tile.caption.replace(' ', '-')}.{ending}"
        (folder / name).write_bytes(content)
        pictures.append({"caption": tile.caption, "file": name})
    return pictures
