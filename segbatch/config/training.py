"""The sections model and training: which network, and how it is fitted."""

import os
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from segbatch.config.section import PositiveInt, Section
from segbatch.storage import place

ClassWeights = Literal["none", "inverse", "median"]
LOSSES = ("ce", "dice", "focal", "lovasz", "tversky")


class Model(Section):
    """The network, built by segmentation-models-pytorch."""

    architecture: str = "unet"
    """Decoder: unet, unetplusplus, fpn, deeplabv3plus, segformer, ..."""
    encoder: str = "resnet34"
    """Encoder by segmentation-models-pytorch's name, or 'tu-' and a timm name."""
    weights: str | None = None
    """Pre-trained weights of the encoder: a name (imagenet; downloaded), a file (.safetensors, or .pth with a state
    dict), or none."""
    init: str | None = None
    """Bundle whose weights to start from, of the same architecture and encoder; its classes may be others."""
    options: dict[str, Any] = Field(default={})
    """More arguments of the architecture, such as decoder_channels."""

    @field_validator("weights", "init")
    @classmethod
    def _at_home(cls, path: str | None) -> str | None:
        return os.path.expanduser(path) if path is not None else None

    @field_validator("init")
    @classmethod
    def _in_a_place(cls, path: str | None) -> str | None:
        return None if path is None else str(place(path))

    @model_validator(mode="after")
    def _one_start(self) -> "Model":
        if self.weights is not None and self.init is not None:
            raise ValueError("weights and init cannot both be given: init brings the encoder's weights too")
        return self


class Training(Section):
    """How the model is fitted."""

    epochs: PositiveInt = 30
    """Number of epochs; the scenes are validated after each."""
    steps_per_epoch: PositiveInt | None = None
    """Optimizer steps an epoch; as many as cover the training area once when absent."""
    tile: int = Field(default=512, ge=32)
    """Side of a training tile in pixels; a multiple of 32."""
    batch_size: PositiveInt = 8
    """Tiles a step, over all workers."""
    balance: float = Field(default=0.5, ge=0, le=1)
    """Share of tiles that are drawn around a class (rare ones more often than their area would), in place
    of anywhere in the training area."""
    loss: str = "ce+dice"
    """ce, dice, focal, lovasz, tversky, or a sum of them."""
    class_weights: ClassWeights = "none"
    """Of the cross-entropy: none; inverse: all classes have the same say; median: by median frequency balancing."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Label smoothing of the cross-entropy."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Peak learning rate of AdamW; warm-up and cosine around it."""
    weight_decay: float = Field(default=1e-2, ge=0)
    """Weight decay of AdamW."""
    accumulate: PositiveInt = 1
    """Parts in which the tiles of a step go through the model, where memory does not hold all of them at once."""
    freeze_encoder: int = Field(default=0, ge=0)
    """Epochs at the start in which the encoder stays as it is: for pre-trained ones."""
    encoder_lr: float = Field(default=1.0, gt=0, le=1)
    """Learning rate of the encoder as a share of the rest's: for pre-trained ones."""
    patience: PositiveInt | None = None
    """Training ends after so many epochs without a better one; never before its time when absent."""
    sync_batch_norm: bool = False
    """Whether batch normalisation counts over all workers: for few tiles a worker. GPUs only."""
    augment: Literal["none", "flips", "full"] = "full"
    """none; flips and quarter turns; or those with scale, brightness, contrast and gamma by band."""
    scale: float = Field(default=1.33, ge=1, le=4)
    """Of the full augmentation: tiles are cut up to this factor smaller or larger and resized. Raise it where
    the scenes to map have other pixel sizes than those to learn from."""
    noise: float = Field(default=0.0, ge=0, le=1)
    """Largest standard deviation of noise that is added to tiles, in standard deviations of a band."""
    cutout: float = Field(default=0.0, ge=0, le=1)
    """Share of tiles in which a square of an eighth to a half of the side is hidden; its label counts still."""
    ema: float = Field(default=0.99, ge=0, lt=1)
    """Decay of the moving average of the weights that is validated and kept; 0 switches it off."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """auto: bf16 where the processor or GPU has it in hardware."""
    workers: PositiveInt = 1
    """Ray Train workers."""
    min_workers: PositiveInt | None = None
    """Training goes on with as few workers while nodes are away, and with all when they are back; it waits for all of
    them when absent."""
    checkpoint_steps: PositiveInt | None = None
    """The state is saved after every epoch and after so many steps; about every five minutes when absent."""
    use_gpu: Literal["auto"] | bool = "auto"
    """A GPU for each worker; auto: where the cluster has enough."""
    max_failures: int = Field(default=3, ge=0)
    """How often training starts again from its last checkpoint when a worker or node is lost."""
    seed: int = Field(default=0, ge=0)
    """Seed of tiles, augmentation and initial weights."""
    mlflow: bool | Literal["bundle"] = False
    """Log the training to the MLflow server of the environment variable MLFLOW_TRACKING_URI; bundle: the trained
    model too."""

    @field_validator("tile")
    @classmethod
    def _tile_multiple(cls, tile: int) -> int:
        if tile % 32:
            raise ValueError(f"must be a multiple of 32; the nearest are {tile // 32 * 32} and {-(-tile // 32) * 32}")
        return tile

    @model_validator(mode="after")
    def _shares_of_a_batch(self) -> Self:
        if self.min_workers is not None and self.min_workers > self.workers:
            raise ValueError(f"min_workers {self.min_workers} is more than the {self.workers} workers")
        share = self.batch_size // self.workers
        if share < self.accumulate:
            raise ValueError(
                f"a batch_size of {self.batch_size} gives each of {self.workers} workers {share} tiles a step, too few "
                f"for {self.accumulate} part{'s' if self.accumulate > 1 else ''} (accumulate)"
            )
        return self

    @field_validator("loss")
    @classmethod
    def _known_loss(cls, loss: str) -> str:
        for term in loss.split("+"):
            if term.strip() not in LOSSES:
                raise ValueError(
                    f"unknown loss {term.strip()!r}; there are {', '.join(LOSSES)} and their sums, as ce+dice"
                )
        return loss
