"""What the search added is said in words, and nothing is called nothing."""

from __future__ import annotations

import math
from typing import Any

import pytest

from rlnas.report.added import added_section, added_sentences


def side(trial: int, accuracy: float, **more: Any) -> dict[str, Any]:
    return {"trial": trial, "accuracy": accuracy, "predicted_latency_ms": 6.5, "reward": accuracy, **more}


def beside(
    trial: int, accuracy: float, points: float, low: float, high: float, is_better: bool | None, **more: Any
):
    return side(
        trial, accuracy, difference_points=points, difference_ci=[low, high], is_better=is_better, **more
    )


def entry(target: float | None = 0.5, **more: Any) -> dict[str, Any]:
    start = beside(3, 0.71, 2.1, 0.4, 3.9, True)
    return {"target_ratio": target, "winner": side(57, 0.731), "start": start, "control": None, **more}


@pytest.fixture
def told(summary: dict[str, Any]):
    """The sentences of a run with these comparisons, as one text."""

    def tell(*entries: dict[str, Any], **more: Any) -> str:
        summary["added"] = {
            "split": "search",
            "n_items": 600,
            "n_start": 16,
            "informed_start": False,
            "controls": {},
            "comparisons": list(entries),
            **more,
        }
        return " ".join(added_sentences(summary))

    return tell


def test_what_was_added_to_the_start_is_said_with_its_interval(told):
    text = told(entry())
    assert (
        "Beside the best of its start, the first 16 trials, the search added accuracy; trial 57 has 0.731, "
        "trial 3 there 0.710: 2.1 points (95 % interval 0.4 to 3.9)."
    ) in text
    assert "paired over the 600 items of the search split; both sides were selected on these items" in text
    assert "informed start, the first 32 trials," in told(entry(), informed_start=True, n_start=32)


def test_a_winner_of_the_start_was_not_searched_for(told):
    text = told(entry(start=beside(57, 0.731, 0.0, 0.0, 0.0, False)))
    assert text.startswith(
        "The winner, trial 57, is the best of its start, the first 16 trials: beside that the search added "
        "nothing."
    )


def test_without_a_control_it_says_how_to_have_one(told):
    assert "is not known; to find out, repeat the command with --resume --controls" in told(entry())


def test_a_run_that_began_with_a_choice_among_models_takes_no_controls(told, summary: dict[str, Any]):
    summary["auto"] = {"reference": "minilm"}
    assert "so what this one adds to simpler ones is not known. Differences" in told(entry())


@pytest.mark.parametrize(("points", "low", "high"), [(0.4, -0.9, 1.8), (0.0, 0.0, 0.0), (-3.0, -5.0, 0.0)])
def test_nothing_is_called_nothing(told, points: float, low: float, high: float):
    control = beside(9, 0.72, points, low, high, False, name="random")
    text = told(entry(control=control), controls={"random": 300})
    assert (
        "Beside the control at the same budget of 300, random, the search added nothing that could be told "
        f"from chance; trial 57 has 0.731, trial 9 there 0.720: {points:.1f} points"
    ) in text
    assert "--controls" not in text


def test_a_winner_that_is_worse_than_a_control_is_called_so(told):
    control = beside(9, 0.76, -3.0, -5.0, -1.0, False, name="random")
    text = told(entry(control=control), controls={"random": 300})
    assert (
        "Beside the control at the same budget of 300, random, the search added nothing, and what it found "
        "is worse; trial 57 has 0.731, trial 9 there 0.760: -3.0 points (95 % interval -5.0 to -1.0)."
    ) in text
    assert "chance" not in text.split("random,")[1].split("Differences")[0]


def test_of_several_controls_it_says_that_it_is_the_best(told):
    control = beside(9, 0.70, 3.1, 0.9, 5.1, True, name="local")
    text = told(entry(control=control), controls={"random": 300, "local": 300})
    assert "the best of 2 controls at the same budget of 300, local, the search added accuracy;" in text


def test_without_a_target_it_tells_rewards_and_does_not_judge(told):
    text = told(entry(None, start=beside(3, 0.71, 2.1, 0.4, 3.9, None)))
    assert "its reward is 0.7310 against 0.7100; trial 57 has 0.731" in text
    assert "the search added" not in text


def test_every_target_has_its_sentence(told):
    text = told(entry(0.25), entry(0.5))
    assert text.index("Target 0.25: Beside") < text.index("Target 0.5: Beside")
    assert "Target" not in told(entry(0.25))


def test_the_page_has_a_row_for_every_side(told, summary: dict[str, Any]):
    control = beside(9, 0.70, 3.1, 0.9, 5.1, True, name="<i>local")
    told(entry(control=control), controls={"<i>local": 300})
    (page,) = added_section(summary)
    assert page.startswith("<section><h2>What the search added</h2>")
    assert page.count("<tr>") == 4
    assert "best control for 0.5: &lt;i&gt;local" in page
    assert "<i>" not in page
    assert "[0.9, 5.1]" in page


def test_a_winner_without_rivals_stands_alone(told, summary: dict[str, Any]):
    winner = {**side(5, 0.7), "predicted_latency_ms": math.nan}
    told(entry(None, winner=winner, start=None))
    (page,) = added_section(summary)
    assert page.count("<tr>") == 2


def test_runs_of_earlier_versions_have_no_such_section(summary: dict[str, Any]):
    assert added_sentences(summary) == added_section(summary) == []
