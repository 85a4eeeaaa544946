"""Reports: figures, tables, pictures and one page, all derived from the counts of a run's scenes."""

from segbatch.report.document import metrics_document
from segbatch.report.summary import RunSummary, Sample, SceneResult
from segbatch.report.tables import console_summary
from segbatch.report.write import write_report, write_training_report

__all__ = [
    "RunSummary",
    "Sample",
    "SceneResult",
    "console_summary",
    "metrics_document",
    "write_report",
    "write_training_report",
]
