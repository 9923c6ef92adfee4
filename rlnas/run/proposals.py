"""What the saved policy of a run proposes for any latency target, without another search."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rlnas.errors import LatencyTableError, RunFolderError
from rlnas.history import History
from rlnas.latency import LatencyTable, PrecisionTables
from rlnas.latency.regime import find_regime
from rlnas.precision_space import PrecisionSpace
from rlnas.protocols import Problem
from rlnas.rewards import LatencyTarget
from rlnas.run.folder import RunFolder, read_json
from rlnas.run.inputs import check_reachable, full_latency, space_of
from rlnas.run.job import checked_ratios
from rlnas.space import QUARTERS
from rlnas.supernet.supernet import STATE_FILE

if TYPE_CHECKING:
    import numpy.typing as npt

    from rlnas.space import LayerwiseSpace, SubnetConfig
    from rlnas.trial import Trial


@dataclass(frozen=True, slots=True)
class Proposal:
    """A subnet for a target, and what is known about it.

    Attributes:
        config: The subnet.
        latency_ms: Predicted by the run's latency table, in milliseconds.
        latency_ratio: The same over the full model's.
        trial: What the search found when it judged this subnet, or None if it never did.
    """

    config: SubnetConfig
    latency_ms: float
    latency_ratio: float
    trial: Trial | None


def propose(run: str | Path, target_ratio: float, n: int = 1) -> list[Proposal]:
    """Ask the policy of a run for subnets that keep to a target; nothing is evaluated or measured.

    Args:
        run: The run folder.
        target_ratio: Latency to keep to over the full model's; it need not be one that the search served.
        n: Most subnets to give, the likeliest first.

    Raises:
        RunFolderError: If there is no run, or it holds no policy, table or weights.
        ControllerError: If the policy was trained without targets.
        RewardError: If the target is not above 0 and at most 1.
        InfeasibleTargetError: If the smallest subnet is slower than the target.
        CheckpointError: If the policy is damaged.
        ValueError: If `n` is less than 1.
    """
    from rlnas.controllers.surrogate.policy import TargetPolicy

    if n < 1:
        raise ValueError(f"n must be at least 1 subnet, but got n={n}")
    checked_ratios([target_ratio])
    folder = RunFolder(Path(run))
    folder.check()
    _check_policy(folder)
    table = LatencyTable.load(folder.latency)
    space: LayerwiseSpace | PrecisionSpace = _space(folder, table)
    latency: LatencyTable | PrecisionTables = table
    if folder.precisions.is_dir():
        latency = PrecisionTables.load(folder.precisions)
        space = PrecisionSpace(space, latency.by_speed)
    full_ms = full_latency(space, latency)
    target_ms = target_ratio * full_ms
    check_reachable(target_ms, space, latency)
    problem = Problem(
        space=space,
        reward=LatencyTarget(target_ms=target_ms),
        latency=latency,
        reference_ms=full_ms,
        importance=_importance(folder, space),
    )
    configs = TargetPolicy.load(folder.policy, problem).propose(target_ms, n)
    known = _known(folder)
    return [
        Proposal(config, float(ms), float(ms) / full_ms, known.get(config))
        for config, ms in zip(configs, latency(configs), strict=True)
    ]


def _check_policy(folder: RunFolder) -> None:
    """Refuse a run whose controller has saved no policy, or has not yet."""
    if not folder.policy.is_dir():
        raise RunFolderError(
            f"the run in {str(folder.path)!r} holds no policy that answers any target: the controllers "
            f"auto and ppo save one in {folder.policy.name}/ when their search ends; use one of them"
        )
    for path in (folder.latency, folder.supernet / STATE_FILE):
        if not path.is_file():
            raise RunFolderError(f"{str(path)!r} is missing; go on with the run (--resume) to make it")


def _space(folder: RunFolder, latency: LatencyTable) -> LayerwiseSpace:
    settings = read_json(folder.config)
    try:
        regime = find_regime(latency)
    except LatencyTableError:
        regime = None  # too few sizes: then the run has not asked for these either
    return space_of(
        latency.shape,
        regime,
        parts=int(settings.get("parts", QUARTERS)),
        keep_last_layer=settings.get("keep_last_layer") == "True",
        sizes_worth_having=settings.get("sizes_worth_having") == "True",
    )


def _importance(
    folder: RunFolder, space: LayerwiseSpace | PrecisionSpace
) -> npt.NDArray[np.float64] | None:
    """Importance of the blocks, from what lies beside the weights: these need not be loaded."""
    stored = read_json(folder.supernet / STATE_FILE).get("block_importance")
    if stored is None:
        return None
    importance = np.array(stored, dtype=np.float64).reshape(-1)
    if isinstance(space, PrecisionSpace):
        importance = np.append(importance, 0.0)  # as `PrecisionEvaluator.importance`
    return importance if importance.shape == (len(space.nvec),) else None


def _known(folder: RunFolder) -> dict[SubnetConfig, Trial]:
    if not folder.history.is_file():
        return {}
    with History.read(folder.path) as history:
        return {trial.config: trial for trial in history.trials}
