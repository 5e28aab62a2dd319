"""report.html: one offline file."""

from edgestill.flows.report.data import ReportData
from edgestill.flows.report.write import render_report

__all__ = ["ReportData", "render_report"]
