"""What ``summary.json`` says of a choice among models; `docs/metrics.md` defines each number."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from rlnas.auto.compute import SearchCost, finish_passes, kept_share
from rlnas.auto.ties import note_on_ties
from rlnas.history import History
from rlnas.scores import score_interval
from rlnas.supernet import Supernet
from rlnas.supernet.inference import predict

if TYPE_CHECKING:
    from rlnas.auto.entrants import Entrant
    from rlnas.auto.folder import AutoFolder
    from rlnas.auto.job import AutoJob
    from rlnas.auto.plan import Plan
    from rlnas.auto.record import Look
    from rlnas.task import Task


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """What was chosen, and from what.

    Attributes:
        plan: Rungs and numbers of trials.
        entrants: All arms, those that cannot be fast enough among them; the first one is the reference.
        looks: The record.
        winner: The winner's last look.
        at_most: What the search of the winner was planned to cost at most.
    """

    plan: Plan
    entrants: tuple[Entrant, ...]
    looks: tuple[Look, ...]
    winner: Look
    at_most: SearchCost

    @property
    def entrant(self) -> Entrant:
        """The winner's arm."""
        return next(one for one in self.entrants if one.name == self.winner.candidate.arm)


def describe_choice(
    auto: AutoJob, choice: Choice, task: Task, summary: dict[str, Any], folder: AutoFolder
) -> dict[str, Any]:
    """The choice as ``auto`` in ``summary.json``.

    Args:
        auto: What was asked.
        choice: What was chosen.
        task: The data.
        summary: Of the search that followed.
        folder: Where the winner's weights and the history of that search lie.
    """
    supernet = Supernet.load(folder.winner, device=auto.job.device)
    answers = predict(supernet.model, supernet.encode(task.search), name="the chosen model")
    entrant = choice.entrant
    return {
        "reference": choice.entrants[0].name,
        "target_ratio": auto.target_ratio,
        "latency_ratio": summary["latency_ratio"] * entrant.latency_ratio,
        "rungs": list(choice.plan.rungs),
        "arms": [_arm(one, auto.target_ratio) for one in choice.entrants],
        "trials": _trials(choice),
        "notes": notes_of(choice),
        "chosen": {
            "trial": choice.winner.candidate.number,
            "arm": entrant.name,
            "learning_rate": choice.winner.candidate.learning_rate,
            "batch_size": choice.winner.candidate.batch_size,
            "score": choice.winner.score,
            "loss": choice.winner.loss,
            "score_ci": list(score_interval(task.metric, task.search.labels, answers)),
            "n_items": len(task.search),
            "split": task.search.name,
        },
        "cost": _cost(auto, choice, summary, folder),
    }


def _arm(entrant: Entrant, target_ratio: float) -> dict[str, Any]:
    return {
        "arm": entrant.name,
        "n_layers": entrant.shape.num_hidden_layers,
        "cost": entrant.train,
        "latency_ratio": entrant.latency_ratio,
        "smallest_ratio": entrant.smallest_ratio,
        "is_reachable": entrant.reaches(target_ratio),
    }


def _trials(choice: Choice) -> list[dict[str, Any]]:
    """Every trial with its scores and losses, rung by rung, as far as it came."""
    trials: dict[int, dict[str, Any]] = {}
    for look in choice.looks:
        number = look.candidate.number
        begun = {"trial": number, **_settings(look), "scores": [], "losses": [], "cost": 0.0}
        trial = trials.setdefault(number, begun)
        trial["scores"].append(look.score)
        trial["losses"].append(look.loss)
        trial["cost"] += look.cost
    return list(trials.values())


def notes_of(choice: Choice) -> list[str]:
    """What is to be said of rungs that told little, see `rlnas.auto.ties`."""
    looks: list[list[Look]] = [[] for _ in choice.plan.rungs]
    for look in choice.looks:
        looks[look.rung].append(look)
    pairs = zip(choice.plan.rungs, pairwise(looks), strict=False)  # nobody goes on from the last rung
    notes = (
        note_on_ties(here, [look.candidate.number for look in after], n_passes)
        for n_passes, (here, after) in pairs
    )
    return [note for note in notes if note is not None]


def _settings(look: Look) -> dict[str, Any]:
    return {name: value for name, value in look.candidate.to_dict().items() if name != "number"}


def _cost(auto: AutoJob, choice: Choice, summary: dict[str, Any], folder: AutoFolder) -> dict[str, Any]:
    """Passes of the reference: where they went, and what all trials to their end would have taken."""
    costs = {entrant.name: entrant.cost for entrant in choice.entrants}
    spent = _search_spent(auto, choice, summary, folder)
    arms = sum(look.cost for look in choice.looks)
    return {
        "passes": auto.passes,
        "at_most": choice.at_most.total
        + choice.plan.at_most([one.cost for one in choice.entrants if one.reaches(auto.target_ratio)]),
        "choice": arms,
        **spent.to_dict(),
        "total": arms + spent.total,
        "choice_to_the_end": sum(
            costs[look.candidate.arm].look(choice.plan.rungs[-1]) for look in choice.looks if look.rung == 0
        ),
    }


def _search_spent(auto: AutoJob, choice: Choice, summary: dict[str, Any], folder: AutoFolder) -> SearchCost:
    """What the search took of what it was allowed."""
    schedule = auto.job.for_items(summary["task"]["n_train"], 0).schedule
    evaluation, shape, cost = summary["evaluation"], choice.entrant.shape, choice.entrant.cost
    with History.read(folder.run.path) as history:
        finished = [history.trials[step["trial"]].config for step in summary["steps"]]
    return SearchCost(
        share=choice.at_most.share,
        search=cost.judge
        * evaluation["n_configs"]
        * evaluation["flops"]
        / max(1, evaluation["masked_flops"]),
        finish=sum(cost.train * finish_passes(kept_share(config, shape), schedule) for config in finished),
        baseline=choice.at_most.baseline,
    )
