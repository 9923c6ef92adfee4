"""What the tests of all modes share."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parent))


@pytest.fixture
def quick_compiler(monkeypatch):
    """torch.compile as far as capturing and guarding go, without minutes of C++."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
