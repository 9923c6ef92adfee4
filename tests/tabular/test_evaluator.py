from __future__ import annotations

import pytest

from rlnas.errors import EvaluationError
from rlnas.metrics import Metrics
from rlnas.space import LayerwiseSpace, ModelShape
from rlnas.tabular.evaluator import TabularEvaluator

SPACE = LayerwiseSpace.for_model(ModelShape(2, 4, 8, 8))


def test_a_table_answers_in_order():
    small, large = SPACE.smallest(), SPACE.largest()
    evaluator = TabularEvaluator({small: Metrics(0.1), large: Metrics(0.9)})
    assert evaluator([large, small, large]) == [Metrics(0.9), Metrics(0.1), Metrics(0.9)]


def test_a_config_that_the_table_lacks_is_named():
    evaluator = TabularEvaluator({SPACE.smallest(): Metrics(0.1)})
    with pytest.raises(EvaluationError, match="table of 1 subnets does not hold 4h8 4h8") as caught:
        evaluator([SPACE.largest()])
    assert caught.value.config == SPACE.largest()
