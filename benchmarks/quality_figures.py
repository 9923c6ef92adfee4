"""What the cells of `search_quality` come to: estimates with intervals, comparisons, and plots."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.estimates import (
    interquartile_estimate,
    interquartile_mean,
    paired_difference,
    probability_of_improvement,
)
from benchmarks.search_methods import ABLATIONS, CONTROLS, SUBJECT
from rlnas.report.style import STYLE
from rlnas.report.svg import Frame, axes, picture, polyline, stand_alone, text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    Cell = dict[str, Any]
    Scores = dict[str, dict[str, dict[int, list[float]]]]

OVERALL = "overall"
SYNTHETIC = "synthetic"
"""How names of tasks begin that are formulas."""

STATED = (50, 100, 250, 500)
"""Budgets that are compared; what lies between is for the plots."""

ROUNDING = 1e-9
"""What a latency may be above its target, relative to that."""

LINES = """\
.line { fill: none; stroke: var(--dot); stroke-opacity: 0.6; stroke-width: 1.2; }
.line.s0 { stroke: var(--chosen); stroke-opacity: 1; stroke-width: 2.6; }
.line.s1 { stroke: var(--full); stroke-opacity: 1; stroke-width: 2.2; }
.line.s2 { stroke: var(--front); stroke-opacity: 1; stroke-width: 2; }
.line.s3 { stroke: var(--fg); stroke-opacity: 0.8; stroke-width: 1.6; stroke-dasharray: 6 4; }
"""


def figures_of(cells: Sequence[Cell], looks: Sequence[int]) -> dict[str, Any]:
    """Everything that is said of some cells.

    Args:
        cells: Of the same tasks, seeds and parts for every method.
        looks: Numbers of trials to say it for.

    Returns:
        Plain values. ``regret[method][budget]``, ``hypervolume[method][budget]`` (relative to the best
        front) and ``seven_targets[method]`` are interquartile means over all tasks and seeds; what ends
        in ``_detail`` holds ``[mean, low, high, plain mean]`` by task too. Differences are of `SUBJECT`
        minus the rival: below 0 it is better. Choices are by what a surrogate expects of each method's
        trials; ``observed`` is ``single`` with choices by what was seen; ``seen`` and ``one_seen`` are
        the best that was seen in ``single`` and ``one``, counted on the very items that methods see, of
        tasks that are known throughout. ``commits`` are those of the cells.
    """
    optima = _optima(cells)
    by_part = defaultdict(list)
    for cell in cells:
        by_part[cell["part"]].append(cell)
    regrets = {
        part: _scores(found, looks, lambda cell, n: _mean_regret(cell, n, optima))
        for part, found in by_part.items()
    }
    regrets["observed"] = _scores(
        by_part["single"], looks, lambda cell, n: _mean_regret(cell, n, optima, "observed")
    )
    for name, part in (("seen", "single"), ("one_seen", "one")):
        known = [cell for cell in by_part[part] if _is_known(cell)]
        regrets[name] = _scores(known, looks, _mean_seen_regret)
    areas = _scores(by_part["single"], looks, lambda cell, n: cell["area"][str(n)] / cell["best_area"])
    stated = [n for n in STATED if n in looks]
    figures: dict[str, Any] = {
        "regret": _means(regrets.get("single", {}), stated),
        "hypervolume": _means(areas, stated),
        "seven_targets": _at_last(regrets.get("one", {}), looks),
        "seven_targets_each": _at_last(regrets.get("each", {}), looks),
        "regret_of_exhaustive_search": _exhaustive(by_part, optima),
        "controller_ms": _controller_ms(cells),
        "proposed": _proposed(by_part["one"], optima),
        "hypervolume_detail": _detail(areas, looks),
        "commits": sorted({str(cell.get("commit")) for cell in cells}),
    }
    for part, scores in regrets.items():
        figures[f"{part}_detail"] = _detail(scores, looks)
        figures[f"{part}_against"] = _against_all(scores, stated)
        figures[f"{part}_against_best_control"] = _against_best_control(scores, stated)
    return figures


def _optima(cells: Sequence[Cell]) -> dict[tuple[str, str, str], float]:
    """By task, truth and target the best accuracy within it that is known, or that any method found."""
    optima: dict[tuple[str, str, str], float] = defaultdict(lambda: -np.inf)
    for cell in cells:
        for target, found in cell["targets"].items():
            key = cell["task"], cell["truth"], target
            proposed = (variant[target] for variant in cell.get("proposed", {}).values())
            kept = (p["accuracy"] for p in proposed if p["latency_ratio"] <= 1 + ROUNDING)
            optima[key] = max(optima[key], found["optimum"], *found["best_seen"].values(), *kept)
    return optima


def _mean_regret(
    cell: Cell, n: int, optima: Mapping[tuple[str, str, str], float], view: str = "smoothed"
) -> float:
    """Over the targets of a cell, after n trials, by what is expected of trials or was seen of them."""
    regrets = [
        optima[cell["task"], cell["truth"], target] - found[view][str(n)]
        for target, found in cell["targets"].items()
    ]
    return float(np.mean(regrets))


def _is_known(cell: Cell) -> bool:
    return all(found["seen_optimum"] is not None for found in cell["targets"].values())


def _mean_seen_regret(cell: Cell, n: int) -> float:
    """Over the targets of a cell, after n trials, on the items that the method saw."""
    regrets = [found["seen_optimum"] - found["seen"][str(n)] for found in cell["targets"].values()]
    return float(np.mean(regrets))


def _exhaustive(
    by_part: Mapping[str, Sequence[Cell]], optima: Mapping[tuple[str, str, str], float]
) -> dict[str, dict[str, float]]:
    """By part and task: regret of who chooses among all subnets by what methods see.

    Tasks that are too large to go through have none.
    """
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for part, cells in by_part.items():
        for task in dict.fromkeys(cell["task"] for cell in cells):
            by_truth = {
                cell["truth"]: [
                    optima[task, cell["truth"], name] - target["exhaustive"]
                    for name, target in cell["targets"].items()
                    if target["exhaustive"] is not None
                ]
                for cell in cells
                if cell["task"] == task
            }
            if all(by_truth.values()):
                found[part][task] = interquartile_mean(
                    [[np.mean(regrets) for regrets in by_truth.values()]]
                )
    return found


def _scores(cells: Sequence[Cell], looks: Sequence[int], score: Callable[[Cell, int], float]) -> Scores:
    """By method, task and number of trials: one score a seed, in the order of seeds."""
    scores: Scores = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for cell in sorted(cells, key=lambda cell: cell["seed"]):
        for n in looks:
            scores[cell["method"]][cell["task"]][n].append(score(cell, n))
    return scores


def _arrays(scores: Scores, method: str, n: int, scope: str) -> list[list[float]]:
    """One list of scores a task; beside real tasks a synthetic one counts for itself alone."""
    tasks = [task for task in scores[method] if scope in (OVERALL, task)]
    real = [task for task in tasks if not task.startswith(SYNTHETIC)]
    return [scores[method][task][n] for task in real or tasks]


def _scopes(scores: Scores) -> list[str]:
    """All real tasks together, then each task; none without scores."""
    return [OVERALL, *next(iter(scores.values()))] if scores else []


def _means(scores: Scores, looks: Sequence[int]) -> dict[str, dict[int, float]]:
    return {
        method: {n: interquartile_mean(_arrays(scores, method, n, OVERALL)) for n in looks}
        for method in scores
    }


def _at_last(scores: Scores, looks: Sequence[int]) -> dict[str, float]:
    return {method: by_n[looks[-1]] for method, by_n in _means(scores, looks[-1:]).items()}


def _detail(scores: Scores, looks: Sequence[int]) -> dict[str, dict[str, dict[int, list[float]]]]:
    """By scope, method and number of trials: interquartile mean, its interval, and the plain mean."""

    def described(arrays: list[list[float]]) -> list[float]:
        return [*interquartile_estimate(arrays).to_list(), float(np.mean(np.concatenate(arrays)))]

    return {
        scope: {
            method: {n: described(_arrays(scores, method, n, scope)) for n in looks} for method in scores
        }
        for scope in _scopes(scores)
    }


def _compared(scores: Scores, rival: str, n: int, scope: str) -> dict[str, list[float]]:
    first, second = (_arrays(scores, method, n, scope) for method in (SUBJECT, rival))
    return {
        "difference": paired_difference(first, second).to_list(),
        "improvement": probability_of_improvement(first, second).to_list(),
    }


def _against_all(scores: Scores, looks: Sequence[int]) -> dict[str, Any]:
    """By rival, scope and budget: how the subject compares with it."""
    if SUBJECT not in scores:
        return {}
    return {
        rival: {scope: {n: _compared(scores, rival, n, scope) for n in looks} for scope in _scopes(scores)}
        for rival in scores
        if rival != SUBJECT
    }


def _against_best_control(scores: Scores, looks: Sequence[int]) -> dict[str, Any]:
    """By scope and budget: the control that is best there, on these very seeds, and how it compares."""
    rivals = [method for method in scores if method in CONTROLS]
    if SUBJECT not in scores or not rivals:
        return {}
    found: dict[str, Any] = {}
    for scope in _scopes(scores):
        found[scope] = {}
        for n in looks:
            costs = {r: interquartile_mean(_arrays(scores, r, n, scope)) for r in rivals}
            best = min(rivals, key=costs.__getitem__)
            compared = _compared(scores, best, n, scope)
            found[scope][n] = {"control": best, **compared, "added": verdict(compared["difference"])}
    return found


def verdict(difference: Sequence[float]) -> str:
    """What a paired difference in regret, with its interval, says that the subject added."""
    _, low, high = difference
    if low <= 0.0 <= high:
        return "nothing"
    return "lower regret" if high < 0.0 else "higher regret"


def _controller_ms(cells: Sequence[Cell]) -> dict[str, float]:
    """Median over cells of the controller's processor time for each true evaluation."""
    spent = defaultdict(list)
    for cell in cells:
        spent[cell["method"]].append(1e3 * cell["controller_seconds"] / max(1, cell["n_trials"]))
    return {method: float(np.median(values)) for method, values in spent.items()}


def _proposed(
    cells: Sequence[Cell], optima: Mapping[tuple[str, str, str], float]
) -> dict[str, dict[str, dict[str, float]]]:
    """By method and variant: mean regret over targets, and how its proposals keep to their targets."""
    found: dict[str, dict[str, list[list[float]]]] = defaultdict(lambda: defaultdict(list))
    for cell in cells:
        for variant, by_target in cell["proposed"].items():
            for target, proposal in by_target.items():
                best = optima[cell["task"], cell["truth"], target]
                row = [best - proposal["accuracy"], proposal["latency_ratio"], proposal["seconds"]]
                found[cell["method"]][variant].append(row)
    return {
        method: {variant: _proposals(np.array(rows)) for variant, rows in variants.items()}
        for method, variants in found.items()
    }


def _proposals(rows: np.ndarray) -> dict[str, float]:
    regrets, ratios, seconds = rows.T
    return {
        "mean_regret": float(regrets.mean()),
        "iqm_regret": interquartile_mean([regrets]),
        "share_too_slow": float((ratios > 1 + ROUNDING).mean()),
        "mean_latency_miss": float(np.abs(ratios - 1).mean()),
        "largest_latency_miss": float(np.abs(ratios - 1).max()),
        "largest_seconds": float(seconds.max()),
    }


def write_plots(figures: Mapping[str, Any], folder: Path) -> None:
    """One picture for each task and all together, of regret and of hypervolume over trials."""
    labels = {
        "single": "regret",
        "one": "mean regret over seven targets, one search",
        "hypervolume": "hypervolume, relative to the best front",
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, label in labels.items():
        for scope, curves in figures.get(f"{name}_detail", {}).items():
            svg = curve_plot(curves, label, scope)
            (folder / f"search-quality-{name}-{scope}.svg").write_text(svg, encoding="utf-8")


def curve_plot(curves: Mapping[str, Mapping[int, Sequence[float]]], label: str, scope: str) -> str:
    """A line for each method, named at its end; those that the comparison is about stand out.

    Args:
        curves: By method and number of trials, estimates of which the first number is drawn.
        label: Of the vertical axis.
        scope: The task.

    Returns:
        The content of an ``.svg`` file.
    """
    frame = Frame(right=700)
    points = {method: [(n, values[0]) for n, values in by_n.items()] for method, by_n in curves.items()}
    x = frame.x_scale([n for line in points.values() for n, _ in line])
    y = frame.y_scale([value for line in points.values() for _, value in line])
    content = [axes(frame, x, y, "true evaluations", label)]
    for method, line in points.items():
        content.append(polyline([(x(n), y(value)) for n, value in line], f"line {_emphasis(method)}"))
    ends = sorted((y(line[-1][1]), method) for method, line in points.items())
    at = -np.inf
    for end, method in ends:
        at = max(end, at + 13)  # names do not cover each other
        content.append(text(frame.right + 8, at + 4, method, "tick"))
    height = max(frame.height, int(at) + 20)
    title = f"{label} of {len(points)} methods on {scope}"
    return stand_alone(picture(frame.width, height, title, "".join(content)), STYLE + LINES)


def _emphasis(method: str) -> str:
    if method == SUBJECT:
        return "s0"
    if method in ABLATIONS:
        return "s1"
    return {"random": "s3", "start": "s3"}.get(method, "s2" if method.endswith("+start") else "")
