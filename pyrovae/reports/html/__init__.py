"""Pages: the report of records and runs, and the reference of all public names, each one file of HTML by itself."""

from pyrovae.reports.html.findings import FINDINGS, Finding
from pyrovae.reports.html.page import report
from pyrovae.reports.html.sections import SECTIONS

__all__ = ["FINDINGS", "SECTIONS", "Finding", "report"]
