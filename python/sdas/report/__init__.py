"""One self-contained page about a run, and its numbers as JSON."""

from sdas.report.contents import RunContents, read_run
from sdas.report.numbers import UNITS, report_numbers
from sdas.report.page import write_report

__all__ = ["UNITS", "RunContents", "read_run", "report_numbers", "write_report"]
