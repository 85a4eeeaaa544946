"""What training is worth: a bundle against what a plain PyTorch script makes of the same scenes in the same time."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from segbatch.bench.material import cores
from segbatch.bench.processes import alone
from segbatch.bench.show import figure, print_table
from segbatch.classes import IGNORE_INDEX
from segbatch.commands.scenes import open_role
from segbatch.commands.split import open_labelled
from segbatch.commands.train import training_scenes
from segbatch.config import Role, RunConfig
from segbatch.errors import InputError
from segbatch.evaluation import Metrics, compute_metrics
from segbatch.inference.predictor import Predictor
from segbatch.models.backends.forward import Forward
from segbatch.models.build import build_model, model_stride
from segbatch.models.bundle import load_bundle
from segbatch.models.card import default_halo, read_card
from segbatch.training.survey import TrainingScene
from segbatch.training.tiles import Tile, TilePlace, TileReader
from segbatch.training.validation import validate

_LEARNING_RATE = 1e-3


@dataclass(frozen=True, slots=True)
class Score:
    """How good a model is on scenes that it has not seen.

    Args:
        name: Of the model.
        seconds: Of training; None where that is not known.
        steps: Optimizer steps; None likewise.
        metrics: Over the scenes.
    """

    name: str
    seconds: float | None
    steps: int | None
    metrics: Metrics


def compare_with_plain(config: RunConfig, bundle: Path | None, minutes: float) -> list[Score]:
    """Train a plain script for some minutes, and score it and the bundle on the labelled scenes to predict.

    Args:
        config: Which scenes, model, tile and batch.
        bundle: Folder of a bundle of this configuration, to set beside it; None for the script alone.
        minutes: For the script.

    Raises:
        InputError: The bundle is not one, or of other classes.
    """
    if bundle is not None and read_card(bundle).classes.names != config.class_table().names:
        raise InputError(f"{bundle} has other classes than {config.name}.")
    scores = [alone(train_plainly, config, minutes)]
    return scores if bundle is None else [alone(score_bundle, config, bundle), *scores]


def train_plainly(config: RunConfig, minutes: float) -> Score:
    """The script: random crops, flips and quarter turns, cross-entropy, Adam with one learning rate, float32."""
    torch.set_num_threads(cores())
    torch.manual_seed(config.training.seed)
    rng = np.random.default_rng(config.training.seed)
    scenes = training_scenes(config, open_labelled(config)["train"])
    wholes = _whole_scenes(scenes, config)
    real = [whole.values[:, whole.valid].astype(np.float64) for whole in wholes]
    pixels = np.concatenate(real, axis=1)
    mean, std = pixels.mean(axis=1), pixels.std(axis=1)
    model = build_model(
        config.model.architecture,
        config.model.encoder,
        in_channels=len(mean),
        num_classes=len(config.classes),
        weights=config.model.weights,
        options=config.model.options,
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=_LEARNING_RATE)
    loss_of = torch.nn.CrossEntropyLoss(ignore_index=IGNORE_INDEX)
    areas = np.array([whole.label.size for whole in wholes], float)
    started, steps = time.perf_counter(), 0
    model.train()
    while time.perf_counter() - started < 60 * minutes:
        chosen = rng.choice(len(wholes), config.training.batch_size, p=areas / areas.sum())
        crops = [_crop(wholes[index], config.training.tile, rng) for index in chosen]
        values = np.stack([values for values, _ in crops]).astype(np.float32)
        batch = torch.from_numpy((values - mean[:, None, None]) / std[:, None, None]).float()
        label = torch.from_numpy(np.stack([label for _, label in crops])).long()
        loss = loss_of(model(batch), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps += 1
    seconds = time.perf_counter() - started
    metrics = _metrics(config, model.eval(), mean.tolist(), std.tolist(), config.label_map().num_classes)
    return Score("plain PyTorch script", seconds, steps, metrics)


def score_bundle(config: RunConfig, folder: Path) -> Score:
    """The metrics of a bundle on the labelled scenes to predict."""
    torch.set_num_threads(cores())
    bundle = load_bundle(folder)
    history = bundle.card.training.get("history", [])
    seconds = sum(row["train_seconds"] + row["validate_seconds"] for row in history)
    steps = (config.training.steps_per_epoch or 0) * len(history)
    metrics = _metrics(config, bundle.model, bundle.card.mean, bundle.card.std, len(bundle.card.classes))
    return Score("segbatch", seconds or None, steps or None, metrics)


def print_scores(config: RunConfig, scores: list[Score]) -> None:
    """Print the scores as a table."""
    print_table(
        f"{config.name}: {config.model.architecture} with {config.model.encoder}, scenes to predict",
        ("model", "train s", "steps", "miou", *config.class_table().names),
        [
            (
                score.name,
                figure(score.seconds, ",.0f"),
                figure(score.steps, ",d"),
                figure(score.metrics.miou, ".3f"),
                *(figure(found.iou, ".3f") for found in score.metrics.classes),
            )
            for score in scores
        ],
    )


def _metrics(
    config: RunConfig, model: torch.nn.Module, mean: Sequence[float], std: Sequence[float], num_classes: int
) -> Metrics:
    role: Role = "predict"
    scenes = training_scenes(config, [part for part in open_role(config, role) if part.ref.label])
    stride = model_stride(model)
    predictor = Predictor(Forward(model, mean, std))
    confusion = validate(predictor, scenes, config.label_map(), stride=stride, halo=default_halo(stride))
    assert confusion.shape == (num_classes, num_classes)
    return compute_metrics(confusion)


def _whole_scenes(scenes: tuple[TrainingScene, ...], config: RunConfig) -> list[Tile]:
    with TileReader(scenes, config.label_map()) as reader:
        return [reader.read(TilePlace(index, scene.window)) for index, scene in enumerate(scenes)]


def _crop(whole: Tile, side: int, rng: np.random.Generator) -> tuple[NDArray[np.generic], NDArray[np.uint8]]:
    """A random crop, filled up where the scene is smaller, flipped and turned."""
    height, width = whole.label.shape
    row, col = (int(rng.integers(max(1, extent - side + 1))) for extent in (height, width))
    values, label = whole.values[:, row : row + side, col : col + side], whole.label[row : row + side, col : col + side]
    missing = side - label.shape[0], side - label.shape[1]
    values = np.pad(values, ((0, 0), (0, missing[0]), (0, missing[1])))
    label = np.pad(label, ((0, missing[0]), (0, missing[1])), constant_values=IGNORE_INDEX)
    turns, flip = int(rng.integers(4)), rng.integers(2)
    values, label = np.rot90(values, turns, (1, 2)), np.rot90(label, turns)
    return (values[..., ::-1], label[:, ::-1]) if flip else (values, label)
