"""The configuration's section of `segbatch tune`: which settings to try, how many, and when to give one up."""

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from segbatch.config.messages import nearest
from segbatch.config.section import PositiveInt, Section

Choices = Annotated[list[Any], Field(min_length=1)]


class Range(Section):
    """Numbers between two ends. They are rounded to three digits, so that people can write them again."""

    uniform: tuple[float, float] | None = None
    """[low, high], all numbers between them alike."""
    log_uniform: tuple[float, float] | None = None
    """[low, high], all magnitudes between them alike: for learning rates."""

    @model_validator(mode="before")
    @classmethod
    def _known(cls, data: Any) -> Any:
        unknown = [] if not isinstance(data, dict) else [key for key in data if key not in cls.model_fields]
        if unknown:
            raise ValueError(f"there is no range {unknown[0]!r}{nearest(str(unknown[0]), list(cls.model_fields))}")
        return data

    @model_validator(mode="after")
    def _one_range(self) -> Self:
        if (self.uniform is None) == (self.log_uniform is None):
            raise ValueError("give either 'uniform' or 'log_uniform', as {log_uniform: [0.0001, 0.01]}")
        low, high = self.ends
        if low >= high:
            raise ValueError(f"[{low:g}, {high:g}] is no range: the first must be the smaller one")
        if self.log_uniform and low <= 0:
            raise ValueError(f"log_uniform is for positive numbers, not from {low:g} on")
        return self

    @property
    def ends(self) -> tuple[float, float]:
        """Lowest and highest number."""
        ends = self.uniform or self.log_uniform
        assert ends is not None  # the validator holds it
        return ends


def _kind(data: Any) -> str | None:
    if isinstance(data, list):
        return "list"
    return "range" if isinstance(data, dict | Range) else None


Among = Annotated[
    Annotated[Choices, Tag("list")] | Annotated[Range, Tag("range")],
    Discriminator(
        _kind,
        custom_error_type="among",
        custom_error_message="expected a list of values, or a range as {uniform: [0, 1]}",
    ),
]
"""The values of a key."""


class Tune(Section):
    """How `segbatch tune` looks for better settings."""

    space: dict[str, Among] = Field(
        default={
            "training.learning_rate": Range(log_uniform=(3e-4, 1e-2)),
            "training.loss": ["ce", "ce+dice", "ce+lovasz"],
            "training.tile": [256, 384, 512],
        },
        min_length=1,
    )
    """What to try: for each key of model or training, as training.learning_rate, a list of values or a range,
    {uniform: [low, high]} or {log_uniform: [low, high]}. When absent, tiles are those that fit into a scene."""
    trials: PositiveInt = Field(default=16, le=1000)
    """Trainings at the most; fewer where the space has fewer settings. Raise it to go on with a search that is done;
    fewer than it has had already change nothing."""
    seed: int = Field(default=0, ge=0)
    """Seed of the settings that are drawn."""
    concurrent: PositiveInt | Literal["auto"] = "auto"
    """Trials at the same time. auto: as many as have room, with at least 4 CPUs, or a GPU, for each worker."""
    grace_epochs: PositiveInt = 2
    """Epochs that every trial gets before it may be stopped for being worse than others."""
    reduction_factor: int = Field(default=3, ge=2)
    """Of the trials that come as far, one in so many goes on: after the grace epochs, and each time that a trial's
    epochs have grown by this factor (ASHA)."""
    hours: float | None = Field(default=None, gt=0)
    """Time for the search, over all calls of the command; what was found by then counts. No limit when absent."""
