"""Reports: figures, tables, pictures and one page, all derived from the counts of a run's scenes."""

from segbatch.report.document import metrics_document
from segbatch.report.summary import RunSummary, SceneResult
from segbatch.report.tables import console_summary
from segbatch.report.write import write_report

__all__ = ["RunSummary", "SceneResult", "console_summary", "metrics_document", "write_report"]
