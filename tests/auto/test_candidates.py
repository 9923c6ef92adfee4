from __future__ import annotations

import importlib.util

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlnas.auto.candidates import (
    BATCH_SIZES,
    FIRST_BATCH_SIZE,
    RATE_FACTORS,
    Candidate,
    check_optuna,
    propose,
)
from rlnas.auto.plan import TRIALS_OF_EACH
from rlnas.errors import MissingDependencyError

pytest.importorskip("optuna")

RATES = {"wide": 5e-5, "narrow": 2e-4, "half": 2e-4}


def told(n, worth, seed=0):
    """The first n trials, as `worth` scores them."""
    trials = []
    for _ in range(n):
        candidate = propose(RATES, trials, seed)
        trials.append((candidate, worth(candidate)))
    return trials


def good_if_narrow(candidate):
    return 0.9 if candidate.arm == "narrow" else 0.1 + 0.01 * (candidate.number % 3)


def test_the_first_trial_of_each_arm_is_the_usual_training():
    for number, (candidate, _) in enumerate(told(3, good_if_narrow)):
        name = list(RATES)[number]
        assert candidate == Candidate(number, name, RATES[name], FIRST_BATCH_SIZE)


@settings(max_examples=5)
@given(st.integers(0, 1000))
def test_arms_take_turns_and_proposals_are_on_offer(seed):
    trials = told(TRIALS_OF_EACH * len(RATES) + 2, good_if_narrow, seed)
    arms = [candidate.arm for candidate, _ in trials]
    assert arms[: TRIALS_OF_EACH * len(RATES)] == list(RATES) * TRIALS_OF_EACH
    for candidate, _ in trials:
        factor = candidate.learning_rate / RATES[candidate.arm]
        assert RATE_FACTORS[0] * 0.99 <= factor <= RATE_FACTORS[1] * 1.01
        assert candidate.batch_size in BATCH_SIZES


def test_tpe_goes_where_the_scores_are():
    later = told(24, good_if_narrow)[TRIALS_OF_EACH * len(RATES) :]
    assert sum(candidate.arm == "narrow" for candidate, _ in later) > len(later) / 2


def test_a_proposal_depends_on_what_is_told_and_on_the_seed_alone():
    trials = told(8, good_if_narrow)
    assert propose(RATES, trials, 0) == propose(RATES, list(trials), 0)
    assert len({propose(RATES, trials, seed).learning_rate for seed in range(4)}) == 4


def test_a_trial_that_failed_is_told_too():
    trials = told(8, lambda candidate: None if candidate.number == 4 else 0.5)
    assert propose(RATES, trials, 0).number == 8


def test_without_optuna_the_command_that_installs_it_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'rlnas\[optuna\]'"):
        check_optuna()
