"""The samplers of Optuna as controllers: TPE and NSGA-II.

Optuna is asked and told in memory; the history of a search is that of `rlnas`, as always. A subnet
that it asks for and that would be too slow is repaired, as everywhere. Where it asks for the same
one again, as TPE does more and more, a random neighbour is evaluated instead: a repeat would teach
it nothing. Optuna is told of the subnet that was evaluated.

References:
    J. Bergstra, R. Bardenet, Y. Bengio, B. Kégl. Algorithms for hyper-parameter optimization.
    NeurIPS 2011.
    K. Deb, A. Pratap, S. Agarwal, T. Meyarivan. A fast and elitist multiobjective genetic
    algorithm: NSGA-II. IEEE Transactions on Evolutionary Computation 6(2), 2002.
    T. Akiba, S. Sano, T. Yanase, T. Ohta, M. Koyama. Optuna: a next-generation hyperparameter
    optimization framework. KDD 2019.
"""

from __future__ import annotations

import importlib.util
import math
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np

from rlnas.controllers.feasible import FeasibleSampler, aims_of, draw_unseen
from rlnas.errors import ControllerError, MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import optuna
    from optuna.distributions import BaseDistribution

    from rlnas.controllers.feasible import Aim
    from rlnas.controllers.start import InformedStart
    from rlnas.env import IntArray
    from rlnas.protocols import Evaluate, Problem
    from rlnas.trial import Trial

SAMPLERS = ("tpe", "nsga2")


@dataclass(frozen=True, slots=True)
class OptunaController:
    """Proposes what a sampler of Optuna asks for.

    ``"tpe"`` looks for the highest reward. For several targets there is one study each, since one
    objective has one optimum: the mean reward over targets would lead to a subnet between them,
    which serves none. The studies take turns, and each is told of every trial, by its own reward.

    ``"nsga2"`` looks for the whole front, accuracy up and latency down, whatever the reward; only
    the largest target bounds it.

    Attributes:
        sampler: ``"tpe"`` or ``"nsga2"``.
        batch_size: Proposals evaluated at once, at least 1; one that divides `population_size`
            leaves the generations of NSGA-II as they are meant.
        population_size: Subnets in a generation of NSGA-II, at least 2.
        hard_budget: Whether only subnets within the latency target are proposed, where target
            and latency are known.
        start: What to evaluate first; None leaves the beginning to the sampler.

    Raises:
        ValueError: If an attribute is out of range.
        MissingDependencyError: If Optuna is not installed.
    """

    sampler: Literal["tpe", "nsga2"] = "tpe"
    batch_size: int = 4
    population_size: int = 32
    hard_budget: bool = True
    start: InformedStart | None = None

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            raise ValueError(f"sampler must be one of {', '.join(SAMPLERS)}, but got {self.sampler!r}")
        for name, lowest in {"batch_size": 1, "population_size": 2}.items():
            value = getattr(self, name)
            if value < lowest:
                raise ValueError(f"{name} must be at least {lowest}, but got {name}={value}")
        if importlib.util.find_spec("optuna") is None:
            raise MissingDependencyError(
                f"OptunaController(sampler={self.sampler!r}) needs optuna; "
                "install with: pip install 'rlnas[optuna]'"
            )

    def search(self, problem: Problem, evaluate: Evaluate, budget: int, seed: int) -> None:
        """Ask, evaluate and tell until `evaluate` ends the search.

        Args:
            problem: What is known beforehand.
            evaluate: Judges configs; what it raises passes through.
            budget: Not needed: `evaluate` keeps to it.
            seed: Equal seeds give equal proposals; at least 0.

        Raises:
            InfeasibleTargetError: If even the smallest subnet is slower than a target.
            ControllerError: If ``"nsga2"`` is told of a trial without a latency.
        """
        del budget
        rng = np.random.default_rng(seed)
        feasible = FeasibleSampler(problem, rng, self.hard_budget)
        proposed: set[bytes] = set()
        with _quiet():
            studies = self._studies(problem, feasible, rng)
            queue = [] if self.start is None else list(self.start.actions(problem, rng))
            while True:
                for study in studies:
                    asked = [
                        study.place(queue.pop(0), proposed) if queue else study.ask(proposed)
                        for _ in range(self.batch_size)
                    ]
                    trials = evaluate([problem.space.decode(action.tolist()) for _, action in asked])
                    for (request, action), trial in zip(asked, trials, strict=True):
                        for each in studies:
                            each.tell(request if each is study else None, action, trial)

    def _studies(
        self, problem: Problem, feasible: FeasibleSampler, rng: np.random.Generator
    ) -> list[_Study]:
        import optuna

        nvec = problem.space.nvec
        if self.sampler == "nsga2":
            nsga2 = optuna.samplers.NSGAIISampler(population_size=self.population_size, seed=_seed(rng))
            front = optuna.create_study(sampler=nsga2, directions=["maximize", "minimize"])
            return [_Study(front, nvec, feasible, None, _accuracy_and_latency)]
        studies = []
        for aim in aims_of(problem):
            tpe = optuna.samplers.TPESampler(seed=_seed(rng))
            peak = optuna.create_study(sampler=tpe, direction="maximize")
            studies.append(_Study(peak, nvec, feasible, aim.target_ms, partial(_worth, aim)))
        return studies


_Asked = tuple["optuna.Trial | None", "IntArray"]
"""A request of Optuna, or None where the study is told without one, and the action to evaluate."""


class _Study:
    """A study of Optuna over actions, of which only new and feasible ones get through.

    Args:
        study: Without trials.
        nvec: Number of options at each position.
        feasible: Repairs what would be too slow.
        target_ms: Bound of what this study asks for; None for that of `feasible`.
        values_of: The objectives of a trial.
    """

    def __init__(
        self,
        study: optuna.Study,
        nvec: Sequence[int],
        feasible: FeasibleSampler,
        target_ms: float | None,
        values_of: Callable[[Trial], list[float]],
    ) -> None:
        from optuna.distributions import IntDistribution
        from optuna.trial import TrialState, create_trial

        self._create_trial, self._fail = create_trial, TrialState.FAIL
        self._study = study
        self._feasible = feasible
        self._target_ms = target_ms
        self._values_of = values_of
        # The generations of NSGA-II are counted in what it was asked for; others learn from anything.
        self._counts_requests = len(study.directions) > 1
        # Integers, not categories: options ascend in size.
        self._distributions: dict[str, BaseDistribution] = {
            f"position_{position}": IntDistribution(0, n_options - 1)
            for position, n_options in enumerate(nvec)
        }

    def ask(self, proposed: set[bytes]) -> _Asked:
        """What the sampler wants, repaired; a neighbour of it where `proposed` holds that already."""
        request = self._study.ask(self._distributions)
        wanted = np.array([request.params[name] for name in self._distributions], dtype=np.int64)
        action = self._feasible.repair(wanted[None], self._target_ms)[0]
        if action.tobytes() in proposed:
            action = draw_unseen(partial(self._near, action), 1, proposed)[0]
        if np.array_equal(action, wanted):
            proposed.add(action.tobytes())
            return request, action
        self._study.tell(request, state=self._fail)  # which teaches the sampler nothing
        return self.place(action, proposed)

    def place(self, action: IntArray, proposed: set[bytes]) -> _Asked:
        """This very action, whatever the sampler wants."""
        proposed.add(action.tobytes())
        if not self._counts_requests:
            return None, action
        self._study.enqueue_trial(self._parameters(action))
        return self._study.ask(self._distributions), action

    def tell(self, request: optuna.Trial | None, action: IntArray, trial: Trial) -> None:
        """What an action was worth, whether this study asked for it or not."""
        values = self._values_of(trial)
        if request is not None:
            self._study.tell(request, values)
            return
        self._study.add_trial(
            self._create_trial(
                params=self._parameters(action), distributions=self._distributions, values=values
            )
        )

    def _near(self, action: IntArray, n_actions: int) -> IntArray:
        return self._feasible.neighbours(action, n_actions, self._target_ms)

    def _parameters(self, action: IntArray) -> dict[str, int]:
        return dict(zip(self._distributions, action.tolist(), strict=True))


def _worth(aim: Aim, trial: Trial) -> list[float]:
    return [aim.worth(trial)]


def _accuracy_and_latency(trial: Trial) -> list[float]:
    if math.isnan(trial.metrics.latency_ms):
        raise ControllerError(
            f"OptunaController(sampler='nsga2') trades accuracy for latency, but trial {trial.number} has "
            "latency_ms=nan; give search() latency=..., or let the evaluator fill in Metrics.latency_ms"
        )
    return [trial.metrics.accuracy, trial.metrics.latency_ms]


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**32))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's lines about every study and trial."""
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)
