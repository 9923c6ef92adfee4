"""Labelled texts as a `Task`: from the hub, from local files, or from the interpreter's own docstrings."""

from __future__ import annotations

from rlnas.data.load import load_task
from rlnas.data.store import read_task, write_task

__all__ = ["load_task", "read_task", "write_task"]
