"""An evaluator that replays metrics that were measured once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlnas.errors import EvaluationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rlnas.metrics import Metrics
    from rlnas.space import SubnetConfig


@dataclass(frozen=True, slots=True, eq=False)
class TabularEvaluator:
    """Answers from a table of metrics.

    Attributes:
        table: Metrics of each config that may be asked for.
    """

    table: Mapping[SubnetConfig, Metrics]

    def __call__(self, configs: Sequence[SubnetConfig]) -> list[Metrics]:
        """Metrics of each config, in the same order.

        Raises:
            EvaluationError: If the table lacks a config.
        """
        answers = []
        for config in configs:
            if config not in self.table:
                raise EvaluationError(
                    f"the table of {len(self.table)} subnets does not hold {config}; "
                    "search a space of which every member is in the table",
                    config,
                )
            answers.append(self.table[config])
        return answers
