"""What the report says of precisions."""

from __future__ import annotations

from rlnas.report.precisions import in_precision, precisions_section, precisions_sentence

SUMMARY = {
    "precisions": {
        "reference": "float32",
        "full_ratios": {"int8": 0.25, "float32": 1.0},
        "n_trials": {"int8": 30, "float32": 1200},
        "table_mape": {"int8": 0.0213, "float32": None},
        "sentence": "of 3 best subnets in floats, none is beaten by a larger one in int8 that is not "
        "slower",
    }
}


def test_names_get_the_precision_that_was_chosen():
    assert in_precision("trial 3", {"config": {"layers": [[1, 1]], "precision": "int8"}}) == "trial 3, int8"
    assert in_precision("trial 3", {"config": {"layers": [[1, 1]], "precision": None}}) == "trial 3"
    assert in_precision("full model", {}) == "full model"


def test_the_sentence_has_the_ratios_and_the_verdict():
    assert precisions_sentence(SUMMARY) == (
        "The full model's latency over that in float32: int8 0.250, float32 1.000. Of 3 best subnets in "
        "floats, none is beaten by a larger one in int8 that is not slower."
    )
    alone = {"precisions": {**SUMMARY["precisions"], "sentence": None}}
    assert precisions_sentence(alone).endswith("float32 1.000.")
    assert precisions_sentence({}) == ""


def test_the_section_has_a_row_per_precision_and_is_absent_without_any():
    (section,) = precisions_section(SUMMARY)
    assert "<th>int8</th><td>0.250</td><td>2.1 %</td><td>30</td>" in section
    assert "<th>float32</th><td>1.000</td><td>-</td><td>1,200</td>" in section
    assert precisions_section({}) == []
