"""``rlnas propose``: what the policy of a run proposes for any target."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from rlnas.cli.command import add_command

if TYPE_CHECKING:
    import argparse

    from rlnas.cli.command import Commands
    from rlnas.run.proposals import Proposal


def add_propose(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "propose",
        run_propose,
        "ask the policy of a run for subnets that keep to any target",
        "The policy that a search with the controller auto or ppo has trained answers any target, also "
        "ones that the search did not serve. Nothing is searched or measured: latencies are predicted by "
        "the run's table, and accuracies are known for subnets that the search has judged.",
    )
    parser.add_argument("folder", type=Path, metavar="RUN", help="run folder")
    parser.add_argument(
        "--target-ratio",
        type=float,
        required=True,
        metavar="R",
        help="latency to keep to, as a fraction of the full model's",
    )
    parser.add_argument("--n", type=int, default=1, metavar="N", help="most subnets to propose")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="write the first one as a model, with the shared weights"
    )


def run_propose(options: argparse.Namespace) -> None:
    """Print the proposals, one line each, and export the first where that is wanted."""
    from rlnas.run.export import check_free, export_config
    from rlnas.run.proposals import propose

    if options.out is not None:
        check_free(options.out)
    proposals = propose(options.folder, options.target_ratio, options.n)
    for number, proposal in enumerate(proposals, start=1):
        print(_line(number, proposal))
    if options.out is not None:
        export_config(options.folder, proposals[0].config, options.out)
        print(json.dumps(proposals[0].config.to_dict()))
        print(f"model: {options.out}")


def _line(number: int, proposal: Proposal) -> str:
    return (
        f"{number}. {proposal.config}: {proposal.latency_ms:.4g} ms predicted, "
        f"{proposal.latency_ratio:.3f} of the full model's; {_accuracy(proposal)}"
    )


def _accuracy(proposal: Proposal) -> str:
    trial = proposal.trial
    if trial is None:
        return "accuracy not known: the search did not judge it"
    metrics = trial.metrics
    if metrics.raced_out:
        return f"accuracy about {metrics.accuracy:.3f}: trial {trial.number} was raced out"
    interval = ""
    if metrics.accuracy_ci is not None:
        low, high = metrics.accuracy_ci
        interval = f" [{low:.3f}, {high:.3f}]"
    return f"accuracy {metrics.accuracy:.3f}{interval} on the search split (trial {trial.number})"
