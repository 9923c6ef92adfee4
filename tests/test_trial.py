from __future__ import annotations

import pickle

import pytest

from rlnas.metrics import Metrics
from rlnas.space import LayerConfig, SubnetConfig
from rlnas.trial import Trial

TRIAL = Trial(3, SubnetConfig((LayerConfig(1, 2),)), Metrics(0.5, 2.0), 0.25)


def test_equal_trials_are_equal_and_travel_between_processes():
    assert pickle.loads(pickle.dumps(TRIAL)) == TRIAL
    assert Trial(4, TRIAL.config, TRIAL.metrics, TRIAL.reward) != TRIAL


def test_a_trial_is_frozen():
    with pytest.raises(AttributeError, match="reward"):
        TRIAL.reward = 1.0
