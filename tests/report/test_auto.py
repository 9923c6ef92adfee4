from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from rlnas.report import format_table
from rlnas.report.auto import arms_plot, auto_section, auto_sentences
from rlnas.report.html import render


def trial(number, arm, scores):
    return {
        "trial": number,
        "arm": arm,
        "learning_rate": 2e-4,
        "batch_size": 32,
        "scores": scores,
        "losses": [None if score is None else 1.0 - score for score in scores],
        "cost": 1.5,
    }


def arm(name, is_reachable=True):
    return {
        "arm": name,
        "n_layers": 6,
        "cost": 1.0,
        "latency_ratio": 1.0,
        "smallest_ratio": 0.1,
        "is_reachable": is_reachable,
    }


@pytest.fixture
def chosen(summary):
    """A run that began with a choice among three models."""
    summary["auto"] = {
        "reference": "minilm",
        "target_ratio": 0.5,
        "latency_ratio": 0.487,
        "rungs": [1, 2],
        "arms": [arm("minilm"), arm("minilm:cls"), arm("large", is_reachable=False)],
        "trials": [
            trial(0, "minilm", [0.61, 0.70]),
            trial(1, "minilm:cls", [0.40]),
            trial(2, "minilm", [None]),
            trial(3, "minilm:cls", [0.55, 0.72]),
        ],
        "notes": [],
        "chosen": {
            "trial": 3,
            "arm": "minilm:cls",
            "learning_rate": 2e-4,
            "batch_size": 32,
            "score": 0.72,
            "loss": 0.28,
            "score_ci": [0.68, 0.76],
            "n_items": 600,
            "split": "search",
        },
        "cost": {
            "passes": None,
            "at_most": 14.0,
            "choice": 6.0,
            "share": 3.5,
            "search": 1.0,
            "finish": 0.8,
            "baseline": 2.0,
            "total": 13.3,
            "choice_to_the_end": 8.4,
        },
    }
    return summary


def test_a_run_without_a_choice_says_nothing_of_one(summary):
    assert auto_sentences(summary) == auto_section(summary) == []


def test_what_was_chosen_why_and_at_what_cost(chosen):
    assert auto_sentences(chosen) == [
        "Chosen among 3 models in 4 trials: minilm:cls, trained with learning rate 0.0002 and batches of "
        "32 (trial 3), as its accuracy after 2 passes is the best on the 600 items of the search split: "
        "0.720 [0.680, 0.760]; the next best there has 0.700.",
        "The delivered model takes 0.487 of the latency of the whole minilm, to which the target of 0.5 "
        "refers; the full model above is the whole minilm:cls.",
        "Left out, as they cannot be so fast: large.",
        "All took 13.3 of at most 14.0 passes of minilm: 6.0 for the choice, where all trials to their "
        "end would have taken 8.4, and 7.3 for the search and its baseline.",
    ]


def test_a_choice_that_had_to_make_up_for_failures_says_that_it_took_more_than_planned(chosen):
    chosen["auto"]["cost"]["at_most"] = 13.0
    assert auto_sentences(chosen)[-1] == (
        "All took 13.3 passes of minilm, more than the 13.0 planned, as trainings that failed were made up "
        "for: 6.0 for the choice, where all trials to their end would have taken 8.4, and 7.3 for the "
        "search and its baseline."
    )


def test_a_single_finalist_has_no_next_best(chosen):
    chosen["auto"]["trials"][0]["scores"].pop()
    assert "next best" not in auto_sentences(chosen)[0]


def test_of_equal_finalists_the_losses_are_told(chosen):
    chosen["auto"]["trials"][0] |= {"scores": [0.61, 0.72], "losses": [0.9, 0.3456]}
    assert auto_sentences(chosen)[0].endswith(
        "0.720 [0.680, 0.760]; the next best there has the same, and a loss of 0.346 instead of 0.280."
    )
    (section,) = auto_section(chosen)
    assert "<td>0.610 (0.900)</td><td>0.720 (0.346)</td>" in section
    assert section.index("<td>3</td>") < section.index("<td>0</td>")


def test_a_finalist_that_failed_is_no_next_best(chosen):
    chosen["auto"]["trials"][0] |= {"scores": [0.61, None], "losses": [0.9, None]}
    assert "next best" not in auto_sentences(chosen)[0]


def test_rungs_that_told_little_are_told_of(chosen):
    chosen["auto"]["notes"] = ["after 1 pass 3 of 4 trials had the same score"]
    assert auto_sentences(chosen)[1] == "After 1 pass 3 of 4 trials had the same score."


def test_a_single_pass_is_no_passes(chosen):
    chosen["auto"]["rungs"] = [1]
    assert "after 1 pass is the best" in auto_sentences(chosen)[0]


def test_terminal_and_page_tell_the_same(chosen, trials):
    page, table = render(chosen, trials), " ".join(format_table(chosen).split())
    for sentence in auto_sentences(chosen):
        assert sentence in page
        assert sentence in table


def test_the_picture_has_a_line_for_each_trial_that_went_on_and_ends_with_the_chosen_one(chosen):
    plot = arms_plot(chosen)
    ElementTree.fromstring(plot)
    assert plot.count("<polyline") == 2
    assert len(re.findall("<circle", plot)) == 5  # the failed trial has none
    assert plot.rindex('class="best"') > plot.rindex('class="axis" points')
    assert "trial 3: minilm:cls, learning rate 0.0002: 0.720" in plot


def test_without_a_score_there_is_no_picture(chosen):
    for one in chosen["auto"]["trials"]:
        one |= {"scores": [None], "losses": [None]}
    assert arms_plot(chosen) is None
    assert "<svg" not in auto_section(chosen)[0]


def test_the_table_ranks_trials_by_how_far_they_came_and_how_good_they_were(chosen):
    (section,) = auto_section(chosen)
    rows = re.findall(r"<tr(?: class=\"chosen\")?><th>[^<]*</th><td>(\d)</td>", section)
    assert rows == ["3", "0", "1", "2"]
    assert "judging subnets" in section


def test_names_are_escaped(chosen):
    chosen["auto"]["trials"][0]["arm"] = chosen["auto"]["reference"] = "<b>"
    assert "<b>" not in auto_section(chosen)[0].replace("<b></b>", "")
