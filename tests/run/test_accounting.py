from __future__ import annotations

import json

import pytest

from rlnas.errors import RunFolderError
from rlnas.evaluation import EvaluationCost
from rlnas.run.accounting import read_cost, write_cost
from rlnas.run.folder import RunFolder

COST = EvaluationCost(n_configs=3, n_items=90, n_tokens=800, flops=5 * 10**15, masked_flops=9 * 10**15)


@pytest.fixture
def folder(tmp_path):
    """A run folder with a history."""
    folder = RunFolder(tmp_path)
    folder.history.write_bytes(b"")
    return folder


def test_a_new_run_has_spent_nothing(folder):
    assert read_cost(folder) == EvaluationCost()


def test_what_was_written_is_read(folder):
    write_cost(folder, COST)
    assert read_cost(folder) == COST


def test_a_search_that_begins_anew_does_not_pay_for_the_old_one(folder):
    write_cost(folder, COST)
    folder.history.unlink()
    assert read_cost(folder) == EvaluationCost()


@pytest.mark.parametrize(
    "values",
    [
        {"n_configs": 3},
        {"n_configs": 3, "n_items": 9, "n_tokens": 9, "flops": 9.5, "masked_flops": 9},
        {"n_configs": 3, "n_items": 9, "n_tokens": 9, "flops": "9", "masked_flops": 9},
        {"n_configs": 3, "n_items": 9, "n_tokens": 9, "flops": 9, "masked_flops": 9, "seconds": 1},
    ],
)
def test_a_file_of_other_things_is_damaged(folder, values):
    folder.evaluation.write_text(json.dumps(values))
    with pytest.raises(
        RunFolderError, match=r"evaluation.json' is damaged: .* but holds {'n_configs': 3.*delete"
    ):
        read_cost(folder)
