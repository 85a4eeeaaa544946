"""The card: what a bundle's model expects of scenes and what it gives. Light: needs no torch."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from segbatch import __version__
from segbatch.classes import ClassTable, LabelMap
from segbatch.errors import InputError
from segbatch.models.halo import HaloCurve
from segbatch.scenes import SceneInfo
from segbatch.storage import local_copy, place, write_whole

CARD = "segbatch.json"
_FILES = ("config.json", "model.safetensors", CARD)
_FORMAT = 1
_CURVE = "halo_curve"
_PERCENTILES = "percentiles"
_FOR_PEOPLE = ("training", "segbatch", _CURVE, _PERCENTILES)
"""What of a card has no part in what its model computes."""

DEFAULT_HALO = 64
"""Context in pixels that a card asks for where the model's own was not measured."""


def default_halo(stride: int) -> int:
    """`DEFAULT_HALO`, or the next multiple of the model's stride."""
    return -(-DEFAULT_HALO // stride) * stride


@dataclass(frozen=True, slots=True)
class Card:
    """What a model expects of scenes, and what it gives.

    Args:
        classes: The class table.
        band_names: One a band in the order of the model's channels; an empty string where unnamed.
        dtype: numpy's name of the pixel type that the model was trained on.
        mean: Of each band over the training scenes, in pixel values as stored.
        std: Likewise.
        stride: Sides of windows, cores and halos are multiples of this.
        halo: Context pixels around a core, where ``halo_curve`` does not tell better.
        label_map: From the values of the training labels to class ids; labels to evaluate against are read
            the same way unless something else is said.
        bands: 1-based numbers of the model's bands in the training scenes, where they were chosen; None for all.
        training: Where the model comes from and how good it was in validation; for people.
        halo_curve: What halos of this model are worth; None where it was not measured.
        percentiles: Of each band over the training scenes the 1st, 50th and 99th; empty where it was not measured.
    """

    classes: ClassTable
    band_names: tuple[str, ...]
    dtype: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    stride: int
    halo: int
    label_map: LabelMap
    bands: tuple[int, ...] | None = None
    training: dict[str, Any] = field(default_factory=dict, compare=False)
    halo_curve: HaloCurve | None = None
    percentiles: tuple[tuple[float, ...], ...] = field(default=(), compare=False)

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        data = {"format": _FORMAT, "segbatch": __version__, **asdict(self), "classes": self.classes.to_json()}
        del data["label_map"]
        data[_CURVE] = None if self.halo_curve is None else self.halo_curve.to_json()
        return {**data, **self.label_map.to_json(self.classes)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The inverse of `to_json`.

        Raises:
            KeyError, TypeError, ValueError, AttributeError, InputError: The data are not a card's.
        """
        if data["format"] != _FORMAT:
            raise ValueError(f"its format is {data['format']}; this segbatch reads {_FORMAT}")
        classes = ClassTable.from_json(data["classes"])
        if not len(data["band_names"]) == len(data["mean"]) == len(data["std"]):
            raise ValueError("band_names, mean and std differ in length")
        return cls(
            classes=classes,
            band_names=tuple(data["band_names"]),
            dtype=str(data["dtype"]),
            mean=tuple(float(value) for value in data["mean"]),
            std=tuple(float(value) for value in data["std"]),
            stride=int(data["stride"]),
            halo=int(data["halo"]),
            label_map=LabelMap.from_json(data, classes),
            bands=None if data["bands"] is None else tuple(int(band) for band in data["bands"]),
            training=dict(data["training"]),
            # Cards of earlier versions have neither.
            halo_curve=None if data.get(_CURVE) is None else HaloCurve.from_json(data[_CURVE]),
            percentiles=tuple(tuple(map(float, band)) for band in data.get(_PERCENTILES, ())),
        )

    def auto_halo(self, tolerance: float, border: Callable[[int], float]) -> int:
        """The halo to take where the user leaves it to the bundle.

        Where no measured halo is good enough, `halo` may still be larger than all of them: scenes that were too small
        for large halos must not make it worse.

        Args:
            tolerance: Share of pixels that may differ from a prediction of the whole image.
            border: Pixels where cores meet for each pixel of the scene, of the lattice that goes with a halo.
        """
        if self.halo_curve is None:
            return self.halo
        found = self.halo_curve.smallest(tolerance, border)
        return found if self.halo_curve.expected(found, border(found)) <= tolerance else max(found, self.halo)

    def select_bands(self, scene: SceneInfo, wanted: list[int | str] | None = None) -> tuple[int, ...]:
        """1-based numbers of the scene's bands in the order of the model's channels.

        Without ``wanted``, bands are matched by name where the model's have names and the scene has them
        all, else by the numbers they had in the training scenes.

        Raises:
            InputError: The scene does not have what the model takes.
        """
        asked = wanted is not None
        if wanted is None and all(self.band_names):
            lowered = [name.casefold() for name in scene.band_names]
            if all(lowered.count(name.casefold()) == 1 for name in self.band_names):
                wanted = list(self.band_names)
        if wanted is None and self.bands is not None:
            if max(self.bands) > len(scene.band_names):
                raise InputError(
                    f"{scene.uri} has {len(scene.band_names)} bands, and the bundle was trained on bands "
                    f"{', '.join(map(str, self.bands))} of others. Say which are theirs with --bands or scenes.bands."
                )
            wanted = list(self.bands)
        bands = scene.select_bands(wanted)
        if wanted is None and len(bands) != len(self.band_names) == len(scene.band_names):
            # What looks like an alpha band is data: the model takes as many bands as there are.
            bands = tuple(range(1, len(scene.band_names) + 1))
        if len(bands) != len(self.band_names):
            names = ", ".join(name for name in self.band_names if name)
            found = f"{len(bands)} bands of {scene.uri} are chosen" if asked else f"{scene.uri} has {len(bands)} bands"
            raise InputError(
                f"{found}, but the bundle takes {len(self.band_names)}{f' ({names})' if names else ''}. "
                f"Choose {'as many' if asked else 'them with --bands or scenes.bands'}."
            )
        if scene.dtype != self.dtype:
            raise InputError(
                f"{scene.uri} holds {scene.dtype}, but the bundle was trained on {self.dtype}: its normalisation "
                "would not fit. Convert the scene, or train on scenes like it."
            )
        return bands


def read_card(folder: str | Path) -> Card:
    """Read the card alone.

    Raises:
        InputError: The folder is not a bundle.
    """
    try:
        folder = place(folder)
    except ValueError as error:
        raise InputError(f"The bundle {error}.") from error
    if not folder.is_dir():
        raise InputError(f"The bundle {folder} does not exist.")
    missing = [name for name in _FILES if not (folder / name).is_file()]
    if missing:
        inside = folder / "bundle"  # of a run
        meant = f" Did you mean {inside}?" if inside.is_dir() else ""
        raise InputError(f"{folder} is not a bundle: it has no {missing[0]}.{meant}")
    try:
        return Card.from_json(json.loads((folder / CARD).read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError, InputError) as error:
        raise InputError(f"{folder / CARD} is not a bundle's card: {error}") from error


def write_halo_curve(folder: str | Path, curve: HaloCurve) -> None:
    """Put a curve on a bundle's card and leave all else in the bundle as it is.

    An interruption leaves the older card or the new one.

    Raises:
        OSError: The bundle cannot be written to.
    """
    path = place(folder) / CARD
    data = json.loads(path.read_text(encoding="utf-8"))
    data[_CURVE] = curve.to_json()
    write_whole(path, (json.dumps(data, indent=2) + "\n").encode())


def bundle_hash(folder: str | Path) -> str:
    """Identifies what a bundle computes: its files without what the card tells of the training and of halos.

    The halo curve changes no class mask by itself: the halo that was taken is part of a run's fingerprint. With it in
    the hash, measuring it anew would cut off every run that was mapped with the bundle, whatever halo it took.
    """
    digest = hashlib.sha256()
    for name in ("config.json", "model.safetensors"):
        with (local_copy(folder) / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    card = read_card(folder).to_json()
    digest.update(json.dumps({k: v for k, v in card.items() if k not in _FOR_PEOPLE}).encode())
    return digest.hexdigest()
