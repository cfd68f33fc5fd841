"""A report as one page."""

from tidegate.sim.report import Report


def page(report: Report) -> str:
    """The page as HTML."""
    return f"<!doctype html><title>{report.scenario}</title>"
