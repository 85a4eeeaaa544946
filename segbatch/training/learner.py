"""The state of a training: model, averaged weights, optimizer, schedule. Pure torch, knows nothing of Ray."""

import copy
import math
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel

from segbatch.config import Training
from segbatch.models.backends.hardware import has_bf16
from segbatch.training.feed import Batch
from segbatch.training.losses import build_loss
from segbatch.training.survey import Survey

_WARM_UP = 0.05
_MAX_GRADIENT_NORM = 1.0


class Learner:
    """Takes optimizer steps.

    Random numbers, as of dropout and noise, depend on the seed and on the step or the tile alone, so they are the
    same after any interruption.

    Args:
        model: The network, on its device; wrapped for data parallelism where there are several workers.
        bare: The same network unwrapped.
        settings: The training section of the configuration.
        total_steps: Length of the schedule.
        class_weights: Of the cross-entropy, one a class.
        survey: Statistics of the bands over the training scenes.
        device: Where the model is.
        worker: Index of this worker and their number.

    Attributes:
        step: Steps taken.
        autocast: Context in which the model runs.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        bare: torch.nn.Module,
        settings: Training,
        total_steps: int,
        class_weights: Sequence[float],
        survey: Survey,
        device: torch.device,
        worker: tuple[int, int] = (0, 1),
    ) -> None:
        self.step = 0
        self._model, self._bare = model, bare
        self._settings = settings
        self._total_steps = total_steps
        self._device = device
        self._rank, self._world = worker
        self._mean, self._low, high = (
            torch.tensor(values, dtype=torch.float32, device=device).view(-1, 1, 1)
            for values in (
                survey.mean,
                [band[0] for band in survey.percentiles],
                [band[-1] for band in survey.percentiles],
            )
        )
        self._range = torch.where(high > self._low, high - self._low, 1.0)
        self._scale = 1 / torch.tensor(survey.std, dtype=torch.float32, device=device).view(-1, 1, 1)
        self._loss = build_loss(settings.loss, settings.label_smoothing, torch.tensor(class_weights, device=device))
        self._optimizer = torch.optim.AdamW(_parameter_groups(bare, settings), lr=settings.learning_rate, fused=True)
        self._frozen_steps = total_steps * settings.freeze_encoder // settings.epochs
        self._average = (
            AveragedModel(bare, multi_avg_fn=_moving_average(settings.ema), use_buffers=True) if settings.ema else None
        )
        self.autocast = torch.autocast(
            device.type,
            dtype=torch.bfloat16,
            enabled=settings.precision == "bf16" or (settings.precision == "auto" and has_bf16(device)),
        )

    @property
    def kept(self) -> torch.nn.Module:
        """The network that is validated and kept: with averaged weights unless that is switched off."""
        return self._bare if self._average is None else self._average.module

    @property
    def learning_rate(self) -> float:
        """Of the next step."""
        return self._settings.learning_rate * schedule(self.step, self._total_steps)

    def backward(self, batch: Batch) -> torch.Tensor:
        """Find the gradients of a step.

        Workers' gradients are averaged, so each worker's loss counts by its share of the step's tiles.

        Args:
            batch: This worker's tiles.

        Returns:
            The loss, a detached scalar on the device; its mean over the workers is that of the step.
        """
        self._model.train()
        self._freeze(self.step < self._frozen_steps)
        torch.manual_seed(_seed(self._settings.seed, self.step, self._rank))
        for group in self._optimizer.param_groups:
            group["lr"] = self.learning_rate * group["share"]
        pixels = self.pixels(batch).contiguous(memory_format=torch.channels_last)
        label = batch.label.to(self._device)
        count = self._parts
        # The first may be empty where shares differ; with the last, workers add up their gradients.
        parts = list(zip(pixels.tensor_split(count), label.tensor_split(count), strict=True))[::-1]
        loss = torch.zeros((), device=self._device)
        self._optimizer.zero_grad(set_to_none=True)
        for number, (part, part_label) in enumerate(parts, start=1):
            if not len(part):
                continue
            with nullcontext() if number == count or self._world == 1 else self._model.no_sync():  # type: ignore[operator]
                share = self._loss_of(self._model, part, part_label)
                share = share * (len(part) * self._world / self._settings.batch_size)
                loss += share.detach()
                share.backward()
        return loss

    def apply(self) -> None:
        """Take the step that `backward` found."""
        torch.nn.utils.clip_grad_norm_(self._bare.parameters(), _MAX_GRADIENT_NORM)
        self._optimizer.step()
        self.step += 1
        if self._average is not None:
            self._average.update_parameters(self._bare)

    @torch.no_grad()
    def culprits(self, batch: Batch) -> list[int]:
        """Indices of the tiles whose own loss is no number. Leaves the running statistics of the model spoiled."""
        pixels, label = self.pixels(batch), batch.label.to(self._device)
        return [
            index
            for index in range(len(batch))
            if not self._loss_of(self._bare, pixels[index : index + 1], label[index : index + 1]).isfinite()
        ]

    def pixels(self, batch: Batch) -> torch.Tensor:
        """What the model sees of a batch: (batch, bands, side, side) float32, 0 where there is no real pixel."""
        values = batch.values.to(self._device).float()
        if (batch.gamma != 1).any():
            share = (values - self._low) / self._range
            # Beyond the darkest pixels it goes on as a mirror image: a root has no negative numbers.
            values = self._low + self._range * share.sign() * share.abs() ** batch.gamma.to(self._device)
        pixels = (values - self._mean) * self._scale
        pixels = pixels * batch.gain.to(self._device) + batch.offset.to(self._device)
        for tile, deviation, number in zip(pixels, batch.noise, batch.numbers, strict=True):
            if deviation:
                generator = torch.Generator(self._device).manual_seed(_seed(self._settings.seed, number))
                tile += deviation * torch.randn(tile.shape, generator=generator, device=self._device)
        return torch.where(batch.valid.to(self._device), pixels, 0.0)

    def save(self, path: Path) -> None:
        """Write all that is needed to go on."""
        state = {
            "step": self.step,
            "model": self._bare.state_dict(),
            "average": None if self._average is None else self._average.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }
        torch.save(state, path)

    def load(self, path: Path) -> None:
        """Go on from what `save` wrote."""
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        self.step = state["step"]
        self._bare.load_state_dict(state["model"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        self._optimizer.load_state_dict(state["optimizer"])

    def snapshot(self) -> torch.nn.Module:
        """A copy on the CPU of the network that is kept."""
        return copy.deepcopy(self.kept).cpu().eval()

    def _loss_of(self, model: torch.nn.Module, pixels: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        with self.autocast:
            logits = model(pixels)
        return self._loss(logits.float(), label)

    @property
    def _parts(self) -> int:
        """Parts of a step's tiles, as large with fewer workers as with all, and as many for each worker."""
        settings = self._settings
        tiles = math.ceil(math.ceil(settings.batch_size / settings.workers) / settings.accumulate)
        return math.ceil(math.ceil(settings.batch_size / self._world) / tiles)

    def _freeze(self, frozen: bool) -> None:
        """Keep the encoder as it is, statistics of its normalisation layers included."""
        encoder = getattr(self._bare, "encoder", None)
        if encoder is not None and (frozen or not next(encoder.parameters()).requires_grad):
            encoder.requires_grad_(not frozen)
            encoder.train(not frozen)


def schedule(step: int, total: int) -> float:
    """Factor of the peak learning rate: a linear warm-up, then half a cosine down to a hundredth."""
    warm_up = max(1, round(total * _WARM_UP))
    if step < warm_up:
        return (step + 1) / warm_up
    progress = min(1.0, (step - warm_up) / max(1, total - warm_up))
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))


def _parameter_groups(model: torch.nn.Module, settings: Training) -> list[dict[str, Any]]:
    """Weights decay; biases and normalisation layers do not. The encoder has a learning rate of its own."""
    encoder = {id(parameter) for name, parameter in model.named_parameters() if name.startswith("encoder.")}
    groups: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {}
    for parameter in model.parameters():
        groups.setdefault((id(parameter) in encoder, parameter.ndim > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "weight_decay": settings.weight_decay if decays else 0.0,
            "share": settings.encoder_lr if in_encoder else 1.0,
        }
        for (in_encoder, decays), parameters in groups.items()
    ]


def _moving_average(decay: float) -> Any:
    """An exponential moving average that forgets the random start: its decay grows to ``decay``."""

    @torch.no_grad()
    def update(averaged: list[torch.Tensor], current: list[torch.Tensor], count: torch.Tensor) -> None:
        weight = 1 - min(decay, (1 + int(count)) / (10 + int(count)))
        if averaged[0].is_floating_point():
            torch._foreach_lerp_(averaged, current, weight)
        else:
            for old, new in zip(averaged, current, strict=True):
                old.copy_(new)

    return update


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
