"""The plots show every trial where it belongs, and leave out what has no place."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pytest

from rlnas.report.plots import (
    LOG_FROM,
    MAX_TITLES,
    kept_layers,
    learning_curve,
    pareto_plot,
    predicted_against_measured,
)
from rlnas.space import LayerConfig, SubnetConfig

if TYPE_CHECKING:
    from rlnas.trial import Trial


def classes(svg: str) -> list[str]:
    return [node.get("class", "") for node in ElementTree.fromstring(svg).iter()]


def by_class(svg: str, css: str) -> list[ElementTree.Element]:
    return [node for node in ElementTree.fromstring(svg).iter() if node.get("class") == css]


def test_every_trial_is_a_dot_or_on_the_front(summary: dict[str, Any], trials: tuple[Trial, ...]):
    svg = pareto_plot(summary, trials)
    assert svg is not None
    names = classes(svg)
    assert names.count("dot") + names.count("fdot") == len(trials)
    assert names.count("fdot") == len(summary["pareto"])
    for name in ("ring", "tie", "target", "mark full", "mark chosen", "ci full", "ci chosen"):
        assert names.count(name) == 1, name


def test_marks_stand_where_their_figures_are(summary: dict[str, Any], trials: tuple[Trial, ...]):
    svg = pareto_plot(summary, trials) or ""
    front = by_class(svg, "fdot")
    assert [float(n.get("cx", "")) for n in front] == sorted(float(n.get("cx", "")) for n in front)
    # Higher accuracy is higher up, where pixels are fewer.
    heights = [float(n.get("cy", "")) for n in front]
    assert heights == sorted(heights, reverse=True)
    best = trials[summary["best"]["trial"]]
    title = by_class(svg, "ring")[0].find("title")
    assert title is not None
    assert title.text == (
        f"trial {best.number}: {best.metrics.accuracy:.3f}, {best.metrics.latency_ms:.2f} ms, {best.config}"
    )


def test_many_trials_are_one_path_but_the_front_keeps_its_titles(
    summary: dict[str, Any], trials: tuple[Trial, ...]
):
    many = (*trials, *(replace(trials[-1], number=300 + i) for i in range(MAX_TITLES)))
    svg = pareto_plot(summary, many) or ""
    assert classes(svg).count("dot") == 0
    assert classes(svg).count("dots") == 1
    assert all(node.find("title") is not None for node in by_class(svg, "fdot"))


def test_a_run_without_a_target_has_no_target_line(summary: dict[str, Any], trials: tuple[Trial, ...]):
    summary |= {"target_ms": None, "target_ratio": None}
    assert "target" not in (pareto_plot(summary, trials) or "")


def test_a_target_ratio_is_drawn_at_its_share_of_the_full_latency(
    summary: dict[str, Any], trials: tuple[Trial, ...]
):
    summary["target_ms"] = None
    assert "target 7.01 ms" in (pareto_plot(summary, trials) or "")


@pytest.mark.parametrize("target_ms", [0.01, 900.0])
def test_the_target_label_stays_in_the_picture(
    summary: dict[str, Any], trials: tuple[Trial, ...], target_ms: float
):
    summary["target_ms"] = target_ms
    svg = pareto_plot(summary, trials) or ""
    label = next(n for n in by_class(svg, "label") if (n.text or "").startswith("target"))
    assert 100 <= float(label.get("x", "")) <= 800


def test_trials_without_a_latency_are_left_out(summary: dict[str, Any], trials: tuple[Trial, ...]):
    unknown = tuple(replace(t, metrics=replace(t.metrics, latency_ms=float("nan"))) for t in trials)
    assert pareto_plot(summary, unknown) is None
    svg = pareto_plot(summary, (trials[0], *unknown[1:])) or ""
    assert classes(svg).count("fdot") == 1


def test_a_model_without_figures_is_not_drawn(summary: dict[str, Any], trials: tuple[Trial, ...]):
    summary["full"]["latency_ms"] = None
    summary["best"]["accuracy_ci"] = [None, None]
    names = classes(pareto_plot(summary, trials) or "")
    assert "mark full" not in names
    assert "tie" not in names
    assert "ring" in names


def test_the_learning_curve_shows_rewards_their_mean_and_the_best(trials: tuple[Trial, ...]):
    svg = learning_curve(trials) or ""
    assert by_class(svg, "dots")[0].get("d", "").count("M") == len(trials)
    assert len(by_class(svg, "mean")[0].get("points", "").split()) == len(trials)
    heights = [float(point.split(",")[1]) for point in by_class(svg, "best")[0].get("points", "").split()]
    assert heights == sorted(heights, reverse=True)


def raced(trial: Trial, accuracy: float = 0.99, reward: float = 9.0) -> Trial:
    metrics = replace(trial.metrics, accuracy=accuracy, latency_ms=0.5, n_items=32, raced_out=True)
    return replace(trial, metrics=metrics, reward=reward)


def test_without_a_race_nothing_is_drawn_lighter(summary: dict[str, Any], trials: tuple[Trial, ...]):
    for svg in (pareto_plot(summary, trials), learning_curve(trials)):
        assert svg is not None
        assert "early" not in svg
        assert "opacity" not in svg


def test_what_was_raced_out_is_drawn_lighter_and_not_on_the_front(
    summary: dict[str, Any], trials: tuple[Trial, ...]
):
    early = tuple(raced(trial) for trial in trials[-40:])
    svg = pareto_plot(summary, (*trials[:-40], *early)) or ""
    (group,) = by_class(svg, "early")
    assert [node.get("class") for node in group] == ["dot"] * 40
    assert 0 < float(group.get("opacity", "")) < 1
    title = group[0].find("title")
    assert title is not None
    assert title.text == f"trial {early[0].number}: 0.990 on 32 items only, 0.50 ms, {early[0].config}"
    names = classes(svg)
    assert names.count("dot") + names.count("fdot") == len(trials)
    alone = pareto_plot(summary, trials[:-40]) or ""
    assert names.count("fdot") == classes(alone).count("fdot")


def test_many_that_were_raced_out_are_one_path(summary: dict[str, Any], trials: tuple[Trial, ...]):
    many = tuple(raced(replace(trials[-1], number=300 + i)) for i in range(MAX_TITLES))
    svg = pareto_plot(summary, (*trials, *many)) or ""
    (group,) = by_class(svg, "early")
    assert [node.get("d", "").count("M") for node in group] == [MAX_TITLES]


def test_where_all_were_raced_out_there_is_no_front(summary: dict[str, Any], trials: tuple[Trial, ...]):
    svg = pareto_plot(summary, [raced(trial) for trial in trials[:3]]) or ""
    assert "fdot" not in classes(svg)
    assert "front" not in classes(svg)
    assert len(by_class(svg, "early")[0]) == 3


def test_the_best_so_far_is_none_that_was_raced_out(trials: tuple[Trial, ...]):
    mixed = (raced(trials[0]), *trials[1:40], raced(trials[40]), *trials[41:])
    svg = learning_curve(mixed) or ""
    (group,) = by_class(svg, "early")
    assert group[0].get("d", "").count("M") == 2
    assert by_class(svg, "dots")[-1].get("d", "").count("M") == len(trials) - 2
    assert len(by_class(svg, "mean")[0].get("points", "").split()) == len(trials)
    best = [tuple(map(float, p.split(","))) for p in by_class(svg, "best")[0].get("points", "").split()]
    dots = by_class(svg, "dots")[-1].get("d", "").removeprefix("M").replace("h0", "").split("M")
    points = [tuple(map(float, dot.split())) for dot in dots]
    assert best[0] == points[0]
    assert best[-1] == (points[-1][0], min(height for _, height in points))


def test_where_all_were_raced_out_there_is_no_best_so_far(trials: tuple[Trial, ...]):
    svg = learning_curve([raced(trial) for trial in trials[:5]]) or ""
    assert "best" not in classes(svg)
    assert "mean" in classes(svg)


def test_one_trial_is_a_curve_and_none_is_not(trials: tuple[Trial, ...]):
    assert learning_curve(trials[:1]) is not None
    assert learning_curve(()) is None
    assert learning_curve([replace(trials[0], reward=float("nan"))]) is None


def test_kept_heads_are_filled_and_dropped_blocks_are_outlined():
    config = SubnetConfig((LayerConfig(3, 0), LayerConfig(0, 0), LayerConfig(12, 1536)))
    svg = kept_layers(config, 12, 1536)
    names = classes(svg)
    assert names.count("gone") == 3
    assert names.count("kept") == 3 + 12 + 1
    assert names.count("rest") == 9 + 1
    texts = [node.text for node in ElementTree.fromstring(svg).iter("text")]
    assert texts.count("dropped") == 3
    assert "1,536" in texts


def test_many_heads_are_one_bar():
    svg = kept_layers(SubnetConfig((LayerConfig(16, 2048),)), 32, 4096)
    widths = [float(node.get("width", "")) for node in by_class(svg, "kept")]
    assert widths == [139.0, 139.0]


@pytest.mark.parametrize("factor", [1.0, 3.0, 2 * LOG_FROM, 1e5])
def test_equal_predictions_and_measurements_lie_on_the_diagonal(factor: float):
    svg = predicted_against_measured([(2.0, 2.0), (2.0 * factor, 2.0 * factor), (3.0, 2.5)])
    (line,) = by_class(svg, "target")
    (x0, y0), (x1, y1) = (map(float, end.split(",")) for end in line.get("points", "").split())
    *on, off = [(float(n.get("cx", "")), float(n.get("cy", ""))) for n in by_class(svg, "fdot")]
    for x, y in on:
        assert (x - x0) / (x1 - x0) == pytest.approx((y - y0) / (y1 - y0), abs=0.002)
    # What was predicted too slow is above the line, where pixels are fewer.
    assert (off[1] - y0) / (y1 - y0) > (off[0] - x0) / (x1 - x0)
    assert len(by_class(svg, "tick")) >= 4


def test_points_have_titles_and_names():
    point = (1.0, 1.25)
    titles = [
        by_class(predicted_against_measured([point], names=names), "fdot")[0].findtext("title")
        for names in ((), ["<a>"])
    ]
    assert titles == [
        "predicted 1.00 ms, measured 1.25 ms",
        "<a>: predicted 1.00 ms, measured 1.25 ms",
    ]


def test_a_picture_can_be_a_file_of_its_own():
    text = predicted_against_measured([(1.0, 1.25)], as_file=True)
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert ".fdot" in (root.findtext("{http://www.w3.org/2000/svg}style") or "")
    assert "xmlns" not in predicted_against_measured([(1.0, 1.25)])


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_latencies_are_not_drawn(bad: float):
    with pytest.raises(ValueError, match=rf"above 0, but got \(1\.0, {bad}\)"):
        predicted_against_measured([(1.0, bad)])


@pytest.mark.parametrize(("points", "names"), [([], []), ([(1.0, 1.0)], ["a", "b"])])
def test_a_plot_without_points_or_with_names_for_some_is_refused(
    points: list[tuple[float, float]], names: list[str]
):
    with pytest.raises(ValueError, match=f"but got {len(points)} and {len(names)}"):
        predicted_against_measured(points, names=names)
