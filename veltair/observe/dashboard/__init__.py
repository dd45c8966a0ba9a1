"""One self-contained HTML page out of decision logs: what the scheduler did, and what each tenant got of it."""

from veltair.observe.dashboard.page import render_page, write_page

__all__ = ["render_page", "write_page"]
