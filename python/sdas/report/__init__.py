"""One self-contained page about a run, and its numbers as JSON."""

from sdas.report.numbers import UNITS, report_numbers
from sdas.report.page import write_report
from sdas.report.sections import RunContents, read_run

__all__ = ["UNITS", "RunContents", "read_run", "report_numbers", "write_report"]
