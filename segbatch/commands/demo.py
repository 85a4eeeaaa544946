"""The demo: a whole run on data that the package makes itself."""

from pathlib import Path
from typing import Any

import yaml

from segbatch.commands.folder import RunFolder
from segbatch.commands.progress import say
from segbatch.commands.run import run
from segbatch.config import parse_config
from segbatch.demo import CLASSES, LabelledImage, write_demo
from segbatch.errors import InputError
from segbatch.storage import is_remote


def demo(path: Path, overwrite: bool = False) -> dict[str, Any]:
    """Make the data, train, map a place that was not trained on, and report.

    Args:
        path: Folder of the run; data and configuration go there too.
        overwrite: Start afresh.

    Returns:
        The content of metrics.json.
    """
    if is_remote(path):
        raise InputError(f"The demo needs a folder for what it paints, and {path} is none.")
    RunFolder(path).create()
    say(f"Painting the demo's landscape to {path / 'data'} ...")
    files = write_demo(path / "data")

    def entries(images: tuple[LabelledImage, ...]) -> list[dict[str, str]]:
        return [{"image": str(image.image), "label": str(image.label)} for image in images]

    data: dict[str, Any] = {
        "name": "demo",
        "output": str(path),
        "classes": CLASSES.to_json(),
        "scenes": {
            "train": entries(files.train),
            "validate": entries(files.validate),
            "predict": entries(files.predict),
        },
        "model": {
            "architecture": "unet",
            "encoder": "resnet18",
            "options": {"decoder_channels": [128, 64, 48, 32, 16]},
        },
        "training": {"epochs": 6, "steps_per_epoch": 50, "tile": 256, "batch_size": 8, "learning_rate": 0.002},
    }
    (path / "demo.yaml").write_text(
        "# The demo's configuration, to copy from: segbatch run demo.yaml\n" + yaml.safe_dump(data, sort_keys=False),
        encoding="utf-8",
    )
    return run(parse_config(data, "the demo's configuration"), overwrite)
