"""What a finished search found, for people: a table for the terminal and a page for the browser."""

from __future__ import annotations

from rlnas.report.html import write_report
from rlnas.report.summary import models_of, read_summary
from rlnas.report.table import format_config, format_table

__all__ = ["format_config", "format_table", "models_of", "read_summary", "write_report"]
