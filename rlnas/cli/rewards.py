"""Rewards by name, and rewards of one's own by module and function."""

from __future__ import annotations

import difflib
import importlib
import re
import sys
from typing import TYPE_CHECKING

from rlnas.errors import RewardError
from rlnas.rewards import HardBudget, LatencyTarget, LinearPenalty, MnasNetReward

if TYPE_CHECKING:
    from rlnas.protocols import Reward

REWARDS = ("latency-target", "latency-target-absolute", "linear-penalty", "mnasnet", "hard-budget")


def make_reward(
    name: str, target_ms: float | None, target_ratio: float | None, weight: float | None
) -> Reward:
    """The reward that the command line names.

    Args:
        name: One of `REWARDS`, or ``package.module:function``.
        target_ms: Latency to reach in milliseconds, or None.
        target_ratio: Latency to reach over the full model's, or None; without both, one half.
        weight: Weight of the latency, or None for the reward's own.

    Raises:
        RewardError: If the name is unknown, the function cannot be imported, an option does not
            go with the reward, or the ratio is above 1.
    """
    has_target = target_ms is not None or target_ratio is not None
    if target_ratio is not None and target_ratio > 1:
        raise RewardError(
            f"--target-ratio={target_ratio:g} is more than the full model takes, 1; "
            "give a fraction of it, such as 0.5"
        )
    weights = {} if weight is None else {"weight": weight}
    if name in ("latency-target", "latency-target-absolute", "mnasnet", "hard-budget"):
        if not has_target:
            target_ratio = 0.5
        if name.startswith("latency-target"):
            absolute = name.endswith("absolute")
            return LatencyTarget(target_ratio, target_ms, absolute=absolute, **weights)
        if weight is not None:
            raise RewardError(
                f"--reward-weight={weight} does not go with --reward={name}, which has no weight"
            )
        targeted = MnasNetReward if name == "mnasnet" else HardBudget
        return targeted(target_ratio, target_ms)
    if has_target:
        raise RewardError(
            f"--reward={name} knows no target, so --target-ms, --target-ratio and --target-ratios do not "
            "go with it; "
            "drop them, or use --reward=latency-target"
        )
    if name == "linear-penalty":
        return LinearPenalty(**weights)
    if weight is not None:
        raise RewardError(
            f"--reward-weight={weight} does not go with --reward={name}; set it in the function"
        )
    return _imported(name)


def parse_ratios(text: str | None) -> tuple[float, ...]:
    """Several targets as they are written on the command line, ascending; none for None.

    Raises:
        RewardError: If one is no number, not above 0 or above 1, or stands there twice.
    """
    from rlnas.run.job import checked_ratios

    if text is None:
        return ()
    ratios = []
    for part in text.split(","):
        try:
            ratios.append(float(part))
        except ValueError:
            raise RewardError(
                f"--target-ratios={text} must be numbers parted by commas, such as 0.25,0.4,0.6, "
                f"but {part.strip()!r} is none"
            ) from None
    try:
        return checked_ratios(ratios)
    except RewardError as error:
        raise RewardError(f"--target-ratios={text}: {error}") from error


def _imported(name: str) -> Reward:
    module_name, _, function_name = name.partition(":")
    if not re.fullmatch(r"\w+(\.\w+)*:\w+", name):
        close = difflib.get_close_matches(name, REWARDS, n=1)
        known = f"give one of {', '.join(REWARDS)}, or package.module:function"
        raise RewardError(f"--reward={name} is unknown; {f'did you mean {close[0]}?' if close else known}")
    if "" not in sys.path:
        sys.path.insert(0, "")  # a reward may lie beside the data
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # of somebody's own code
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise RewardError(f"--reward={name}: cannot import the module {module_name!r}: {reason}") from error
    reward = getattr(module, function_name, None)
    if reward is None:
        raise RewardError(f"--reward={name}: the module {module_name!r} has no {function_name!r}")
    if not callable(reward) or isinstance(reward, type):
        raise RewardError(f"--reward={name}: {function_name!r} is {reward!r}, not a function of Metrics")
    result: Reward = reward
    return result
