"""The plain script: it learns what it is shown, and is scored as bundles are."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segbatch.bench.plain import print_scores, train_plainly
from segbatch.config import RunConfig, parse_config


@pytest.fixture
def config(tmp_path: Path, make_raster: Callable[..., str]) -> RunConfig:
    """Two classes told apart by colour; the scene to predict is another one, smaller than a tile in one direction."""
    entries = []
    for index, shape in enumerate([(96, 96), (96, 96), (48, 96)]):
        label = np.kron(np.random.default_rng(index).integers(0, 2, (shape[0] // 16, 6)), np.ones((16, 16), int))
        make_raster(tmp_path / f"image{index}.tif", np.stack([60 + 120 * label] * 3).astype(np.uint8))
        make_raster(tmp_path / f"label{index}.tif", label.astype(np.uint8))
        entries.append({"image": f"image{index}.tif", "label": f"label{index}.tif"})
    return parse_config(
        {
            "name": "plain",
            "output": str(tmp_path / "run"),
            "classes": [{"name": "dark"}, {"name": "bright"}],
            "scenes": {"root": str(tmp_path), "train": entries[:1], "validate": entries[1:2], "predict": entries[2:]},
            "model": {"encoder": "resnet18", "options": {"encoder_depth": 3, "decoder_channels": [16, 16, 8]}},
            "training": {"tile": 64, "batch_size": 4},
        },
        "test.yaml",
    )


def test_the_script_learns_and_is_scored_on_all_labelled_pixels(
    config: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    score = train_plainly(config, 0.15)
    assert score.seconds is not None
    assert score.seconds >= 9
    assert score.steps
    assert sum(figures.support for figures in score.metrics.classes) == 48 * 96
    assert (score.metrics.miou or 0) > 0.6
    print_scores(config, [score])
    assert "plain PyTorch script" in capsys.readouterr().out
