"""What is known of each arm before anything is trained: its size, its costs, and how fast it can be."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rlnas.auto.compute import ArmCost, arm_cost, forward_flops
from rlnas.errors import CheckpointError, InfeasibleTargetError, RunFolderError
from rlnas.latency import clock_for, compare, timing_conditions
from rlnas.run.folder import read_json, remedy_of, write_json
from rlnas.run.training import usual_learning_rate
from rlnas.space import ModelShape
from rlnas.supernet.timing import TimedModel

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rlnas.auto.arms import Arm
    from rlnas.auto.job import AutoJob
    from rlnas.run import Job
    from rlnas.space import SubnetConfig
    from rlnas.supernet import Supernet
    from rlnas.task import Task

logger = logging.getLogger(__name__)

N_ROUNDS = 200
MAX_SECONDS = 5.0
"""Bounds on each timing: the ratio that the certificate states is measured for longer."""


@dataclass(frozen=True, slots=True)
class Entrant:
    """An arm with its costs.

    Attributes:
        name: Of the arm.
        shape: Its sizes.
        train: A training pass, in passes of the reference.
        judge: Its answers to all search items, likewise.
        latency_ratio: Latency of the whole model over that of the whole reference.
        smallest_ratio: The same of its smallest subnet.
    """

    name: str
    shape: ModelShape
    train: float
    judge: float
    latency_ratio: float
    smallest_ratio: float

    @property
    def cost(self) -> ArmCost:
        """What its work costs."""
        return ArmCost(self.train, self.judge)

    @property
    def learning_rate(self) -> float:
        """The usual one of its width."""
        return usual_learning_rate(self.shape.hidden_size)

    def reaches(self, target_ratio: float) -> bool:
        """Whether it has a subnet which is fast enough."""
        return self.smallest_ratio <= target_ratio

    def sentence(self, reference: str) -> str:
        """What it costs and how fast it is, beside the reference of that name."""
        return (
            f"{self.name}: {self.shape.num_hidden_layers} layers; beside {reference} a training pass costs "
            f"{self.train:.3g}, latency is {self.latency_ratio:.3g}, that of the smallest subnet "
            f"{self.smallest_ratio:.3g}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def read_entrants(path: Path) -> tuple[Entrant, ...]:
    """The entrants that `meet` has left in a file.

    Raises:
        RunFolderError: If it is damaged.
    """
    try:
        return tuple(
            Entrant(**{**values, "shape": ModelShape(**values["shape"])})
            for values in read_json(path)["entrants"]
        )
    except (KeyError, TypeError) as error:
        raise RunFolderError(f"{str(path)!r} is damaged ({error}); {remedy_of(path)}") from error


def meet(auto: AutoJob, task: Task, path: Path) -> tuple[Entrant, ...]:
    """Load every arm once, count its work and time it beside the reference.

    Args:
        auto: The first arm is the reference.
        task: The items whose lengths are counted.
        path: A file for the result: a later call finds it there, so that nothing depends on another timing.

    Raises:
        CheckpointError: If an arm cannot be read, its texts are too long for it, or it is another one by
            another name, as with the pooling that it has anyway.
        RunFolderError: If the file is damaged or cannot be written.
    """
    if path.is_file():
        return read_entrants(path)
    reference = load(auto.job, auto.arms[0], task)
    supernet, lengths = reference, _lengths(reference, task)
    unit = forward_flops(reference.shape.full, reference.shape, lengths[0])
    known: dict[tuple[object, ...], str] = {}
    entrants = []
    for arm in auto.arms:
        if arm != auto.arms[0]:
            supernet = load(auto.job, arm, task)
            lengths = _lengths(supernet, task)
        model = (arm.place, supernet.shape, supernet.model.config.pooling)
        if model in known:
            raise CheckpointError(f"{arm.name!r} is the same model as {known[model]!r}; drop one")
        known[model] = arm.name
        cost = arm_cost(supernet.shape, *lengths, unit)
        entrants.append(_entrant(auto, arm, supernet, reference, cost))
        logger.info("%s", entrants[-1].sentence(entrants[0].name))
    write_json(path, {"entrants": [entrant.to_dict() for entrant in entrants]})
    return tuple(entrants)


def load(job: Job, arm: Arm, task: Task) -> Supernet:
    """An arm's model as the job wants it."""
    return arm.load(
        task,
        max_seq_len=job.workload.seq_len,
        device=job.device,
        seed=job.seed,
        trust_remote_code=job.trust_remote_code,
    )


def reachable(entrants: Sequence[Entrant], target_ratio: float) -> tuple[Entrant, ...]:
    """The entrants that have a subnet which is fast enough; the others are told of and left out.

    Raises:
        InfeasibleTargetError: If there is none.
    """
    fitting = tuple(entrant for entrant in entrants if entrant.reaches(target_ratio))
    if not fitting:
        best = min(entrants, key=lambda entrant: entrant.smallest_ratio)
        raise InfeasibleTargetError(
            f"the target of {target_ratio:.3g} of the latency of {entrants[0].name} cannot be reached: the "
            f"smallest subnet of {best.name} takes {best.smallest_ratio:.3g} of it, those of the others no "
            "less; ask for more than that"
        )
    for entrant in entrants:
        if entrant not in fitting:
            logger.warning(
                "%s is left out: its smallest subnet takes %.3g of the latency of %s, not %.3g or less",
                *(entrant.name, entrant.smallest_ratio, entrants[0].name, target_ratio),
            )
    return fitting


def _lengths(supernet: Supernet, task: Task) -> tuple[list[int], list[int]]:
    """Tokens of the training and of the search items."""
    train, search = (supernet.encode(split).lengths.tolist() for split in (task.train, task.search))
    return train, search


def _entrant(auto: AutoJob, arm: Arm, supernet: Supernet, reference: Supernet, cost: ArmCost) -> Entrant:
    space = auto.job.plain_space(supernet.shape)
    is_reference = supernet is reference
    return Entrant(
        name=arm.name,
        shape=supernet.shape,
        train=cost.train,
        judge=cost.judge,
        latency_ratio=1.0 if is_reference else _ratio(auto, reference, supernet, supernet.shape.full),
        smallest_ratio=_ratio(auto, reference, supernet, space.smallest()),
    )


def _ratio(auto: AutoJob, reference: Supernet, supernet: Supernet, config: SubnetConfig) -> float:
    """Latency of a subnet over that of the whole reference."""
    job = auto.job
    with timing_conditions():
        first, second = (
            TimedModel(model, job.workload, job.device).model_calls(chosen)
            for model, chosen in ((reference, reference.shape.full), (supernet, config))
        )
        return compare(
            first,
            second,
            clock_for(job.device),
            n_rounds=N_ROUNDS,
            max_seconds=MAX_SECONDS,
            statistic=job.workload.statistic,
            seed=job.seed,
        ).ratio
