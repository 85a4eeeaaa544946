"""What a mapping is asked to do: from a configuration, or from the words on the command line."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from segbatch.classes import LabelMap
from segbatch.commands.folder import RunFolder
from segbatch.commands.progress import counted
from segbatch.config import Inference, RunConfig
from segbatch.errors import InputError
from segbatch.inference.settings import Product
from segbatch.models.card import Card, read_card
from segbatch.scenes import SceneRef
from segbatch.scenes.catalog import list_scenes, name_of, resolve

_PLACEHOLDER = re.compile(r"\{\w*\}")


@dataclass(frozen=True, slots=True)
class Request:
    """What to map, and how.

    Args:
        name: Of the run, for titles.
        folder: Where the files go.
        bundle: Folder of the bundle.
        refs: The scenes.
        bands: Bands to use, by number or name; None for the bundle's.
        nodata: Fill value that overrides the files' own.
        label_map: From label values to class ids; None for the bundle's.
        inference: How scenes are mapped.
        address: Of the Ray cluster.
        overwrite: Start afresh where the folder holds another run.
        config: The resolved configuration, for run.json.
        card: Of a bundle that is not there yet, for plans and checks.
    """

    name: str
    folder: RunFolder
    bundle: Path
    refs: Sequence[SceneRef]
    bands: list[int | str] | None
    nodata: float | None
    label_map: LabelMap | None
    inference: Inference
    address: str
    overwrite: bool
    config: dict[str, Any]
    card: Card | None = None

    @classmethod
    def from_config(
        cls,
        config: RunConfig,
        overwrite: bool = False,
        bundle: Path | None = None,
        card: Card | None = None,
        only_new: bool = False,
    ) -> "Request":
        """Map what a configuration lists.

        Args:
            config: The configuration.
            overwrite: Start afresh where the folder holds another run.
            bundle: Folder of the bundle; None for the one that the run has trained.
            card: Of a bundle that is not there yet; see `train.untrained_card`.
            only_new: Whether the list of scenes may be empty for now.

        Raises:
            InputError: There is no bundle yet, or it has other classes.
        """
        folder = RunFolder.of(config.output)
        bundle = bundle or folder.bundle
        names = (card or read_card(bundle)).classes.names
        if names != config.class_table().names:
            raise InputError(
                f"{bundle} has the classes {', '.join(names)}, but the configuration has "
                f"{', '.join(config.class_table().names)}. Train again, or choose another output."
            )
        return cls(
            name=config.name,
            folder=folder,
            bundle=bundle,
            refs=list_scenes(config.scenes, "predict", may_be_none=only_new),
            bands=config.scenes.bands,
            nodata=config.scenes.nodata,
            label_map=config.label_map(),
            inference=config.inference,
            address=config.cluster.address,
            overwrite=overwrite,
            config=config.model_dump(by_alias=True, mode="json"),
            card=card,
        )

    @property
    def products(self) -> tuple[Product, ...]:
        """What is written beside the class masks."""
        wanted: list[tuple[Product, bool]] = [
            ("confidence", self.inference.confidence),
            ("probabilities", self.inference.probabilities),
        ]
        return tuple(name for name, chosen in wanted if chosen)


def with_labels(refs: Sequence[SceneRef], labels: Sequence[str]) -> list[SceneRef]:
    """Pair scenes with labels given in the same order, or with one that has ``{name}`` for the image's name.

    Raises:
        InputError: There are not as many labels as scenes, or nothing stands for what is in braces.
    """
    for label in labels:
        unknown = [found for found in _PLACEHOLDER.findall(label) if found != "{name}"]
        if unknown and not os.path.exists(label):
            raise InputError(f"--label {label}: nothing stands for {unknown[0]}. Write {{name}} for the image's name.")
    if len(labels) == 1 and "{name}" in labels[0]:
        labels = [labels[0].replace("{name}", name_of(ref.image)) for ref in refs]
    if labels and len(labels) != len(refs):
        raise InputError(
            f"{counted(len(refs), 'scene')} but {counted(len(labels), 'label')}: give one --label for each scene, "
            "in order."
        )
    return (
        [replace(ref, label=resolve(label, ".")) for ref, label in zip(refs, labels, strict=True)]
        if labels
        else list(refs)
    )
