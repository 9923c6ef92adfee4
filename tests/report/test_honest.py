"""What was learnt and what is luck is said in words, with its interval."""

from __future__ import annotations

import pytest

from rlnas.report.honest import honest_section, honest_sentences, start_sentence


def goal(**more):
    values = {
        "target_ratio": 0.5,
        "seen_accuracy": 0.884,
        "honest_accuracy": 0.856,
        "honest_ci": [0.789, 0.921],
        "gain_points": None,
        "gain_ci": None,
    }
    return values | more


@pytest.fixture
def tell(summary):
    def told(*goals, **more):
        honest = {
            "split": "search",
            "n_folds": 0,
            "n_items": 200,
            "n_candidates": 100,
            "goals": list(goals),
        }
        summary["honest"] = honest | more
        return " ".join(honest_sentences(summary))

    return told


def test_the_luck_is_taken_off_and_its_size_is_said(tell):
    assert tell(goal()) == (
        "The best subnet was chosen among 100 by 200 items of the search split. There it has an accuracy "
        "of 0.884; such a choice is worth 0.856 on items that had no part in it (95 % interval 0.789 to "
        "0.921), so 2.8 points are the luck of being chosen."
    )


def test_folds_are_named(tell):
    text = tell(goal(), split="out-of-fold", n_folds=5)
    assert (
        "200 items of the out-of-fold split, each answered by weights trained without it (5 folds)." in text
    )


@pytest.mark.parametrize(("ci", "verdict"), [([0.2, 3.0], "is"), ([-1.0, 3.0], "is not")])
def test_a_gain_over_the_start_is_beyond_noise_or_not(tell, ci, verdict):
    text = tell(goal(gain_points=1.5, gain_ci=ci))
    assert text.endswith(
        f"gains 1.5 points on such items ({ci[0]:.1f} to 3.0), which {verdict} beyond noise."
    )


def test_several_targets_have_a_sentence_each(tell):
    text = tell(goal(), goal(target_ratio=0.25))
    assert "Target 0.5: There" in text
    assert "Target 0.25: There" in text


def test_where_nothing_is_known_nothing_is_said(summary):
    assert honest_sentences(summary) == honest_section(summary) == []
    assert start_sentence(summary) == ""
    summary["honest"] = summary["from_run"] = None
    assert honest_sentences(summary) == honest_section(summary) == []


def test_the_page_has_a_section_and_names_the_start(summary, tell):
    tell(goal())
    summary["from_run"] = {"run": "cola", "task": "cola & more"}
    (page,) = honest_section(summary)
    assert page.startswith("<section><h2>What was learnt and what is luck</h2><p>Training started from")
    assert "cola &amp; more; the full model beside it did not" in page
    summary["from_run"] = {"run": "saved", "task": None}
    assert "saved, on a task that it does not tell;" in start_sentence(summary)
