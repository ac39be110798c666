"""The report: one HTML file that opens offline, and its figures and tables as files for papers."""

from __future__ import annotations

from mlpbench.report.load import load_study
from mlpbench.report.render import write_report
from mlpbench.report.study import Study

__all__ = ["Study", "load_study", "write_report"]
