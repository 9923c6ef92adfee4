"""Judging subnets with inherited weights."""

from __future__ import annotations

from rlnas.evaluation.evaluator import SupernetEvaluator

__all__ = ["SupernetEvaluator"]
