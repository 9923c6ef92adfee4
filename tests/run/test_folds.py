"""Supernets of the folds are trained without the items that they judge, kept, and found again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rlnas.evaluation import FoldedEvaluator
from rlnas.metrics import Metrics
from rlnas.run import DataSource
from rlnas.run.folder import RunFolder
from rlnas.run.folds import repaired_predictions, train_folds
from rlnas.run.inputs import prepare_inputs
from rlnas.run.searching import make_evaluator
from rlnas.run.training import repaired_subnet
from rlnas.supernet import FullTrainer
from rlnas.supernet.inference import predict
from rlnas.trial import Trial


@pytest.fixture(scope="module")
def job(world):
    job = world.job(data=DataSource(str(world.data), shots=24, folds=2))
    return replace(job, schedule=replace(job.schedule, full_epochs=1, epochs=1))


@pytest.fixture(scope="module")
def trained(job, tmp_path_factory):
    folder = RunFolder(tmp_path_factory.mktemp("folds"))
    inputs = prepare_inputs(job, folder, progress=False)
    return replace(inputs, folds=train_folds(job, inputs, folder, progress=False)), folder


def weights_of(supernet):
    return supernet.model.head.out.weight.detach().numpy()


def test_folds_differ_and_are_found_again_untrained(job, trained, monkeypatch):
    inputs, folder = trained
    assert len(inputs.folds) == 2
    assert not np.array_equal(*map(weights_of, inputs.folds))
    assert all(supernet.importance is not None for supernet in inputs.folds)
    monkeypatch.setattr(FullTrainer, "train", None)
    again = train_folds(job, inputs, folder, progress=False)
    for one, other in zip(inputs.folds, again, strict=True):
        np.testing.assert_array_equal(weights_of(one), weights_of(other))
    assert "folds" in folder.seconds()
    assert not (folder.folds / "0" / "checkpoints").exists()


def test_held_out_labels_do_not_reach_the_fold_that_holds_them_out(job, trained, tmp_path):
    inputs, _ = trained
    labels = inputs.task.train.labels.copy()
    labels[inputs.task.folds == 0] = 1 - labels[inputs.task.folds == 0]
    split = replace(inputs.task.train, labels=labels)
    turned = replace(inputs, task=replace(inputs.task, train=split, search=split))
    folds = train_folds(job, turned, RunFolder(tmp_path), progress=False)
    for (name, one), (_, other) in zip(
        inputs.folds[0].model.named_parameters(), folds[0].model.named_parameters(), strict=True
    ):
        np.testing.assert_array_equal(one.detach().numpy(), other.detach().numpy(), err_msg=name)
    assert not np.array_equal(weights_of(inputs.folds[1]), weights_of(folds[1]))


def test_a_task_without_folds_trains_none(world, run):
    inputs = prepare_inputs(world.job(), RunFolder(run), progress=False)
    assert train_folds(world.job(), inputs, RunFolder(run), progress=False) == ()


def test_subnets_are_judged_out_of_fold(job, trained):
    evaluator = make_evaluator(job, trained[0])
    assert isinstance(evaluator, FoldedEvaluator)
    assert evaluator([trained[0].space.largest()])[0].n_items == 24


def test_repairs_are_judged_out_of_fold_too(job, trained):
    inputs, _ = trained
    trial = Trial(3, inputs.space.smallest(), Metrics(0.5), 0.5)
    found = repaired_predictions(job, inputs, trial)
    assert found.shape == (24,)
    fold, supernet = inputs.task.fold(1), inputs.folds[1]
    subnet = repaired_subnet(job, supernet, trial.config, fold)
    np.testing.assert_array_equal(
        found[inputs.task.folds == 1], predict(subnet, supernet.encode(fold.search))
    )
