"""What a calibration times, and how often."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlnas.calibration.design import choose_models, draw_models, without_blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rlnas.protocols import BlockKind, Timeable
    from rlnas.space import SearchSpace, SubnetConfig
    from rlnas.workload import Workload

    Block = tuple[BlockKind, int]

N_MODELS = 16
"""Whole subnets that are timed end to end for the correction."""

MAX_HELD_OUT = 500
"""Subnets that may judge a table."""

REPEATED = 5
"""Of so many held-out subnets one is built and timed twice."""

TAIL_ROUNDS = 4
"""Times as many rounds for a tail as for a median."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured.

    Attributes:
        n_models: Whole subnets to time for the correction, at least 1.
        n_held_out: Further subnets that are timed in the same rounds and judge the table; every
            fifth of them is built and timed twice, to see the noise. With 0 the subnets of the
            correction judge it, each predicted from the others.
        n_rounds: Samples of each timing; four times as many where a tail is asked for.
        max_seconds: Stop after the round in which this is reached (but not before the fifth), or
            None; four times as long where a tail is asked for. Building the models and warming up
            comes on top.

    Raises:
        ValueError: If a number is outside its range.
    """

    n_models: int = N_MODELS
    n_held_out: int = 0
    n_rounds: int = 30
    max_seconds: float | None = 40.0

    def __post_init__(self) -> None:
        for name, least in (("n_models", 1), ("n_held_out", 0), ("n_rounds", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, but got {name}={getattr(self, name)}")
        if self.n_held_out > MAX_HELD_OUT:
            raise ValueError(
                f"n_held_out must be at most {MAX_HELD_OUT}, as all are in memory together, "
                f"but got n_held_out={self.n_held_out}"
            )

    def seconds_for(self, workload: Workload) -> float | None:
        """`max_seconds`, or more where a tail is asked for."""
        if self.max_seconds is None or workload.statistic == "median":
            return self.max_seconds
        return TAIL_ROUNDS * self.max_seconds

    def rounds_for(self, workload: Workload) -> int:
        """`n_rounds`, or more where a tail is asked for."""
        return self.n_rounds * (TAIL_ROUNDS if workload.statistic == "p99" else 1)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is timed, in the order of the timings: floor, blocks, models, held-out models, repeats.

    Attributes:
        floor: The model without blocks.
        blocks: Kind and size of each stack.
        models: Whole subnets for the correction.
        held_out: Those that judge the table.
        repeated: Those of `held_out` that are built and timed a second time.
    """

    floor: SubnetConfig
    blocks: list[Block]
    models: list[SubnetConfig]
    held_out: list[SubnetConfig]
    repeated: list[SubnetConfig]

    @classmethod
    def make(
        cls,
        blocks: list[Block],
        model: Timeable,
        space: SearchSpace,
        workload: Workload,
        effort: Effort,
        seed: int,
    ) -> Plan:
        """Choose the models: those of the correction by design, those that judge it at random."""
        shape = model.shape
        models = choose_models(space, shape, workload, effort.n_models, seed)
        # Not of the same draws as the models, which held-out ones may not be among.
        held_out = draw_models(space, effort.n_held_out, seed + 1, excluded=models)
        return cls(without_blocks(shape), blocks, models, held_out, held_out[::REPEATED])

    @property
    def n_calls(self) -> int:
        """How many things are timed."""
        return 1 + len(self.blocks) + len(self.subnets)

    @property
    def subnets(self) -> list[SubnetConfig]:
        """All whole subnets but the floor, in the order of their timings."""
        return [*self.models, *self.held_out, *self.repeated]

    def calls(self, model: Timeable, built: Callable[[int], None]) -> list[Sequence[Callable[[], object]]]:
        """Build everything; `built` is told after each how many there are."""
        calls: list[Sequence[Callable[[], object]]] = [model.model_calls(self.floor)]
        for block in self.blocks:
            calls.append(model.block_calls(*block))
            built(len(calls))
        for config in self.subnets:
            calls.append(model.model_calls(config))
            built(len(calls))
        return calls
