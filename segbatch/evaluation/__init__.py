"""Confusion matrices and the metrics derived from them. Imports numpy only."""

from segbatch.evaluation.confusion import confusion_matrix, count_values
from segbatch.evaluation.metrics import ClassMetrics, Metrics, compute_metrics, one_class_miou

__all__ = ["ClassMetrics", "Metrics", "compute_metrics", "confusion_matrix", "count_values", "one_class_miou"]
