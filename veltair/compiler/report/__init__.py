"""`report.html`: what a compile measured, chose and dropped, as one page that opens offline and needs no script."""

from veltair.compiler.report.page import render_report

__all__ = ["render_report"]
