"""Whether a schedule has its model. One that is finished serves on, whatever becomes of what it has learned from."""

from segbatch.commands.folder import RunFolder
from segbatch.commands.progress import quietly, say
from segbatch.commands.split import open_labelled, split_table
from segbatch.commands.train import fingerprint, starting_weights
from segbatch.config import RunConfig
from segbatch.errors import InputError


def is_trained(config: RunConfig) -> bool:
    """Whether the run's bundle is finished; says so where the configuration would train another by now.

    Labels are touched, tiles come, and images go to an archive: no reason to map nothing tonight.
    """
    folder = RunFolder.of(config.output)
    known = folder.read().get("training") or {}
    if known.get("state") != "done" or not folder.bundle.exists():
        return False
    change = _change(config, folder)
    if change:
        say(
            f"Warning: {change} Mapping goes on with {folder.bundle}. For a new model: segbatch train with another "
            "output folder, then segbatch predict NEW/bundle --config CONFIG --only-new, or that output in CONFIG.",
            "warning",
        )
    return True


def _change(config: RunConfig, folder: RunFolder) -> str:
    """What is not as it was when the bundle was trained, in a sentence; empty where all is."""
    known = folder.read()["training"]
    try:
        with quietly():
            scenes = open_labelled(config)
        if fingerprint(config, scenes, starting_weights(config.model, known)) == known["fingerprint"]:
            return ""
    except InputError as error:
        first, *more = str(error).splitlines()
        return f"What the model was trained on is not there as it was: {first}{' ...' if more else ''}"
    if folder.split.is_file() and folder.split.read_bytes() != split_table(config, scenes):
        return f"Training and validation have other scenes or windows by now than {folder.split}."
    return "Files that the model was trained on, or settings of its training, have changed since."
