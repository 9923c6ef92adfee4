"""Tasks from a table or from arithmetic: what to test and compare controllers on."""

from rlnas.tabular.additive_task import AdditiveTask, additive_task
from rlnas.tabular.bench import BenchEvaluator, BenchLatency, TabularBench
from rlnas.tabular.evaluator import TabularEvaluator
from rlnas.tabular.store import load_bench, save_bench
from rlnas.tabular.synthetic import SyntheticBench, SyntheticEvaluator, load_synthetic, save_synthetic

__all__ = [
    "AdditiveTask",
    "BenchEvaluator",
    "BenchLatency",
    "SyntheticBench",
    "SyntheticEvaluator",
    "TabularBench",
    "TabularEvaluator",
    "additive_task",
    "load_bench",
    "load_synthetic",
    "save_bench",
    "save_synthetic",
]
