"""report.html: one offline file."""

from flows.report.data import ReportData
from flows.report.write import render_report

__all__ = ["ReportData", "render_report"]
