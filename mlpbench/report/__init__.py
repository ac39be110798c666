"""The report: one HTML file that opens offline, and its figures and tables as files for papers."""

from __future__ import annotations

from mlpbench.report.render import write_report

__all__ = ["write_report"]
