from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "supernet"))  # folders of tests are no packages

import tiny

from rlnas.evaluation import SupernetEvaluator
from rlnas.scale.worker import Judging, SubnetWorker
from rlnas.supernet import Supernet
from rlnas.supernet.arrays import SupernetArrays

TASK = tiny.make_task(n=20)


@pytest.fixture
def bert(tmp_path):
    return Supernet.from_pretrained(tiny.write_checkpoint(tmp_path / "model", "bert"), TASK)


def test_its_answers_are_those_of_the_evaluators_with_what_they_cost(bert):
    arrays = SupernetArrays.of(bert.model, bert.tokenizer, bert.max_seq_len)
    precisions = ("float32", "int8")
    judgings = [Judging(0, TASK, precision, None) for precision in precisions]
    worker = SubnetWorker("cpu", 1, judgings, arrays)
    worker.prepare()
    configs = tiny.random_configs(bert, 6)
    for number, precision in enumerate(precisions):
        alone = SupernetEvaluator(bert, TASK, lambda configs: [0.0] * len(configs), precision=precision)
        for items in (np.arange(len(TASK.search)), np.array([3, 7, 1])):
            answers, cost = worker.answer(number, configs, items)
            before = alone.cost
            assert np.array_equal(answers, alone.answers(configs, items))
            assert cost.flops == (alone.cost - before).flops > 0


def test_its_evaluators_copy_no_weights(bert, monkeypatch):
    arrays, copied = SupernetArrays.of(bert.model, bert.tokenizer, bert.max_seq_len), []
    monkeypatch.setattr("copy.deepcopy", lambda value, *_: copied.append(value) or value)
    SubnetWorker("cpu", 1, [Judging(0, TASK, "float32", None)], arrays).prepare()
    assert not any(isinstance(value, torch.nn.Module) for value in copied)
