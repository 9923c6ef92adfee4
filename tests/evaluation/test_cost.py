from __future__ import annotations

import pytest

from rlnas.evaluation.cost import EvaluationCost


def test_costs_add_up_field_by_field():
    assert EvaluationCost(1, 2, 3, 4, 5, 6) + EvaluationCost(10, 20, 30, 40, 50, 60) == EvaluationCost(
        11, 22, 33, 44, 55, 66
    )
    assert EvaluationCost() + EvaluationCost(n_items=3) == EvaluationCost(n_items=3)


def test_a_cost_says_how_much_masks_would_take():
    cost = EvaluationCost(1200, 48_000, 500_000, 2 * 10**12, 0, 25 * 10**12)
    assert str(cost) == (
        "1,200 subnets, 48,000 items, 500,000 tokens, 2 TFLOP, masks would take 12.5 times that"
    )


@pytest.mark.parametrize("cost", [EvaluationCost(), EvaluationCost(n_configs=1, masked_flops=7)])
def test_no_work_is_compared_with_nothing(cost):
    assert str(cost).endswith("0 items, 0 tokens, 0 TFLOP")
