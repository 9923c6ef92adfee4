"""The job of a search, made of its flags."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlnas.cli.checkpoint import checkpoint_of
from rlnas.cli.rewards import make_reward, parse_ratios
from rlnas.cli.workload import TASK_LENGTHS, device_and_workload

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from rlnas.evaluation import Racing
    from rlnas.protocols import Controller
    from rlnas.run import Job

CONTROLLERS = ("ppo", "knapsack", "local", "evolution", "nsga2", "tpe", "random")


def make_job(options: argparse.Namespace) -> Job:
    """The job that the flags of `search` describe.

    Raises:
        RLNASError: If something that they name is not there, or does not go together.
        ValueError: If a number is outside its range.
    """
    from rlnas.run import DataSource, Job, Schedule

    device, workload = device_and_workload(options)
    ratios = parse_ratios(options.target_ratios)
    target_ratio = max(ratios) if ratios else options.target_ratio
    return Job(
        model=checkpoint_of(options),
        reward=make_reward(options.reward, options.target_ms, target_ratio, options.reward_weight),
        controller=make_controller(options.controller, options.out),
        data=DataSource(
            source=options.task,
            text_column=options.text_column,
            pair_column=options.pair_column,
            label_column=options.label_column,
            metric=options.metric,
            max_train_items=options.max_train_items,
            search_items=options.search_items,
        ),
        workload=workload,
        lengths_from_task=options.lengths == TASK_LENGTHS,
        device=device,
        schedule=Schedule(
            full_epochs=options.full_epochs,
            epochs=options.epochs,
            finish_epochs=options.finish_epochs,
            batch_size=options.train_batch_size,
            learning_rate=options.learning_rate,
            freeze_embeddings=options.freeze_embeddings,
        ),
        target_ratios=ratios,
        budget=options.budget,
        racing=make_racing(options.racing, options.indifference, options.seed),
        seed=options.seed,
        pooling=options.pooling,
        keep_last_layer=options.keep_last_layer,
        sizes_worth_having=options.sizes_worth_having,
        latency_table=options.latency_table,
        allow_foreign_table=options.allow_foreign_table,
        trust_remote_code=options.trust_remote_code,
    )


def make_controller(name: str, folder: Path) -> Controller:
    """The controller that the command line names; PPO leaves its policy and log in the folder.

    Raises:
        MissingDependencyError: If it needs a package that is not installed.
    """
    if name == "ppo":
        from rlnas.controllers.ppo import PPOController

        return PPOController(save_path=folder / "controller.zip", log_dir=folder / "ppo")
    if name == "knapsack":
        from rlnas.controllers.knapsack import KnapsackController

        return KnapsackController()
    if name == "local":
        from rlnas.controllers.local import LocalSearchController

        return LocalSearchController()
    if name == "evolution":
        from rlnas.controllers.evolution import EvolutionController

        return EvolutionController()
    if name in ("tpe", "nsga2"):
        from rlnas.controllers.optuna import OptunaController

        return OptunaController("tpe" if name == "tpe" else "nsga2")
    from rlnas.controllers.random import RandomController

    return RandomController()


def make_racing(enabled: bool, points: float | None, seed: int) -> Racing | None:
    """The racing that the command line asks for, or None.

    Args:
        enabled: Whether to race.
        points: Indifference in points of accuracy, or None for 0.
        seed: Of the order of the items.

    Raises:
        ValueError: If there is an indifference without racing, or it is out of range.
    """
    if points is not None and not enabled:
        raise ValueError(f"--indifference={points:g} is for races only; add --racing, or drop it")
    if points is not None and not 0 <= points < 100:
        raise ValueError(
            f"--indifference={points:g} must be at least 0 and less than 100 points of accuracy; "
            "give it a number such as 1"
        )
    if not enabled:
        return None
    from rlnas.evaluation import Racing

    return Racing(indifference=(points or 0.0) / 100, seed=seed)
