"""What the cells of the compression benchmark come to: accuracies, paired differences, wins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rlnas.deploy.certificate import TARGET_TOLERANCE
from rlnas.scores import difference_interval, score, score_interval

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Cell = Mapping[str, Any]

SUBJECT = "rlnas"
FULL = "full"
TRAINED = "trained"
FREE = "training-free"
COUNTED = ("sst2", "cola", "clinc150", "sms_spam", "ag_news_small")
"""Tasks whose cells count; of the others the final splits are too small to tell anything."""

TOLERANCE = 0.005
"""How far the lower end of a win's interval may be below 0."""


def figures_of(cells: Sequence[Cell]) -> dict[str, Any]:
    """All figures.

    Args:
        cells: Each with task, seed, target, method, training, metric, labels, predictions and latency;
            those of the full model have target 1.
    """
    pooled = [_pooled(group) for group in _grouped(cells).values()]
    pairs = [pair for training in (TRAINED, FREE) for pair in _pairs(cells, training)]
    wins = _wins([pair for pair in pairs if pair["training"] == TRAINED and pair["task"] in COUNTED])
    return {
        "cells": pooled,
        "pairs": pairs,
        "n_won": sum(wins.values()),
        "n_counted": len(wins),
        "losses": [
            _loss(cells, group) for group in _grouped(cells).values() if group[0]["method"] == SUBJECT
        ],
    }


def _key(cell: Cell) -> tuple[Any, ...]:
    return cell["task"], cell["target"], cell["method"], cell["training"]


def _grouped(cells: Sequence[Cell]) -> dict[tuple[Any, ...], list[Cell]]:
    """The seeds of each task, target and method together, in their order."""
    groups: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in sorted(cells, key=lambda one: one["seed"]):
        groups.setdefault(_key(cell), []).append(cell)
    return groups


def _answers(group: Sequence[Cell]) -> np.ndarray[Any, Any]:
    return np.array([cell["predictions"] for cell in group])


def _pooled(group: Sequence[Cell]) -> dict[str, Any]:
    """Mean over seeds of one cell of the table."""
    first = group[0]
    labels, metric = first["labels"], first["metric"]
    scores = [score(metric, labels, cell["predictions"]) for cell in group]
    latencies = [cell["latency"] for cell in group]
    return {
        "task": first["task"],
        "target": first["target"],
        "method": first["method"],
        "training": first["training"],
        "epochs": first["epochs"],
        "metric": metric,
        "accuracy": float(np.mean(scores)),
        "ci": list(score_interval(metric, labels, _answers(group))),
        "n_items": len(labels),
        "seeds": [cell["seed"] for cell in group],
        "latency_ratio": float(np.mean([latency["ratio"] for latency in latencies])),
        "latency_ratio_ci": latencies[0]["ratio_ci"],
        "latency_ms": float(np.mean([latency["subnet_ms"] for latency in latencies])),
        "latency_spread_ms": float(np.mean([latency["subnet_spread_ms"] for latency in latencies])),
        "configs": [cell["config"] for cell in group],
        "commits": sorted({str(cell["commit"]) for cell in group}),
    }


def _pairs(cells: Sequence[Cell], training: str) -> list[dict[str, Any]]:
    """The subject beside each rival, by task and target, on the seeds that both have."""
    groups = _grouped([cell for cell in cells if cell["training"] == training])
    pairs = []
    for (task, target, method, _), theirs in groups.items():
        ours = groups.get((task, target, SUBJECT, training), [])
        seeds = {cell["seed"] for cell in ours} & {cell["seed"] for cell in theirs}
        if method in (SUBJECT, FULL) or not seeds:
            continue
        one, other = ([cell for cell in group if cell["seed"] in seeds] for group in (theirs, ours))
        mean, low, high = _difference(one, other)
        theirs_ratio, own_ratio = (
            float(np.mean([cell["latency"]["ratio"] for cell in group])) for group in (one, other)
        )
        in_time = own_ratio <= TARGET_TOLERANCE * max(target, theirs_ratio)
        pairs.append(
            {
                "task": task,
                "target": target,
                "rival": method,
                "training": training,
                "difference_points": 100 * mean,
                "ci": [100 * low, 100 * high],
                "n_seeds": len(seeds),
                "in_time": in_time,
                "win": in_time and low > -TOLERANCE and mean >= 0,
            }
        )
    return pairs


def _difference(first: Sequence[Cell], second: Sequence[Cell]) -> tuple[float, float, float]:
    """Mean over seeds of the second one's score minus the first one's, with its paired interval."""
    labels, metric = first[0]["labels"], first[0]["metric"]
    means = [
        float(np.mean([score(metric, labels, cell["predictions"]) for cell in group]))
        for group in (first, second)
    ]
    low, high = difference_interval(metric, labels, _answers(first), _answers(second))
    return means[1] - means[0], low, high


def _loss(cells: Sequence[Cell], group: Sequence[Cell]) -> dict[str, Any]:
    """What the subject loses to the full model."""
    seeds = {cell["seed"] for cell in group}
    full = [
        cell
        for cell in sorted(cells, key=lambda one: one["seed"])
        if cell["task"] == group[0]["task"] and cell["method"] == FULL and cell["seed"] in seeds
    ]
    mean, low, high = _difference(list(group), full)
    named = {name: group[0][name] for name in ("task", "target", "training")}
    return {**named, "loss_points": 100 * mean, "ci": [100 * low, 100 * high], "n_seeds": len(seeds)}


def _wins(pairs: Sequence[Mapping[str, Any]]) -> dict[tuple[str, float], bool]:
    """By task and target: whether the subject wins over every rival; of cells that have all rivals."""
    rivals = {pair["rival"] for pair in pairs}
    cells: dict[tuple[str, float], dict[str, bool]] = {}
    for pair in pairs:
        cells.setdefault((pair["task"], pair["target"]), {})[pair["rival"]] = bool(pair["win"])
    return {cell: all(wins.values()) for cell, wins in cells.items() if wins.keys() == rivals}


def lines_of(figures: Mapping[str, Any]) -> list[str]:
    """A table for people: one line per cell, and one per comparison."""
    lines = []
    for cell in figures["cells"]:
        low, high = cell["ci"]
        lines.append(
            f"{cell['task']:<14} {cell['target']:<5g} {cell['method']:<14} {cell['training']:<14} "
            f"{cell['metric']} {cell['accuracy']:.3f} [{low:.3f}, {high:.3f}], {cell['n_items']:,} items, "
            f"{len(cell['seeds'])} seeds, latency ratio {cell['latency_ratio']:.3f}"
        )
    for pair in figures["pairs"]:
        low, high = pair["ci"]
        lines.append(
            f"{pair['task']:<14} {pair['target']:<5g} {SUBJECT} minus {pair['rival']:<14} "
            f"{pair['training']:<14} "
            f"{pair['difference_points']:+.2f} points [{low:+.2f}, {high:+.2f}]{' win' * pair['win']}"
        )
    lines.append(f"wins over every rival: {figures['n_won']} of {figures['n_counted']} cells that count")
    return lines
