"""One judged subnet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rlnas.metrics import Metrics
    from rlnas.space import SubnetConfig


@dataclass(frozen=True, slots=True)
class Trial:
    """A config with what was found out about it.

    Attributes:
        number: Position in the history, from 0.
        config: The subnet.
        metrics: Its judged values.
        reward: What the controller was told; higher is better.
    """

    number: int
    config: SubnetConfig
    metrics: Metrics
    reward: float
