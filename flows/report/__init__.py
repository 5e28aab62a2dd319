"""report.html: one offline file."""

from flows.report.write import ReportData, render_report

__all__ = ["ReportData", "render_report"]
