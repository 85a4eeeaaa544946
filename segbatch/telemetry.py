"""Figures of a run for Prometheus: Ray's nodes export what their drivers tell."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from segbatch.inference.ledger import LedgerRow


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure.

    Args:
        kind: As Prometheus has them.
        name: Without what Ray puts before it and Prometheus behind it.
        about: What it tells.
        tags: Beside the run's name, which all have.
    """

    kind: Literal["counter", "gauge", "histogram"]
    name: str
    about: str
    tags: tuple[str, ...] = ()

    @property
    def exported(self) -> tuple[str, ...]:
        """Names of its series at the nodes."""
        name = f"ray_{self.name}"
        return {
            "counter": (f"{name}_total",),
            "gauge": (name,),
            "histogram": (f"{name}_bucket", f"{name}_sum", f"{name}_count"),
        }[self.kind]


METRICS = (
    Metric("counter", "segbatch_blocks", "Blocks with a ledger row, by outcome: done or failed.", ("outcome",)),
    Metric("counter", "segbatch_pixels", "Pixels of blocks that are done."),
    Metric("counter", "segbatch_windows", "Windows run through the model."),
    Metric(
        "counter",
        "segbatch_stage_seconds",
        "Seconds by stage: read, wait (of a block for the model), idle (of the model, for want of a block), predict "
        "(of which upload, forward and download), write.",
        ("stage",),
    ),
    Metric("histogram", "segbatch_block_seconds", "Seconds that a block was read, predicted and written."),
    Metric("gauge", "segbatch_blocks_left", "Blocks that the command has still to do."),
    Metric("gauge", "segbatch_training_epoch", "Epochs done."),
    Metric("gauge", "segbatch_training_step", "Steps done, over all epochs."),
    Metric("gauge", "segbatch_training_steps", "Steps to do, over all epochs."),
    Metric("gauge", "segbatch_training_loss", "Loss, of the latest steps."),
    Metric("gauge", "segbatch_training_learning_rate", "Learning rate."),
    Metric("gauge", "segbatch_training_tiles_per_second", "Tiles a second, over all workers."),
    Metric("gauge", "segbatch_training_waiting", "Share of the time in which the model waits for tiles, 0 to 1."),
    Metric("gauge", "segbatch_training_miou", "Validation miou of the latest epoch."),
)

_BOUNDS = [0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0]
"""Seconds between which blocks are counted."""

_OF_A_BLOCK = ("read", "predict", "write")
_OF_STEPS = {
    "global_step": "segbatch_training_step",
    "global_steps": "segbatch_training_steps",
    "loss": "segbatch_training_loss",
    "learning_rate": "segbatch_training_learning_rate",
    "tiles_per_second": "segbatch_training_tiles_per_second",
    "waited": "segbatch_training_waiting",
}


class Meter:
    """Tells the figures of a run. Ray must be running when the first is told.

    What goes wrong in telling them harms nobody, and is told to nobody.

    Args:
        run: Name of the run.
    """

    def __init__(self, run: str) -> None:
        self._run = run
        self._left = 0
        self._known: dict[str, Any] | None = None

    def mapping(self, blocks: int) -> None:
        """A mapping begins.

        Args:
            blocks: To do.
        """
        self._left = blocks
        with suppress(Exception):
            self._metric("segbatch_blocks_left").set(blocks)

    def block(self, row: LedgerRow) -> None:
        """A block has got its row."""
        with suppress(Exception):
            self._left -= 1
            self._metric("segbatch_blocks_left").set(self._left)
            self._add("segbatch_blocks", 1, outcome="done" if row.error is None else "failed")
            self._add("segbatch_pixels", sum(row.class_pixels) + row.nodata_pixels)
            self._add("segbatch_windows", row.windows)
            for stage, seconds in row.seconds.items():
                self._add("segbatch_stage_seconds", seconds, stage=stage)
            self._metric("segbatch_block_seconds").observe(sum(row.seconds.get(stage, 0.0) for stage in _OF_A_BLOCK))

    def training(self, event: Mapping[str, Any]) -> None:
        """A training tells of steps or of an epoch; of what else it tells there are no figures."""
        with suppress(Exception):
            if event["kind"] == "step":
                for field, name in _OF_STEPS.items():
                    self._metric(name).set(event[field])
            elif event["kind"] == "epoch":
                row = event["history"][-1]
                self._metric("segbatch_training_epoch").set(row["epoch"])
                self._metric("segbatch_training_step").set(event["global_step"])
                if row["miou"] is not None:
                    self._metric("segbatch_training_miou").set(row["miou"])

    def _add(self, name: str, amount: float, **tags: str) -> None:
        if amount > 0:  # Ray takes no other
            self._metric(name).inc(amount, tags=tags)

    def _metric(self, name: str) -> Any:
        if self._known is None:
            self._known = _create(self._run)
        return self._known[name]


def _create(run: str) -> dict[str, Any]:
    from ray.util.metrics import Counter, Gauge, Histogram

    found: dict[str, Any] = {}
    for metric in METRICS:
        tags = ("run", *metric.tags)
        if metric.kind == "histogram":
            made: Any = Histogram(metric.name, metric.about, boundaries=_BOUNDS, tag_keys=tags)
        else:
            made = {"counter": Counter, "gauge": Gauge}[metric.kind](metric.name, metric.about, tag_keys=tags)
        found[metric.name] = made.set_default_tags({"run": run})
    return found
