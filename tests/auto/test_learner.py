from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from rlnas.auto.candidates import Candidate
from rlnas.auto.learner import FullLearner
from rlnas.data import load_task
from rlnas.errors import TrainingError
from rlnas.supernet import FullTrainer, Supernet
from rlnas.supernet.inference import logits_of, predict
from rlnas.supernet.optimisation import Optimisation

RUNGS = (1, 3)
CANDIDATE = Candidate(4, "tiny", 3e-3, 16)


@pytest.fixture
def learner(make_auto, world, tmp_path):
    auto = make_auto(rungs=RUNGS)
    arms = {arm.name: arm for arm in auto.arms}
    task = load_task(world.data, search_items=32)
    return FullLearner(arms, task, auto.job, RUNGS, tmp_path / "paused", progress=False)


def same(one, other):
    weights = other.model.state_dict()
    return all(torch.equal(weight, weights[name]) for name, weight in one.model.state_dict().items())


def test_rungs_are_stages_of_one_training(learner):
    """Pausing changes nothing, and a rung is not trained again."""
    scores = [learner.judge(CANDIDATE, rung) for rung in range(2)]
    whole = learner.arms["tiny"].load(learner.task, max_seq_len=16, device="cpu", seed=0)
    trainer = FullTrainer(Optimisation(epochs=3, batch_size=16, learning_rate=3e-3))
    trainer.train(whole, learner.task, progress=False)
    assert same(whole, learner.train(CANDIDATE, 1))
    search = whole.encode(learner.task.search)
    assert scores[1].score == pytest.approx((predict(whole.model, search) == search.labels).mean())
    likely = logits_of(whole.model, search).log_softmax(dim=1).numpy()[range(len(search)), search.labels]
    assert scores[1].loss == pytest.approx(-likely.mean(), rel=1e-5)
    assert scores[1].score > 0.7  # it learns
    assert scores[1].loss < scores[0].loss
    learner.drop(CANDIDATE)
    assert learner.judge(CANDIDATE, 1) == scores[1]  # from the start


def test_values_are_judged_by_their_squared_error(learner):
    rng = np.random.default_rng(0)

    def valued(split):
        return replace(split, labels=rng.uniform(0, 5, len(split)).astype(np.float32))

    task = learner.task
    splits = {name: valued(getattr(task, name)) for name in ("train", "search", "final")}
    task = replace(task, **splits, label_names=(), metric="spearman")
    learner = replace(learner, task=task)
    supernet = learner.train(CANDIDATE, 0)
    found = learner.worth(supernet)
    search = supernet.encode(task.search)
    answers = predict(supernet.model, search)
    assert found.loss == pytest.approx(np.mean((answers - search.labels) ** 2), rel=1e-5)
    assert found.score == pytest.approx(spearmanr(search.labels, answers).statistic)


def test_the_final_split_is_not_touched(learner, monkeypatch):
    seen = []
    encode = Supernet.encode
    monkeypatch.setattr(
        Supernet, "encode", lambda self, split: seen.append(split.name) or encode(self, split)
    )
    learner.judge(CANDIDATE, 0)
    assert set(seen) == {learner.task.train.name, learner.task.search.name}
    assert learner.task.final.name not in seen


def test_a_trial_that_lost_leaves_nothing_and_the_winner_its_model(learner, tmp_path):
    learner.judge(CANDIDATE, 0)
    learner.drop(CANDIDATE)
    learner.drop(CANDIDATE)
    assert list((tmp_path / "paused").iterdir()) == []
    trained = learner.train(CANDIDATE, 1)
    learner.keep(CANDIDATE, tmp_path / "winner")
    kept = Supernet.load(tmp_path / "winner")
    assert kept.fine_tuned
    assert same(kept, trained)


def test_too_high_a_rate_is_a_failure_of_the_trial(learner):
    with pytest.raises(TrainingError, match="lower the learning rate"):
        learner.judge(Candidate(0, "tiny", 1e30, 16), 1)


def test_too_large_a_batch_is_a_failure_of_the_trial(learner, monkeypatch):
    def no_memory(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(FullTrainer, "train", no_memory)
    with pytest.raises(TrainingError, match="the device has too little memory: CUDA out of memory"):
        learner.judge(CANDIDATE, 0)
