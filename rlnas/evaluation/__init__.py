"""Judging subnets with inherited weights."""

from __future__ import annotations

from rlnas.evaluation.cost import EvaluationCost
from rlnas.evaluation.evaluator import SupernetEvaluator
from rlnas.evaluation.folded import FoldedEvaluator
from rlnas.evaluation.precisions import Judge, PrecisionEvaluator
from rlnas.evaluation.racing import Champions, Race, Racing

__all__ = [
    "Champions",
    "EvaluationCost",
    "FoldedEvaluator",
    "Judge",
    "PrecisionEvaluator",
    "Race",
    "Racing",
    "SupernetEvaluator",
]
