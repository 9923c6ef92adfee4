from __future__ import annotations

import logging
import math
from dataclasses import fields, replace

import pytest

from rlnas.controllers.evolution import EvolutionController
from rlnas.controllers.ppo import PPOController
from rlnas.controllers.random import RandomController
from rlnas.errors import BudgetError, InvalidSpaceError, RewardError
from rlnas.evaluation import Racing
from rlnas.rewards import HardBudget, LatencyTarget, LinearPenalty, MnasNetReward
from rlnas.run import Control, DataSource, Job, Schedule, Torchrun
from rlnas.run.folder import FREE_TO_CHANGE
from rlnas.run.job import FOLDED_STEPS, ratio_name
from rlnas.scale.cluster import Cluster
from rlnas.workload import Workload

JOB = Job("a-model", LatencyTarget(ratio=0.5), RandomController())

# Another value for every field of a job and of its parts.
OTHERS = {
    "model": "another-model",
    "reward": LatencyTarget(ratio=0.6),
    "controller": EvolutionController(),
    "device": "cuda:0",
    "target_ratios": (0.25, 0.5),
    "min_steps": 50,
    "torchrun": Torchrun(2),
    "cluster": Cluster(n_workers=3),
    "from_run": "earlier",
    "budget": 7,
    "controls": (Control("evolution", EvolutionController()),),
    "racing": Racing(),
    "seed": 3,
    "precisions": ("float32", "int8"),
    "pooling": "mean",
    "keep_last_layer": True,
    "parts": 6,
    "sizes_worth_having": True,
    "latency_table": "latency.json",
    "allow_foreign_table": True,
    "trust_remote_code": True,
    "data.source": "glue/sst2",
    "data.shots": 200,
    "data.folds": 5,
    "data.text_column": "sentence",
    "data.pair_column": "question",
    "data.label_column": "grade",
    "data.metric": "f1",
    "data.max_train_items": 10,
    "data.search_items": 11,
    "workload.batch_size": 8,
    "workload.seq_len": 64,
    "workload.dtype": "bfloat16",
    "workload.mode": "compiled",
    "workload.statistic": "p99",
    "workload.lengths": (8, 16),
    "lengths_from_task": True,
    "schedule.full_epochs": 5,
    "schedule.epochs": 6,
    "schedule.finish_epochs": 7,
    "schedule.repair_items": 12,
    "schedule.batch_size": 9,
    "schedule.micro_batches": 3,
    "schedule.learning_rate": 0.5,
    "schedule.freeze_embeddings": True,
}


def changed(name, value):
    part, _, field = name.rpartition(".")
    if not part:
        return replace(JOB, **{field: value})
    return replace(JOB, **{part: replace(getattr(JOB, part), **{field: value})})


def good(metrics):
    return metrics.accuracy


def better(metrics):
    return metrics.accuracy


def test_every_field_is_tried_below():
    parts = {"data": DataSource, "workload": Workload, "schedule": Schedule}
    own = {entry.name for entry in fields(Job)} - set(parts)
    theirs = {f"{part}.{entry.name}" for part, kind in parts.items() for entry in fields(kind)}
    assert set(OTHERS) == own | theirs


@pytest.mark.parametrize("name", OTHERS)
def test_another_value_shows_in_exactly_one_setting(name):
    before, after = JOB.settings(), changed(name, OTHERS[name]).settings()
    # Some are there only where they say anything.
    assert before.keys() == after.keys() - {"precisions", "parts", "torchrun", "micro_batches", "cluster"}
    assert [key for key in after if before.get(key) != after[key]] == [
        {"schedule.batch_size": "train_batch_size"}.get(name, name.rpartition(".")[2])
    ]


def test_what_may_change_is_among_the_settings():
    assert set(FREE_TO_CHANGE) <= replace(JOB, cluster=Cluster()).settings().keys()


def test_settings_are_text():
    assert {type(value) for value in JOB.settings().values()} == {str}


def test_settings_name_a_function_by_its_module():
    assert replace(JOB, reward=good).settings()["reward"] == f"{__name__}:good"
    assert replace(JOB, reward=better).settings() != replace(JOB, reward=good).settings()


def test_settings_hold_no_memory_address():
    class Reward:
        def __call__(self, metrics):
            return metrics.accuracy

    first, second = (replace(JOB, reward=Reward()).settings() for _ in range(2))
    assert first == second
    assert "0x" not in first["reward"]


def test_settings_do_not_tell_where_a_controller_leaves_its_files(tmp_path):
    # Else a run could not be resumed once its folder has moved.
    first = replace(JOB, controller=PPOController(save_path=tmp_path / "a.zip", log_dir=tmp_path))
    assert first.settings() == replace(JOB, controller=PPOController()).settings()


def test_a_schedule_counts_all_passes():
    assert Schedule(full_epochs=1, epochs=2, finish_epochs=3).total_epochs == 6


@pytest.mark.parametrize("n_items", [-1, 1])
def test_a_repair_needs_items(n_items):
    message = f"repair_items must be 0 or at least 2, but got repair_items={n_items}"
    with pytest.raises(ValueError, match=message):
        Schedule(repair_items=n_items)


@pytest.mark.parametrize(
    ("finish_epochs", "repair_items", "repairs"), [(0, 256, True), (0, 0, False), (1, 256, False)]
)
def test_what_gets_no_last_training_is_repaired(finish_epochs, repair_items, repairs):
    assert Schedule(finish_epochs=finish_epochs, repair_items=repair_items).repairs is repairs


@pytest.mark.parametrize("name", ["full_epochs", "epochs", "finish_epochs"])
def test_negative_epochs_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 0, but got {name}=-1"):
        Schedule(**{name: -1})


def test_a_training_batch_without_items_is_refused():
    with pytest.raises(ValueError, match="at least 1, but got batch_size=0"):
        Schedule(batch_size=0)


@pytest.mark.parametrize("rate", [0.0, -1e-4, math.nan, math.inf])
def test_a_learning_rate_that_cannot_be_is_refused(rate):
    with pytest.raises(ValueError, match=f"above 0, but got learning_rate={rate}"):
        Schedule(learning_rate=rate)


@pytest.mark.parametrize("budget", [0, -5])
def test_a_job_without_trials_is_refused(budget):
    with pytest.raises(BudgetError, match=f"at least 1 trial, but got budget={budget}"):
        replace(JOB, budget=budget)


@pytest.mark.parametrize(("seed", "bound"), [(-1, "at least 0"), (2**32, "at most 4294967295")])
def test_a_seed_that_not_all_generators_take_is_refused(seed, bound):
    with pytest.raises(ValueError, match=f"seed must be {bound}, but got seed={seed}"):
        replace(JOB, seed=seed)


def test_lengths_come_from_one_place():
    with pytest.raises(ValueError, match="takes the task's lengths, but the workload has 2 of its own"):
        replace(JOB, workload=Workload(lengths=(8, 16)), lengths_from_task=True)


@pytest.mark.parametrize(
    "other", [None, Racing(indifference=0.01), Racing(confidence=0.9), Racing(chunk_items=7)]
)
def test_settings_tell_races_apart(other):
    assert (
        replace(JOB, racing=Racing()).settings()["racing"]
        != replace(JOB, racing=other).settings()["racing"]
    )


def test_a_race_has_the_seed_of_its_job():
    job = replace(JOB, racing=Racing(indifference=0.01, seed=9), seed=5)
    assert job.racing == Racing(indifference=0.01, seed=5)
    assert replace(job, seed=6).racing == Racing(indifference=0.01, seed=6)


@pytest.mark.parametrize(
    "reward",
    [LatencyTarget(ratio=0.5), LinearPenalty(), HardBudget(ratio=0.5), MnasNetReward(target_ms=3.0)],
)
def test_races_serve_rewards_that_want_accuracy_and_speed_alone(reward, caplog):
    assert replace(JOB, reward=reward, racing=Racing()).racing == Racing()
    assert caplog.messages == []


def test_a_reward_that_prices_being_fast_is_not_raced_for():
    reward = LatencyTarget(ratio=0.5, absolute=True)
    message = (
        r"but reward=LatencyTarget\(ratio=0.5.*absolute=True\) also prices being faster .*without --racing"
    )
    with pytest.raises(RewardError, match=message):
        replace(JOB, reward=reward, racing=Racing())
    assert replace(JOB, reward=reward).racing is None


class Steered(LatencyTarget):
    """What it makes of metrics, nobody knows but its author."""


@pytest.mark.parametrize(("reward", "name"), [(good, f"{__name__}:good"), (Steered(ratio=0.5), "Steered(")])
def test_whoever_races_for_a_reward_of_their_own_is_told_what_it_has_to_be(reward, name, caplog):
    with caplog.at_level(logging.WARNING, logger="rlnas"):
        replace(JOB, reward=reward)
        assert caplog.messages == []
        replace(JOB, reward=reward, racing=Racing())
    (message,) = caplog.messages
    assert message.startswith(f"racing trusts reward={name}")
    assert message.endswith(
        "never to rise with latency, and to look at nothing else; if it does, run without --racing"
    )


def test_target_ratios_ascend():
    assert replace(JOB, target_ratios=[0.6, 0.25, 1]).target_ratios == (0.25, 0.6, 1.0)


@pytest.mark.parametrize("ratio", [0.0, -0.5, 1.01, math.nan, math.inf])
def test_a_target_ratio_that_cannot_be_is_refused(ratio):
    with pytest.raises(RewardError, match=f"above 0 and at most 1, .*, but got {ratio:g}"):
        replace(JOB, target_ratios=(0.5, ratio))


def test_a_target_ratio_stands_there_once():
    with pytest.raises(RewardError, match=r"may stand there once, but 0\.25 does twice; drop one"):
        replace(JOB, target_ratios=(0.25, 0.5, 0.25000001))


@pytest.mark.parametrize("reward", [LinearPenalty(), good])
def test_several_targets_need_a_reward_that_knows_one(reward):
    message = (
        r"=\S*(LinearPenalty|good).* knows no target, so it cannot serve the target ratios 0.25, 0.5; "
    )
    with pytest.raises(RewardError, match=message):
        replace(JOB, reward=reward, target_ratios=(0.5, 0.25))


def test_a_ratio_is_named_without_needless_digits():
    assert [ratio_name(ratio) for ratio in (0.25, 1.0, 1 / 3)] == ["0.25", "1", "0.333333"]


@pytest.mark.parametrize("name", ["", "a/b", "..", "a b"])
def test_the_name_of_a_control_can_be_that_of_a_folder(name):
    with pytest.raises(ValueError, match=f"letters, digits, - and _, but got name={name!r}"):
        Control(name, RandomController())


def test_a_control_stands_there_once():
    controls = (
        Control("one", EvolutionController()),
        Control("one", EvolutionController(crossover_rate=0.1)),
    )
    with pytest.raises(ValueError, match="may stand there once, but one does twice; drop one"):
        replace(JOB, controls=controls)


def test_a_search_is_no_control_of_itself():
    with pytest.raises(
        ValueError, match="the control chance is the run's own controller, so it would find"
    ):
        replace(JOB, controls=(Control("chance", RandomController()),))


@pytest.mark.parametrize(
    ("n_items", "min_steps", "passes"),
    [
        (200, 0, (1, 2, 0)),
        (200, 60, (9, 9, 0)),
        (1000, 60, (2, 2, 0)),
        (10_000, 60, (1, 2, 0)),
        (5, 3, (3, 3, 0)),
    ],
    ids=str,
)
def test_few_items_get_as_many_passes_as_make_the_steps(n_items, min_steps, passes):
    schedule = Schedule(finish_epochs=0).for_items(n_items, min_steps)
    assert (schedule.full_epochs, schedule.epochs, schedule.finish_epochs) == passes


def test_steps_are_asked_for_where_there_are_folds_or_they_are_named():
    assert JOB.for_items(200, 0) == JOB
    assert JOB.for_items(200, 5).schedule == JOB.schedule.for_items(200, FOLDED_STEPS)
    assert replace(JOB, min_steps=0).for_items(200, 5).schedule == JOB.schedule
    assert replace(JOB, min_steps=20).for_items(200, 0).schedule == JOB.schedule.for_items(200, 20)


def test_steps_below_none_and_races_in_folds_are_refused():
    with pytest.raises(ValueError, match="min_steps must be at least 0, but got min_steps=-1"):
        replace(JOB, min_steps=-1)
    with pytest.raises(ValueError, match="races are not for folds, but got folds=3"):
        replace(JOB, racing=Racing(), data=DataSource(folds=3))


def test_the_usual_parts_are_left_out_of_the_settings_of_older_runs():
    assert "parts" not in JOB.settings()
    assert replace(JOB, parts=12).settings()["parts"] == "12"


def test_no_parts_and_two_ways_to_say_the_sizes_are_refused():
    with pytest.raises(InvalidSpaceError, match="at least 1 part, but got parts=0"):
        replace(JOB, parts=0)
    with pytest.raises(InvalidSpaceError, match="got parts=12 and sizes_worth_having=True; drop either"):
        replace(JOB, parts=12, sizes_worth_having=True)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((0,), "nproc must be at least 1, but got nproc=0"),
        ((2, 0), "nnodes must be at least 1, but got nnodes=0"),
        ((2, 1, "first:29400"), "one node meets nobody, but got rdzv_endpoint=first:29400; .*--nnodes"),
        (
            (2, 2),
            r"nnodes=2 nodes need a place to meet, HOST:PORT .*rdzv_endpoint=None \(--rdzv-endpoint\)",
        ),
        ((2, 2, "first"), "HOST:PORT on the node of the run, but got rdzv_endpoint=first "),
    ],
)
def test_processes_that_make_no_sense_are_refused(numbers, message):
    with pytest.raises(ValueError, match=message):
        Torchrun(*numbers)


def test_processes_are_told_in_words():
    assert str(Torchrun(1)) == "1 process"
    assert str(Torchrun(4, 2, "first:29400")) == "4 processes on each of 2 nodes"


def test_settings_hold_processes_and_micro_batches_only_where_there_are_some():
    plain = JOB.settings()
    assert not {"torchrun", "micro_batches"} & set(plain)
    schedule = replace(JOB.schedule, micro_batches=4)
    settings = replace(JOB, torchrun=Torchrun(2), schedule=schedule).settings()
    assert settings == plain | {"torchrun": "2 processes", "micro_batches": "4"}


def test_a_step_has_at_least_one_part():
    with pytest.raises(ValueError, match="micro_batches must be at least 1, but got micro_batches=0"):
        Schedule(micro_batches=0)
