"""From the words on the command line to what a mapping is asked to do."""

import shlex
from pathlib import Path
from typing import Any, NamedTuple

from segbatch.commands.folder import RunFolder
from segbatch.commands.request import Request, with_labels
from segbatch.config import Inference, load_config, parse_section
from segbatch.errors import InputError
from segbatch.scenes.catalog import expand, with_unique_ids


class Words(NamedTuple):
    """What the command line says besides how to map."""

    bundle: Path | None
    images: list[str] | None
    out: Path | None
    labels: list[str] | None
    bands: str | None
    nodata: float | None
    address: str | None
    config: Path | None
    overrides: list[str] | None
    overwrite: bool
    only_new: bool = False


def chosen_bands(text: str | None) -> list[int | str] | None:
    """Bands by number or name, from a list with commas."""
    return (
        None if text is None else [int(band) if band.isdecimal() else band for band in map(str.strip, text.split(","))]
    )


def make_request(words: Words, inference: dict[str, Any], untrained: bool = False) -> Request:
    """What to map: from a configuration, or from the words on the command line.

    Args:
        words: The command line's.
        inference: Settings of the inference section; None for those that were not given.
        untrained: Whether the configuration's model may be still to train.
    """
    given = {name: value for name, value in inference.items() if value is not None}
    chosen = chosen_bands(words.bands)
    if words.config is not None:
        if words.images:
            raise InputError("Give either scenes or --config, not both: a configuration lists its scenes.")
        if words.out is not None:
            wanted = shlex.join(["--set", f"output={words.out}"])
            raise InputError(f"--out and --config exclude each other: a configuration has its output. Give {wanted}.")
        if words.labels:
            raise InputError("--label and --config exclude each other: give labels in the configuration's scenes.")
        changes = {
            **{f"inference.{name}": (f"--{name.replace('_', '-')}", value) for name, value in given.items()},
            "scenes.bands": ("--bands", chosen),
            "scenes.nodata": ("--nodata", words.nodata),
            "cluster.address": ("--address", words.address),
        }
        options = {key: change for key, change in changes.items() if change[1] is not None}
        settings, card = load_config(str(words.config), words.overrides or (), options), None
        trained = RunFolder.of(settings.output).bundle
        if words.bundle is None and not untrained and not trained.exists():
            train = shlex.join(["segbatch", "train", str(words.config)])
            raise InputError(f"There is no bundle {trained} yet. Train first: {train}, or name a bundle.")
        if untrained and not trained.exists():
            from segbatch.commands.scenes import open_role
            from segbatch.commands.train import untrained_card

            card = untrained_card(settings, open_role(settings, "train")[0].info)
        return Request.from_config(settings, words.overwrite, words.bundle, card, words.only_new)
    if words.bundle is None or not words.images:
        other = "name a configuration in place of the bundle" if untrained else "give --config"
        raise InputError(f"Name a bundle and at least one scene, or {other}.")
    if words.out is None:
        raise InputError("Say where the class masks go with --out DIR.")
    if words.overrides:
        needs = "give plan one in place of the bundle" if untrained else "it needs --config"
        raise InputError(f"--set changes a configuration: {needs}.")
    section = parse_section(Inference, given, "the command line")
    listed = [ref for image in words.images for ref in expand(image, may_be_none=words.only_new)]
    refs = with_labels(with_unique_ids(listed), words.labels or [])
    return Request(
        name=words.out.absolute().name,
        folder=RunFolder(words.out),
        bundle=words.bundle,
        refs=refs,
        bands=chosen,
        nodata=words.nodata,
        label_map=None,
        inference=section,
        address=words.address or "auto",
        overwrite=words.overwrite,
        config={"inference": section.model_dump(mode="json")},
    )
