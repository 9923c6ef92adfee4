from __future__ import annotations

from dataclasses import replace

import pytest

from rlnas.auto import Arm
from rlnas.controllers.random import RandomController
from rlnas.errors import BudgetError, CheckpointError, RewardError
from rlnas.evaluation import Racing
from rlnas.rewards import LatencyTarget, LinearPenalty
from rlnas.run import Control, DataSource
from rlnas.scale import Cluster


def test_settings_name_what_is_chosen_among_and_not_what_is_chosen(make_auto, world):
    settings = make_auto(passes=20.0).settings()
    assert settings["arms"] == f"{world.model} {world.model}:mean {world.model}:first=1"
    assert settings["names"] == "tiny tiny:mean half"  # which the record of a choice calls them
    assert (settings["rungs"], settings["passes"]) == ("(1, 2)", "20.0")
    assert not {"model", "pooling", "learning_rate", "train_batch_size"} & set(settings)


def test_the_target_is_that_of_the_reward_and_the_search_split_is_carved(make_auto):
    auto = make_auto()
    assert auto.target_ratio == 0.75
    assert auto.job.data.folds == 0


@pytest.mark.parametrize("n_arms", [0, 1])
def test_one_model_is_no_choice(make_auto, n_arms):
    with pytest.raises(
        CheckpointError, match=r"a choice needs at least two models, but got (none|a); name more"
    ):
        make_auto(arms=(Arm("a"),)[:n_arms])


def test_folders_of_one_name_are_told_apart_and_stay_so(make_auto, tmp_path):
    for path in ("one", "other"):
        (tmp_path / path / "run" / "full").mkdir(parents=True)
    auto = make_auto(arms=[Arm(str(tmp_path / path / "run" / "full")) for path in ("one", "other")])
    assert [arm.name for arm in auto.arms] == ["one/run/full", "other/run/full"]
    assert replace(auto, passes=50.0).arms == auto.arms


def test_a_model_may_stand_there_once(make_auto):
    with pytest.raises(CheckpointError, match="every model may stand there once, but 'a' does twice"):
        make_auto(arms=(Arm("a"), Arm("a")))


@pytest.mark.parametrize("rungs", [(), (0, 1), (2, 2), (4, 2)])
def test_rungs_ascend(make_auto, rungs):
    with pytest.raises(BudgetError, match="rungs must be passes that ascend from at least 1"):
        make_auto(rungs=rungs)


@pytest.mark.parametrize("passes", [0.0, -1.0, float("nan"), float("inf")])
def test_a_budget_is_a_number_above_0(make_auto, passes):
    with pytest.raises(BudgetError, match="passes must be a number above 0, but got passes="):
        make_auto(passes=passes)


@pytest.mark.parametrize("reward", [LinearPenalty(), LatencyTarget(target_ms=3.0)])
def test_the_reward_has_a_target_that_is_a_ratio(make_auto, reward):
    with pytest.raises(RewardError, match="so the target is a ratio to the first of them, but got reward="):
        make_auto(reward=reward)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("precisions", {"precisions": ("float32", "bfloat16")}),
        ("target_ratios", {"target_ratios": (0.5, 0.7)}),
        ("from_run", {"from_run": "runs/earlier"}),
        ("folds", {"data": DataSource(folds=5)}),
        ("lengths_from_task", {"lengths_from_task": True}),
        ("sizes_worth_having", {"sizes_worth_having": True}),
        ("min_steps", {"min_steps": 40}),
        ("controls", {"controls": (Control("random", RandomController()),)}),
        ("racing", {"racing": Racing()}),
        ("latency_resource", {"cluster": Cluster(n_workers=0, latency_resource="edge")}),
    ],
)
def test_what_is_for_one_model_is_refused(make_auto, name, changes):
    with pytest.raises(ValueError, match=f"a choice among models does not go with {name}; search with"):
        make_auto(**changes)


def test_a_latency_table_is_of_one_model(make_auto):
    auto = make_auto()
    with pytest.raises(ValueError, match="a choice among models does not go with latency_table"):
        replace(auto, job=replace(auto.job, latency_table="latency.json"))
