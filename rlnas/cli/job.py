"""The job of a search, made of its flags."""

from __future__ import annotations

from dataclasses import is_dataclass, replace
from typing import TYPE_CHECKING

from rlnas.cli.checkpoint import checkpoint_of
from rlnas.cli.rewards import make_reward, parse_ratios
from rlnas.cli.task import data_source_of
from rlnas.cli.workload import TASK_LENGTHS, device_and_workload
from rlnas.errors import ControllerError, RLNASError, RunFolderError

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from rlnas.evaluation import Racing
    from rlnas.protocols import Controller
    from rlnas.run import Control, Job, Torchrun
    from rlnas.scale.cluster import Cluster

CONTROLLERS = ("auto", "ppo", "plain-ppo", "knapsack", "local", "evolution", "nsga2", "tpe", "random")


def make_job(options: argparse.Namespace) -> Job:
    """The job that the flags of `search` describe.

    Raises:
        RLNASError: If something that they name is not there, or does not go together.
        ValueError: If a number is outside its range.
    """
    from rlnas.run import Job, Schedule

    cluster = make_cluster(options)
    device, workload = device_and_workload(options, timed_on=None if cluster is None else cluster.timed_on)
    ratios = parse_ratios(options.target_ratios)
    target_ratio = max(ratios) if ratios else options.target_ratio
    return Job(
        model=checkpoint_of(options),
        reward=make_reward(options.reward, options.target_ms, target_ratio, options.reward_weight),
        controller=warm_started(
            make_controller(options.controller, options.out), options.warm_start, options.out
        ),
        data=replace(data_source_of(options), shots=options.shots, folds=options.folds),
        workload=workload,
        lengths_from_task=options.lengths == TASK_LENGTHS,
        device=device,
        schedule=Schedule(
            full_epochs=options.full_epochs,
            epochs=options.epochs,
            finish_epochs=options.finish_epochs,
            repair_items=options.repair_items,
            batch_size=options.train_batch_size,
            learning_rate=options.learning_rate,
            freeze_embeddings=options.freeze_embeddings,
            micro_batches=options.micro_batches,
        ),
        torchrun=make_torchrun(options.nproc, options.nnodes, options.rdzv_endpoint),
        precisions=parse_precisions(options.precisions),
        target_ratios=ratios,
        budget=options.budget,
        cluster=cluster,
        controls=make_controls(options.controls, options.out),
        min_steps=options.min_steps,
        from_run=options.from_run,
        racing=make_racing(options.racing, options.indifference, options.seed),
        seed=options.seed,
        pooling=options.pooling,
        keep_last_layer=options.keep_last_layer,
        parts=options.parts,
        sizes_worth_having=options.sizes_worth_having,
        latency_table=options.latency_table,
        allow_foreign_table=options.allow_foreign_table,
        trust_remote_code=options.trust_remote_code,
    )


def make_cluster(options: argparse.Namespace) -> Cluster | None:
    """Where workers evaluate and models are timed; None for this process.

    Raises:
        ValueError: If a number is outside its range, or there is no cluster that could do what is asked.
    """
    from rlnas.scale.cluster import Cluster, WorkerNeeds

    flags = {
        "--workers": options.workers,
        "--worker-cpus": options.worker_cpus,
        "--worker-gpus": options.worker_gpus,
        "--latency-resource": options.latency_resource,
        "--latency-device": options.latency_device,
    }
    given = {flag: value for flag, value in flags.items() if value is not None}
    if options.ray is None:
        for flag, value in given.items():
            raise ValueError(f"{flag}={value} needs a Ray cluster: add --ray local, or --ray ADDRESS")
        return None
    if options.latency_resource is None and options.latency_device is not None:
        raise ValueError(
            f"--latency-device={options.latency_device} is that of another node: say which by "
            "--latency-resource, or choose a device of this one (--device)"
        )
    return Cluster(
        options.ray,
        given.get("--workers", 2),
        WorkerNeeds(given.get("--worker-cpus", 1), given.get("--worker-gpus", 0.0)),
        options.latency_resource,
        given.get("--latency-device", "cpu"),
    )


def make_torchrun(nproc: int | None, nnodes: int | None, rdzv_endpoint: str | None) -> Torchrun | None:
    """The processes that the command line asks for, or None.

    Raises:
        ValueError: If there are nodes without a number of processes, or the numbers make no sense.
    """
    from rlnas.run import Torchrun

    if nproc is None:
        for flag, value in (("--nnodes", nnodes), ("--rdzv-endpoint", rdzv_endpoint)):
            if value is not None:
                raise ValueError(f"{flag}={value} goes with processes on each node; add --nproc")
        return None
    return Torchrun(nproc, 1 if nnodes is None else nnodes, rdzv_endpoint)


def parse_precisions(text: str | None) -> tuple[str, ...]:
    """Precisions written with commas; none for None."""
    return () if text is None else tuple(part.strip() for part in text.split(","))


def make_controller(name: str, folder: Path) -> Controller:
    """The controller that the command line names; those with a policy leave it in the folder.

    Raises:
        MissingDependencyError: If it needs a package that is not installed.
    """
    if name in ("auto", "ppo"):
        from rlnas.controllers.surrogate import AutoController, SurrogatePPOController

        learner = AutoController if name == "auto" else SurrogatePPOController
        return learner(save_path=folder / "policy")
    if name == "plain-ppo":
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


def make_controls(names: str | None, folder: Path) -> tuple[Control, ...]:
    """The controllers that search for comparison, by their names with commas; none for None.

    Raises:
        ControllerError: If a name is unknown.
        MissingDependencyError: If one needs a package that is not installed.
        ValueError: If one stands there twice.
    """
    from rlnas.run import Control

    if names is None:
        return ()
    controls = []
    for name in (part.strip() for part in names.split(",")):
        if name not in CONTROLLERS:
            raise ControllerError(
                f"--controls={names}: {name!r} is no controller; give some of {', '.join(CONTROLLERS)}"
            )
        controls.append(Control(name, make_controller(name, folder / "controls" / name)))
    return tuple(controls)


def warm_started(controller: Controller, run: Path | None, out: Path) -> Controller:
    """The controller with an earlier run to start from, where one is named.

    Args:
        controller: One that has a field `warm_start`, if there is such a run.
        run: Folder of the earlier run, or None.
        out: Folder of this one.

    Raises:
        ControllerError: If the controller takes no warm start.
        RunFolderError: If the earlier run cannot be read, has too few trials, or is this one.
    """
    if run is None:
        return controller
    if not hasattr(controller, "warm_start") or not is_dataclass(controller):
        raise ControllerError(
            f"--warm-start={run} is for controllers that learn from an earlier run, which "
            f"{type(controller).__name__} does not; use --controller=auto or --controller=ppo, or drop it"
        )
    if run.resolve() == out.resolve():
        raise RunFolderError(f"--warm-start={run} is this very run (--out); name an earlier one")
    from rlnas.controllers.surrogate.warm_start import WarmStart

    try:
        earlier = WarmStart.read(run)
    except RLNASError as error:
        raise RunFolderError(f"--warm-start={run} cannot be used: {error}") from error
    return replace(controller, warm_start=earlier)


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
