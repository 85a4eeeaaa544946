"""What a report says of a training in words and figures."""

from collections.abc import Mapping, Sequence
from typing import Any

from segbatch.report.charts import number, of_class

Row = Mapping[str, Any]


def kept_epoch(rows: Sequence[Row]) -> Row | None:
    """The epoch whose model is kept: the first of those with the highest miou."""
    return max(rows, key=lambda row: row.get("miou") or 0, default=None)


def training_facts(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """(label, value) of which epoch was kept, how fast the training was, and how long it took.

    Args:
        rows: Of the epochs, at least one.
    """
    kept = kept_epoch(rows)
    assert kept is not None
    miou = kept.get("miou")
    facts = [
        ("Kept epoch", f"{kept['epoch']} of {rows[-1]['epoch']}"),
        ("Its mean IoU on validation scenes", "\u2013" if miou is None else f"{miou:.3f}"),
    ]
    training, validation = (_total(rows, field) for field in ("train_seconds", "validate_seconds"))
    if training:
        tiles = sum(row.get("tiles_per_second", 0.0) * row.get("train_seconds", 0.0) for row in rows)
        waited = sum(row.get("waited", 0.0) * row.get("train_seconds", 0.0) for row in rows)
        facts += [
            ("Throughput", f"{tiles / training:.1f} tiles a second"),
            ("Waiting for tiles", f"{waited / training:.1%} of the time"),
            ("Time in steps and in validation", f"{_minutes(training)} and {_minutes(validation)}"),
        ]
    return facts


def epoch_table(rows: Sequence[Row], num_classes: int) -> list[dict[str, Any]]:
    """The rows with every field that the page shows; figures that are missing or not finite are None."""
    fields = ("loss", "miou", "pixel_accuracy", "learning_rate", "tiles_per_second", "waited")
    return [
        {
            "epoch": row["epoch"],
            **{field: number(row.get(field)) for field in fields},
            "iou": [of_class(row, index) for index in range(num_classes)],
        }
        for row in rows
    ]


def _total(rows: Sequence[Row], field: str) -> float:
    return float(sum(row.get(field, 0.0) for row in rows))


def _minutes(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
