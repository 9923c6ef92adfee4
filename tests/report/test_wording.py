"""The sentences say what the figures say, gains and misses included."""

from __future__ import annotations

from typing import Any

import pytest

from rlnas.report.wording import (
    accuracy_sentence,
    as_sentence,
    device_text,
    evaluation_sentence,
    finetuned_sentence,
    interval,
    latency_model_sentence,
    latency_sentence,
    mean_errors,
    metric_name,
    milliseconds,
    milliseconds_sentence,
    number,
    params,
    percent,
    prediction_sentence,
    ratio_to_full,
    regime_sentence,
    seconds_sentence,
    setting_sentence,
    steps_sentence,
    workload_text,
)
from rlnas.workload import Workload


@pytest.mark.parametrize(
    ("value", "digits", "shown"),
    [
        (1234.5, 1, "1,234.5"),
        (-0.04, 1, "0.0"),
        (-0.06, 1, "-0.1"),
        (7, 0, "7"),
        (None, 2, "-"),
        (float("nan"), 2, "-"),
        (float("inf"), 2, "-"),
        ("7", 2, "-"),
        (True, 0, "-"),
    ],
)
def test_numbers_are_plain_and_unknown_ones_are_a_dash(value: object, digits: int, shown: str):
    assert number(value, digits) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(22_713_216, "22.71 M"), (99_999, "99,999"), (0, "0"), (None, "-")]
)
def test_parameters_are_in_millions(value: object, shown: str):
    assert params(value) == shown


@pytest.mark.parametrize(("value", "shown"), [(6.834, "6.83"), (12345.6, "12,346"), (None, "-")])
def test_milliseconds_lose_their_decimals_from_a_second_on(value: object, shown: str):
    assert milliseconds(value) == shown


def test_percentages_and_intervals():
    assert percent(0.0234) == "2.3 %"
    assert percent(None) == "-"
    assert interval([0.1, None], 2) == "[0.10, -]"


@pytest.mark.parametrize(
    ("ratio", "target", "met", "end"),
    [
        (0.487, 0.5, True, "which meets the target of 0.5."),
        (0.51, 0.5, True, "which meets the target of 0.5 within the tolerance of 5 %."),
        (0.56, 0.5, False, "which misses the target of 0.5."),
        (0.56, None, None, "; no target was set."),
    ],
)
def test_the_target_is_said_to_be_met_or_missed(
    summary: dict[str, Any], ratio: float, target: float | None, met: bool | None, end: str
):
    summary |= {"latency_ratio": ratio, "target_ratio": target, "target_met": met}
    sentence = latency_sentence(summary)
    assert sentence.startswith(f"The chosen subnet takes {ratio:.3f} times as long as the full model")
    assert sentence.endswith(end)


@pytest.mark.parametrize(
    ("loss", "bounds", "parts"),
    [
        (2.1, [0.3, 3.9], ["It loses 2.1 points of accuracy", "interval 0.3 to 3.9, paired)."]),
        (0.4, [-1.0, 1.8], ["loses 0.4", "-1.0 to 1.8", "cannot be told from no difference."]),
        (-1.5, [-2.5, -0.5], ["It gains 1.5 points", "interval 0.5 to 2.5, paired)."]),
        (None, [None, None], ["Its loss of accuracy on the 1,200 items of the test split is not known."]),
    ],
)
def test_the_loss_is_said_with_its_doubt(
    summary: dict[str, Any], loss: float | None, bounds: list[float], parts: list[str]
):
    summary |= {"loss_points": loss, "loss_ci": bounds}
    for part in parts:
        assert part in accuracy_sentence(summary)


@pytest.mark.parametrize(
    ("gain", "bounds", "part"),
    [
        (
            1.5,
            [0.5, 2.5],
            "1.5 points more than as delivered (95 % interval of the gain 0.5 to 2.5, paired).",
        ),
        (0.5, [-0.5, 1.5], "-0.5 to 1.5, paired): this gained nothing that could be told from chance."),
        (-0.5, [-1.5, 0.5], "0.5 points less than as delivered"),
        (-1.5, [-2.5, -0.5], "-2.5 to -0.5, paired): this made it worse."),
        (0.0, [0.0, 0.0], "with the same answers as delivered: this gained nothing."),
    ],
)
def test_what_a_finetuning_gained_is_said_plainly(summary: dict[str, Any], gain, bounds, part):
    told = {"folder": "finetuned", "accuracy": 0.8761, "n_items": 1821, "split": "test"}
    summary["finetuned"] = {**told, "gain_points": gain, "gain_ci": bounds}
    sentence = finetuned_sentence(summary)
    assert sentence.startswith(
        "Fine-tuned further (finetuned), it has accuracy 0.876 on the 1,821 items of the test split, "
    )
    assert part in sentence


def test_without_a_finetuning_nothing_is_said_of_one(summary: dict[str, Any]):
    assert finetuned_sentence(summary) == ""


def test_metrics_have_names(summary: dict[str, Any]):
    summary["task"]["metric"] = "matthews"
    assert metric_name(summary) == "Matthews correlation"
    summary["task"]["metric"] = "my_own"
    assert metric_name(summary) == "my_own"


def test_the_setting_names_device_and_workload(summary: dict[str, Any]):
    assert setting_sentence(summary) == (
        "Timed on Example CPU @ 2.00GHz, cpu, 1 thread: batch 1 x 64 tokens, float32, eager."
    )
    assert setting_sentence(summary | {"precisions": {"reference": "float32"}}).endswith(
        ", float32, eager; subnets in their own precision, int8 in ONNX Runtime."
    )


def test_a_gpu_is_named_with_its_clock_and_driver():
    device = {
        "name": "Example GPU",
        "kind": "cuda",
        "threads": 1,
        "clock": "CUDA events",
        "driver": "555.1",
    }
    assert device_text({"device": device}) == "Example GPU, cuda, CUDA events, driver 555.1"


def test_the_error_of_predicted_latencies_stands_beside_its_controls(summary: dict[str, Any]):
    assert latency_model_sentence(summary) == (
        "Predicted latencies were off by 2.3 % on average for 13 subnets that were held out, each from a "
        "fit to the others (counting blocks 11.4 %, counting operations 6.7 %), 95 % of them by at most "
        "5.1 %; among equally deep ones their order agrees with tau 0.91, where noise allows 0.94; "
        "timings repeat to 2.1 %."
    )
    summary["latency_model"] = {"table": {"mape": 0.01}, "n_held_out": 3, "worse_than": "flops"}
    assert latency_model_sentence(summary).endswith(
        "3 subnets that were held out; counting operations predicts better here beyond noise."
    )
    del summary["latency_model"]
    assert latency_model_sentence(summary).endswith("was not measured.")


def test_errors_of_earlier_versions_are_read_too():
    summary = {"latency_model": {"mape": 0.02, "controls": {"blocks": 0.1, "flops": None}}}
    assert mean_errors(summary) == {"table": 0.02, "blocks": 0.1}
    assert mean_errors({"latency_model": {"foreign_note": None}}) == {}


def test_what_makes_a_model_fast_is_a_sentence(summary: dict[str, Any]):
    assert regime_sentence(summary) == "Compute-bound: 91 % of a full block's time follows its width."
    for unknown in ({}, {"regime": None}, {"regime": {"name": "launch-bound"}}):
        assert regime_sentence(unknown) == ""


def test_latencies_are_told_with_their_intervals(summary: dict[str, Any]):
    summary["workload"]["statistic"] = "p99"
    assert milliseconds_sentence(summary) == (
        "P99 latency: the chosen subnet 6.83 ms (95 % interval 6.79 to 6.88), "
        "the full model 14.02 ms (95 % interval 13.95 to 14.09)."
    )
    summary["full"]["latency_ci"] = None
    assert milliseconds_sentence(summary) == ""


def test_a_prediction_for_elsewhere_is_no_verdict_on_the_target(summary: dict[str, Any]):
    assert prediction_sentence(summary) == ""
    summary |= {"prediction": {"ratio": 0.44, "made_for": "a phone"}, "target_met": None}
    assert latency_sentence(summary).endswith("0.491), as measured here.")
    assert prediction_sentence(summary) == (
        "For a phone, which is not what was measured, 0.440 times the full model's latency is predicted; "
        "whether the target of 0.5 is met there is not known."
    )
    summary["target_ratio"] = None
    assert prediction_sentence(summary).endswith("full model's latency is predicted.")


def test_steps_are_told_where_there_were_any(summary: dict[str, Any]):
    assert steps_sentence(summary) == ""
    summary["steps"] = [
        {"trial": 7, "latency_ratio": 0.54, "target_met": False},
        {"trial": 9, "latency_ratio": 0.49, "target_met": True},
    ]
    assert steps_sentence(summary) == (
        "A miss triggers a step to the next candidate; "
        "certified were trial 7 at 0.540 (missed), then trial 9 at 0.490 (met)."
    )


def test_a_workload_of_mixed_lengths_or_of_a_tail_says_so(summary: dict[str, Any]):
    one = summary["workload"]
    summary["workload"] = {**one, "lengths": [64, 16, 32]}
    assert workload_text(summary) == "batch 1 x 16 to 64 (median 32) tokens, float32, eager"
    assert workload_text(summary) == str(Workload(**summary["workload"]))
    summary["workload"] = {**one, "statistic": "p99"}
    assert workload_text(summary) == "batch 1 x 64 tokens, float32, eager, p99"
    assert workload_text(summary) == str(Workload(**summary["workload"]))


SPENT = {"n_configs": 112, "n_items": 112 * 320, "flops": 32 * 10**11, "masked_flops": 141 * 10**11}


def test_the_cost_of_the_search_stands_beside_that_of_masks(summary: dict[str, Any]):
    summary["evaluation"] = {**SPENT, "racing": None}
    assert evaluation_sentence(summary) == (
        "The search judged 112 subnets on 320 items each: 3.2 TFLOP, where masks would have taken 14.1."
    )


def test_the_cost_of_a_race_says_how_many_left_it(summary: dict[str, Any]):
    racing = {"confidence": 0.95, "indifference": 0.0}
    summary |= {"n_raced_out": 70, "evaluation": {**SPENT, "n_items": 112 * 100, "racing": racing}}
    assert evaluation_sentence(summary) == (
        "The search judged 112 subnets on 100 items each on average (70 were raced out): 3.2 TFLOP, "
        "where masks would have taken 14.1."
    )


@pytest.mark.parametrize(
    ("flops", "shown"),
    [
        (2_000, "0.0 MFLOP, where masks would have taken 0.0."),
        (47_300_000, "47.3 MFLOP, where masks would have taken 94.6."),
        (999_000_000_000, "999.0 GFLOP, where masks would have taken 1,998.0."),
        (5 * 10**15, "5.0 PFLOP, where masks would have taken 10.0."),
    ],
)
def test_operations_have_a_unit_that_suits_them(summary: dict[str, Any], flops: int, shown: str):
    summary["evaluation"] = {**SPENT, "flops": flops, "masked_flops": 2 * flops}
    assert evaluation_sentence(summary).endswith(f": {shown}")


@pytest.mark.parametrize("spent", [None, {}, {**SPENT, "n_configs": 0}])
def test_a_cost_that_is_not_known_is_passed_over(summary: dict[str, Any], spent: object):
    assert evaluation_sentence(summary) == ""
    summary["evaluation"] = spent
    assert evaluation_sentence(summary) == ""


@pytest.mark.parametrize("note", ["noisy; time again", "Noisy; time again."])
def test_a_note_becomes_a_sentence(note: str):
    assert as_sentence(note) == "Noisy; time again."


def test_seconds_are_listed(summary: dict[str, Any]):
    assert seconds_sentence({"seconds": {"data": 3.1, "total": 9.6}}) == "Seconds: data 3, total 10."
    assert seconds_sentence({"seconds": {}}) == "The seconds of the phases are not known."


def test_a_measured_ratio_is_preferred_to_a_quotient(summary: dict[str, Any]):
    assert ratio_to_full(summary, {"latency_ratio": 0.4, "latency_ms": 99.0}) == 0.4
    assert ratio_to_full(summary, {"latency_ms": 7.01}) == pytest.approx(0.5)
    assert ratio_to_full(summary, {"latency_ms": None}) is None
