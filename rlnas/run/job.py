"""What a run is asked to do."""

from __future__ import annotations

import logging
import math
import re
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from types import FunctionType
from typing import TYPE_CHECKING

from rlnas.calibration.precisions import check_reference
from rlnas.errors import BudgetError, InvalidSpaceError, RewardError
from rlnas.precision import INT8_BLOCKS
from rlnas.precision_space import checked_precisions
from rlnas.protocols import TargetedReward
from rlnas.rewards import HardBudget, LatencyTarget, LinearPenalty, MnasNetReward
from rlnas.space import QUARTERS, LayerwiseSpace, equal_parts
from rlnas.workload import Workload

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlnas.evaluation import Racing
    from rlnas.protocols import Controller, Reward
    from rlnas.scale.cluster import Cluster
    from rlnas.space import ModelShape

logger = logging.getLogger(__name__)


FOLDED_STEPS = 40
"""Steps below which a few hundred items teach little: see `docs/guides/small_data.md`."""


@dataclass(frozen=True, slots=True)
class DataSource:
    """Where the task comes from; see `rlnas.data.load_task`.

    Attributes:
        source: ``"pydocs"``, a hub name, a folder or a file.
        text_column: Column of the texts, or None to find it by name.
        pair_column: Column of the second texts, likewise.
        label_column: Column of the labels, likewise.
        metric: The task's metric, or None for its usual one.
        max_train_items: Training items at most, or None for all.
        search_items: Size of the search split, or None for the default.
        shots: Labelled items in all, for training and search together, or None for all.
        folds: Folds in which every labelled item is searched on once, 0 for a carved search split, or None
            for folds where items are few; races have none.
    """

    source: str = "pydocs"
    text_column: str | None = None
    pair_column: str | None = None
    label_column: str | None = None
    metric: str | None = None
    max_train_items: int | None = None
    search_items: int | None = None
    shots: int | None = None
    folds: int | None = None


@dataclass(frozen=True, slots=True)
class Schedule:
    """How the weights are trained.

    Attributes:
        full_epochs: Passes of the full model alone, before weights are shared; skipped for a
            checkpoint that is fine-tuned on the task.
        epochs: Passes with shared weights.
        finish_epochs: Passes of the chosen subnet alone, at the end.
        repair_items: Training items on whose texts a subnet is repaired that gets no such passes, see
            `rlnas.supernet.repair`; 0 for no repair.
        batch_size: Items per step, on all processes together.
        micro_batches: Parts in which each process takes its items of a step, see
            `rlnas.supernet.optimisation.Optimisation`.
        learning_rate: Peak learning rate of the encoder; None takes `usual_learning_rate`.
        freeze_embeddings: Whether the embeddings stay as they are.

    Raises:
        ValueError: If a number is out of range.
    """

    full_epochs: int = 1
    epochs: int = 2
    finish_epochs: int = 1
    repair_items: int = 256
    batch_size: int = 32
    micro_batches: int = 1
    learning_rate: float | None = None
    freeze_embeddings: bool = False

    def __post_init__(self) -> None:
        for name in ("full_epochs", "epochs", "finish_epochs"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, but got {name}={getattr(self, name)}")
        if self.repair_items < 0 or self.repair_items == 1:
            raise ValueError(
                f"repair_items must be 0 or at least 2, but got repair_items={self.repair_items}"
            )
        if self.batch_size < 1:
            raise ValueError(
                f"the batch size of training must be at least 1, but got batch_size={self.batch_size}"
            )
        if self.micro_batches < 1:
            raise ValueError(
                f"micro_batches must be at least 1, but got micro_batches={self.micro_batches}"
            )
        rate = self.learning_rate
        if rate is not None and not (math.isfinite(rate) and rate > 0):
            raise ValueError(f"learning_rate must be a number above 0, but got learning_rate={rate}")

    def for_items(self, n_items: int, min_steps: int) -> Schedule:
        """The schedule with as many more passes as bring each training that there is to `min_steps` steps.

        Args:
            n_items: Training items.
            min_steps: Steps of the optimiser, at least 0.
        """
        n_passes = math.ceil(min_steps / math.ceil(n_items / self.batch_size))
        passes = {name: getattr(self, name) for name in ("full_epochs", "epochs", "finish_epochs")}
        return replace(self, **{name: max(count, n_passes) for name, count in passes.items() if count})

    @property
    def repairs(self) -> bool:
        """Whether chosen subnets are repaired: a last training makes up for more than a repair does."""
        return self.finish_epochs == 0 and self.repair_items > 0

    @property
    def total_epochs(self) -> int:
        """Item passes of a checkpoint that is not fine-tuned on the task."""
        return self.full_epochs + self.epochs + self.finish_epochs


_LATER = {
    "precisions": "()",
    "cluster": "None",
    "parts": str(QUARTERS),
    "torchrun": "None",
    "micro_batches": "1",
}
"""Settings that earlier runs know nothing of, with their defaults: then they are left out."""


@dataclass(frozen=True, slots=True)
class Torchrun:
    """On how many processes the full model and the shared weights are trained.

    Attributes:
        nproc: Processes of each node; on GPUs each has one of its own.
        nnodes: Nodes that work on the run's folder together.
        rdzv_endpoint: Where they meet, ``"HOST:PORT"`` on the node of the run; None on one node.

    Raises:
        ValueError: If a number is less than 1, or several nodes do not know where to meet.
    """

    nproc: int
    nnodes: int = 1
    rdzv_endpoint: str | None = None

    def __post_init__(self) -> None:
        for name in ("nproc", "nnodes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, but got {name}={getattr(self, name)}")
        if self.nnodes == 1 and self.rdzv_endpoint is not None:
            raise ValueError(
                f"one node meets nobody, but got rdzv_endpoint={self.rdzv_endpoint}; "
                "drop it, or give the number of nodes (--nnodes)"
            )
        if self.nnodes > 1 and not re.fullmatch(r".+:\d+", self.rdzv_endpoint or ""):
            raise ValueError(
                f"nnodes={self.nnodes} nodes need a place to meet, HOST:PORT on the node of the run, "
                f"but got rdzv_endpoint={self.rdzv_endpoint} (--rdzv-endpoint)"
            )

    def __str__(self) -> str:
        """What the weights depend on: not where the nodes meet."""
        nodes = f" on each of {self.nnodes} nodes" if self.nnodes > 1 else ""
        return f"{self.nproc} process{'es' if self.nproc > 1 else ''}{nodes}"


@dataclass(frozen=True, slots=True)
class Control:
    """Another controller, which searches too so that the run's own one can be compared with it.

    Attributes:
        name: What it is called; its history lies in a folder of this name.
        controller: Proposes subnets, with the same budget and seed.

    Raises:
        ValueError: If the name is not made of letters, digits, ``-`` and ``_``.
    """

    name: str
    controller: Controller

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w-]+", self.name):
            raise ValueError(
                f"the name of a control must be letters, digits, - and _, but got name={self.name!r}"
            )


@dataclass(frozen=True, slots=True)
class Job:
    """One run, complete: equal jobs give equal histories on one machine.

    Attributes:
        model: A hub name or a folder.
        reward: Turns metrics into a number.
        controller: Proposes subnets.
        data: Where the task comes from.
        workload: What the device will be asked; texts are cut to its length in training too.
        lengths_from_task: Whether the workload's lengths are those of the task's training texts; then
            `workload` has none of its own. See `rlnas.supernet.encoding.with_lengths_of`.
        device: A torch device that is there.
        schedule: How the weights are trained.
        torchrun: On how many processes; None trains in the process of the run, as folds, last trainings
            and the baseline always are. Other numbers of processes round otherwise.
        min_steps: Steps that each training takes at least, by further passes; None for `FOLDED_STEPS`
            where the task has folds, else 0.
        from_run: Folder of an earlier run on another task whose shared weights this one starts from, see
            `rlnas.run.transfer`; the baseline starts from `model` all the same. None starts from `model`.
        precisions: Number formats that a subnet may be served in, some of `rlnas.precision.PRECISIONS`, the
            workload's dtype among them: then the search chooses the precision too, and latencies refer to
            the full model in the workload's dtype. Empty: that dtype alone.
        target_ratios: Latencies over the full model's that one search is to serve, ascending: the run
            then delivers a certified model for each, in ``models/``. Empty: the one of the reward alone.
            The reward's own target is what controllers aim at that know one target only.
        budget: Subnets that may be evaluated.
        cluster: Ray workers that evaluate them, and a node on which models are timed, see `rlnas.scale`;
            None does both here. Who evaluates does not change the history.
        controls: Other controllers that search as well, so that the report can say what the run's own one
            has added. They may be added to a run that is finished.
        racing: Lets subnets that cannot win leave before they have seen all items; None shows all items
            to all. Its seed is set to that of the job. See `check_raceable` for the rewards that it is for;
            the task's metric has to be accuracy.
        seed: Of everything random.
        pooling: ``"cls"``, ``"mean"``, or None for what the checkpoint was made for.
        keep_last_layer: Whether the last layer's blocks may only shrink, not go.
        parts: Equal parts of the full numbers of heads and units in which sizes are on offer, at least 1.
        sizes_worth_having: Whether blocks have the sizes that are worth having on the device, see
            `rlnas.latency.regime`, instead of equal parts of the full ones.
        latency_table: File of a latency table to use instead of calibrating, or None; with `precisions` the
            folder of a `rlnas.latency.PrecisionTables`.
        allow_foreign_table: Whether that table may be of another device or workload.
        trust_remote_code: Whether code inside the checkpoint may run.

    Raises:
        BudgetError: If `budget` is less than 1.
        InvalidSpaceError: If a precision is unknown or stands there twice, `parts` is less than 1, or it is
            not the usual one though sizes worth having are asked for.
        RewardError: If subnets are raced for a reward that races do not serve, `target_ratios` cannot be,
            or the reward cannot serve them.
        ValueError: If `seed` is negative or above 4294967295, `min_steps` is negative, lengths are given
            twice, subnets are raced in folds, a control is there twice or is the run's own controller,
            precisions lack the workload's dtype, the dtype is int8 without precisions, or there
            are precisions and races or folds.
    """

    model: str
    reward: Reward
    controller: Controller
    data: DataSource = field(default_factory=DataSource)
    workload: Workload = field(default_factory=Workload)
    lengths_from_task: bool = False
    device: str = "cpu"
    schedule: Schedule = field(default_factory=Schedule)
    torchrun: Torchrun | None = None
    min_steps: int | None = None
    from_run: str | None = None
    precisions: tuple[str, ...] = ()
    target_ratios: tuple[float, ...] = ()
    budget: int = 200
    cluster: Cluster | None = None
    controls: tuple[Control, ...] = ()
    racing: Racing | None = None
    seed: int = 0
    pooling: str | None = None
    keep_last_layer: bool = False
    parts: int = QUARTERS
    sizes_worth_having: bool = False
    latency_table: str | None = None
    allow_foreign_table: bool = False
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        if self.budget < 1:
            raise BudgetError(f"budget must be at least 1 trial, but got budget={self.budget}")
        check_seed(self.seed)
        if self.min_steps is not None and self.min_steps < 0:
            raise ValueError(f"min_steps must be at least 0, but got min_steps={self.min_steps}")
        object.__setattr__(self, "target_ratios", checked_ratios(self.target_ratios))
        _check_serves(self.reward, self.target_ratios)
        _check_controls(self.controls, self.controller)
        if self.lengths_from_task and self.workload.lengths:
            raise ValueError(
                "lengths_from_task takes the task's lengths, but the workload has "
                f"{len(self.workload.lengths)} of its own; drop either"
            )
        if self.workload.dtype in INT8_BLOCKS and not self.precisions:
            raise ValueError(
                f"dtype={self.workload.dtype!r} alone would search in floats and deliver no int8 model; "
                f"add it to the precisions (--precisions {self.workload.dtype})"
            )
        _check_parts(self.parts, self.sizes_worth_having)
        if self.precisions:
            object.__setattr__(self, "precisions", checked_precisions(self.precisions))
            check_reference(self.workload, self.precisions)
            if self.racing is not None:
                raise ValueError(
                    f"races are among subnets of one precision, but got precisions={self.precisions}; "
                    "run without --racing, or without --precisions"
                )
        _check_no_folds(self.data.folds, self.racing, self.precisions)
        if self.racing is not None:
            check_raceable(self.reward)
            object.__setattr__(self, "racing", replace(self.racing, seed=self.seed))

    @property
    def is_timed_elsewhere(self) -> bool:
        """Whether models are timed on another node of the cluster."""
        return self.cluster is not None and self.cluster.timed_on is not None

    @property
    def latency_device(self) -> str:
        """Device on which models are timed; on another node that one's."""
        return (self.cluster and self.cluster.timed_on) or self.device

    def plain_space(self, shape: ModelShape) -> LayerwiseSpace:
        """The subnets of a model that are on offer, whatever the device makes of their sizes."""
        return LayerwiseSpace.for_model(shape, parts=self.parts, keep_last_layer=self.keep_last_layer)

    def for_items(self, n_items: int, n_folds: int) -> Job:
        """The job with the passes that so many training items want."""
        min_steps = (FOLDED_STEPS if n_folds else 0) if self.min_steps is None else self.min_steps
        return replace(self, schedule=self.schedule.for_items(n_items, min_steps))

    def settings(self) -> dict[str, str]:
        """Every setting as text, for comparing a run with one that is resumed."""
        values: dict[str, str] = {}
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, DataSource | Schedule | Workload):
                for part in fields(value):
                    # The workload has a batch size too.
                    prefix = "train_" if isinstance(value, Schedule) and part.name == "batch_size" else ""
                    values[prefix + part.name] = str(getattr(value, part.name))
            else:
                values[entry.name] = _describe(value)
        return {key: value for key, value in values.items() if value != _LATER.get(key)}


def _check_parts(parts: int, sizes_worth_having: bool) -> None:
    """Refuse two ways to say what sizes are on offer."""
    equal_parts(1, parts)
    if sizes_worth_having and parts != QUARTERS:
        raise InvalidSpaceError(
            "sizes are equal parts of the full ones or those worth having, but got "
            f"parts={parts} and sizes_worth_having=True; drop either"
        )


def _check_no_folds(folds: int | None, racing: Racing | None, precisions: Sequence[str]) -> None:
    """Refuse folds in races, as a config's subnets differ from fold to fold, and among precisions."""
    if folds is None or folds <= 1:
        return
    if racing is not None:
        raise ValueError(f"races are not for folds, but got folds={folds}; drop the races or the folds")
    if precisions:
        raise ValueError(
            f"a choice of the precision is not for folds, but got folds={folds} and "
            f"precisions={precisions}; drop either"
        )


def check_seed(seed: int) -> None:
    """Refuse what not all generators take: NumPy's old one, which controllers use, takes 32 bits.

    Raises:
        ValueError: If `seed` is negative or above 4294967295.
    """
    if not 0 <= seed < 2**32:
        bound = "at least 0" if seed < 0 else "at most 4294967295"
        raise ValueError(f"seed must be {bound}, but got seed={seed}")


def checked_ratios(ratios: Sequence[float]) -> tuple[float, ...]:
    """Several latency targets, relative to the full model's latency, in ascending order.

    Raises:
        RewardError: If one is not above 0 and at most 1, or stands there twice (to six digits).
    """
    for ratio in ratios:
        if not 0 < ratio <= 1:
            raise RewardError(
                "a target ratio must be above 0 and at most 1, which is what the full model takes, "
                f"but got {ratio:g}"
            )
    names = [ratio_name(ratio) for ratio in sorted(ratios)]
    for one, other in pairwise(names):
        if one == other:
            raise RewardError(f"every target ratio may stand there once, but {one} does twice; drop one")
    return tuple(sorted(float(ratio) for ratio in ratios))


def _check_serves(reward: Reward, ratios: Sequence[float]) -> None:
    """Refuse a reward that cannot be moved to other targets."""
    if ratios and not isinstance(reward, TargetedReward):
        raise RewardError(
            f"reward={_describe(reward)} knows no target, so it cannot serve the target ratios "
            f"{', '.join(map(ratio_name, ratios))}; use LatencyTarget, or give it a method at(target_ms)"
        )


def _check_controls(controls: Sequence[Control], controller: Controller) -> None:
    """Refuse comparisons that show nothing."""
    names = [control.name for control in controls]
    for control in controls:
        if names.count(control.name) > 1:
            raise ValueError(f"every control may stand there once, but {control.name} does twice; drop one")
        if _describe(control.controller) == _describe(controller):
            raise ValueError(
                f"the control {control.name} is the run's own controller, so it would find the same; "
                "name another one"
            )


def ratio_name(ratio: float) -> str:
    """A target ratio as text, e.g. ``0.25``; also the name of its model's folder."""
    return f"{ratio:.6g}"


def check_raceable(reward: Reward) -> None:
    """Refuse to race for a reward that may want what a race has dropped.

    A subnet leaves a race because another one is not slower and at least as accurate. That is right for
    rewards that never fall with accuracy, never rise with latency and look at nothing else: all of
    `rlnas.rewards` but ``LatencyTarget(absolute=True)``. Other rewards are unknown; a warning says what
    they have to be.

    Raises:
        RewardError: If the reward is one that also prices being fast.
    """
    if isinstance(reward, LatencyTarget) and reward.absolute:
        raise RewardError(
            "racing drops subnets that another one beats in accuracy and latency, but "
            f"reward={reward} also prices being faster than the target; "
            "run without --racing, or with --reward=latency-target"
        )
    if type(reward) not in (LatencyTarget, LinearPenalty, MnasNetReward, HardBudget):
        logger.warning(
            "racing trusts reward=%s never to fall with accuracy, never to rise with latency, "
            "and to look at nothing else; if it does, run without --racing",
            _describe(reward),
        )


def _describe(value: object) -> str:
    """Text that is the same in every process: without memory addresses."""
    if isinstance(value, FunctionType):
        return f"{value.__module__}:{value.__qualname__}"
    return re.sub(r" at 0x[0-9a-fA-F]+", "", str(value))
