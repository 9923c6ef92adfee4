from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1] / "supernet"))  # folders of tests are no packages

import tiny

from rlnas.errors import CheckpointError
from rlnas.evaluation import SupernetEvaluator
from rlnas.scale.files import packed
from rlnas.scale.worker import SubnetWorker
from rlnas.supernet import Supernet

TASK = tiny.make_task(n=20)


@pytest.fixture
def bert(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return Supernet.from_pretrained(tiny.write_checkpoint(tmp_path / "model", "bert"), TASK)


def test_its_answers_are_those_of_the_evaluator_with_what_they_cost(bert, tmp_path):
    bert.save(tmp_path / "saved")
    worker = SubnetWorker(packed(tmp_path / "saved"), TASK, "cpu", "float32", None, 1)
    worker.prepare()
    alone = SupernetEvaluator(bert, TASK, lambda configs: [0.0] * len(configs), precision="float32")
    configs = tiny.random_configs(bert, 6)
    for items in (np.arange(len(TASK.search)), np.array([3, 7, 1])):
        answers, cost = worker.answer(configs, items)
        before = alone.cost
        assert np.array_equal(answers, alone.answers(configs, items))
        assert cost.flops == (alone.cost - before).flops > 0


def test_files_that_are_no_model_are_refused_when_it_prepares():
    worker = SubnetWorker({"config.json": b"{}"}, TASK, "cpu", "float32", None, 1)
    with pytest.raises(CheckpointError):
        worker.prepare()
